"""The command that counts lines of code."""

from __future__ import annotations

from scripts.count_lines import count
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


def test_only_code_counts():
    assert count(SOURCE) == (5, 2)


def test_pictures_are_read_and_written_in_few_lines():
    """What strangers' files pass through stays small enough to be read whole."""
    folder = ROOT / "flux_api" / "images"
    names = ("codec", "data_urls", "decode_child", "decoder", "fitting")
    lines = [count((folder / f"{name}.py").read_text())[0] for name in names]
    assert sum(lines) <= 700
