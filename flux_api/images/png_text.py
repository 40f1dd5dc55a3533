"""The text that programs write into PNG files: https://www.w3.org/TR/png-3/#11textinfo."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LONGEST = 1 << 20


def read_texts(data: bytes) -> dict[str, str]:
    """The texts of a PNG file by their keywords, each of a mebibyte at most; nothing
    where it is no PNG, or is damaged."""
    if not data.startswith(_SIGNATURE):
        return {}
    found: dict[str, str] = {}
    for kind, body in _chunks(data):
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


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = len(_SIGNATURE)
    while position + 8 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        is_whole = position + 12 + length <= len(data)
        if kind.endswith(b"Xt") and length <= _LONGEST and is_whole:
            yield kind, data[position + 8 : position + 8 + length]
        position += length + 12


def _inflate(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, _LONGEST)
    except zlib.error:
        return b""
