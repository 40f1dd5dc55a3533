"""The text that programs write into PNG files: https://www.w3.org/TR/png-3/#11textinfo."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

PNG_START = b"\x89PNG\r\n\x1a\n"
_LONGEST = 1 << 20


def read_texts(data: bytes) -> dict[str, str]:
    """The texts of a PNG file by their keywords, each of a mebibyte at most; nothing
    where it is no PNG, or is damaged."""
    if not data.startswith(PNG_START):
        return {}
    found: dict[str, str] = {}
    for kind, body in png_chunks(data):
        if not kind.endswith(b"Xt") or len(body) > _LONGEST:
            continue
        keyword, _, rest = body.partition(b"\0")
        if kind == b"tEXt":
            text = rest.decode("latin-1")
        elif kind == b"zTXt":
            text = _inflate(rest[1:]).decode("latin-1")
        elif kind == b"iTXt" and len(rest) > 2:
            packed = rest[0] == 1
            rest = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
            rest = _inflate(rest) if packed else rest
            text = rest.decode("utf-8", "replace")
        else:
            continue
        found[keyword.decode("latin-1")] = text[:_LONGEST]
    return found


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and body of each whole chunk of a PNG file."""
    position = len(PNG_START)
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if end + 4 <= len(data):
            yield kind, data[position + 8 : end]
        position = end + 4


def _inflate(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, _LONGEST)
    except zlib.error:
        return b""
