"""The command that counts lines of code."""

from __future__ import annotations

import ast

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


# Tables, and a program that has to be one file: it runs without the package around it.
LONG = {
    "flux_api/images/decode_child.py",
    "flux_api/blueprints/description/operations.py",
    "flux_api/blueprints/description/responses.py",
}


@pytest.mark.parametrize("package", ["flux_api", "file_server", "flux_server"])
def test_no_module_is_too_long_to_be_read_at_once(package):
    for path in (ROOT / package).rglob("*.py"):
        if path.relative_to(ROOT).as_posix() not in LONG:
            assert count(path.read_text("utf-8"))[0] < 250, path


def test_only_code_counts():
    assert count(SOURCE) == (5, 2)


FOLDER = ROOT / "flux_api" / "images"
BY_HAND = {
    *("open_image", "name_format", "media_type", "is_picture"),
    *("read_orientation", "scale_key", "split_grey16"),
    *("tidy_jpeg", "next_segment", "one_scan_end", "StrictJpegFile"),
    *("picture_data", "_png_chunks", "_find_scan", "_webp_chunks"),
}
"""What looks at the bytes of somebody's picture, and not through a library."""
OTHERS = {
    # What writes our own files.
    *("_encode_png", "png_chunk"),
    *("_add_to_png", "_png_text", "_png_parameters", "_add_to_jpeg", "_add_to_webp"),
    *("_exif", "_webp_chunk"),
    # Between processes, and texts.
    *("answer", "main", "receive", "_SignChild"),
    *("Decoder", "_DecodeChild", "read_credentials", "credentials_of"),
    "decode_base64",
}
BYTES = ("unpack", "unpack_from", "from_bytes")


def looks_at_bytes(node):
    """Whether the code of ``node`` names bytes, or makes numbers of them."""
    return any(
        (isinstance(part, ast.Constant) and isinstance(part.value, bytes))
        or (isinstance(part, ast.Attribute) and part.attr in BYTES)
        for part in ast.walk(node)
    )


def test_few_lines_read_a_format_by_hand():
    lines, seen = 0, set()
    for path in sorted(FOLDER.glob("*.py")):
        source = path.read_text()
        for node in ast.parse(source).body:
            name = getattr(node, "name", None)
            if name in BY_HAND:
                seen.add(name)
                lines += count(ast.get_source_segment(source, node))[0]
            elif name is not None and looks_at_bytes(node):
                assert name in OTHERS, f"{path.name}: does {name} read a format?"
    assert seen == BY_HAND
    assert lines <= 150


def test_pictures_are_read_and_written_in_few_lines():
    """What strangers' files pass through stays small enough to be read whole."""
    names = ("codec", "data_urls", "decode_child", "decoder", "fitting")
    lines = [count((FOLDER / f"{name}.py").read_text())[0] for name in names]
    assert sum(lines) <= 700
