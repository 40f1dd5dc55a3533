"""The command that counts lines of code."""

from __future__ import annotations

import pytest

from scripts.count_lines import count, longest_signature
from tests.support.servers import ROOT

SOURCE = '''"""A module.

Of three lines.
"""

import os  # why

LIMIT = 3
"""What it limits."""


def one():
    """A docstring."""
    # A comment.
    return """text
that is code"""
'''


def test_parameters_are_counted_as_callers_see_them():
    source = "class A:\n def f(self, a, /, b, *c, d, **e): g(1, 2, 3, 4, 5, 6)"
    assert longest_signature(source) == (5, "f")


@pytest.mark.parametrize("package", ["flux_api", "file_server", "flux_server"])
def test_no_signature_is_too_long_to_be_called_from_memory(package):
    for path in (ROOT / package).rglob("*.py"):
        assert longest_signature(path.read_text("utf-8"))[0] <= 7, path


def test_only_code_counts():
    assert count(SOURCE) == (5, 2)


def test_pictures_are_read_and_written_in_few_lines():
    """What strangers' files pass through stays small enough to be read whole."""
    folder = ROOT / "flux_api" / "images"
    names = ("codec", "data_urls", "decode_child", "decoder", "fitting")
    lines = [count((folder / f"{name}.py").read_text())[0] for name in names]
    assert sum(lines) <= 700
