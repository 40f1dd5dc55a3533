"""One browser for all tests of the page."""

from __future__ import annotations

import pytest

from tests.support.browser import run_browser


@pytest.fixture(scope="session")
def browser():
    """Chromium without a window."""
    with run_browser() as running:
        yield running
