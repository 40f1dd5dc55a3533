"""One browser for the tests of the page."""

from __future__ import annotations

import pytest

from tests.support.browser import run_browser


@pytest.fixture(scope="package")
def browser():
    """Chromium without a window."""
    with run_browser() as running:
        yield running
