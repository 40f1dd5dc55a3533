"""System programs that some tests drive."""

from __future__ import annotations

import os
import shutil

import pytest


def need(name):
    """The path of the program; without it the test is skipped, but in CI, where
    everything is installed, it fails."""
    places = os.pathsep.join(
        (os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin")
    )
    found = shutil.which(name, path=places)
    if found is None:
        message = f"{name} is missing: install it with 'make test-deps'"
        if os.environ.get("CI"):
            raise AssertionError(message)
        pytest.skip(message)
    return found
