"""The command that counts lines of code."""

from __future__ import annotations

from scripts.count_lines import count

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
