"""The chunks of PNG files."""

from __future__ import annotations

import struct
from collections.abc import Iterator

PNG_START = b"\x89PNG\r\n\x1a\n"


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and body of each whole chunk of a PNG file."""
    position = len(PNG_START)
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if end + 4 <= len(data):
            yield kind, data[position + 8 : end]
        position = end + 4
