"""What a picture file claims about itself, read and judged before it is decoded."""

from __future__ import annotations

import struct
from collections.abc import Callable

from flux_api.images.avif import check_avif
from flux_api.images.jpeg import check_jpeg
from flux_api.images.limits import HeaderError, check_size
from flux_api.images.tiff import check_tiff

_ISO_BRANDS = (b"avif", b"avis", b"mif1", b"msf1")
# Each costs the decoder a turn of a Python loop.
_MAX_CHUNKS = 65_536
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEFLATE_RATIO = 1032  # The most that one byte of deflate can stand for.
_RLE_BMP_PIXELS = 2**20  # Pillow decodes these in Python.


def sniff_format(data: bytes) -> str:
    """The format that the first bytes tell: Pillow's name of it."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if data[:2] == b"BM":
        return "BMP"
    if data[:4] in (b"II*\0", b"MM\0*"):
        return "TIFF"
    if data[4:8] == b"ftyp" and data[8:12] in _ISO_BRANDS:
        return "AVIF"
    raise HeaderError("is not a PNG, JPEG, WebP, GIF, BMP, TIFF or AVIF image")


def check_header(kind: str, data: bytes) -> None:
    """Refuse what is too large, cut off or lying before a decoder sees it."""
    try:
        _CHECKS[kind](data)
    except (struct.error, IndexError) as error:
        raise HeaderError("is cut off or damaged") from error


def _check_png(data: bytes) -> None:
    width, height, depth, colours = struct.unpack_from(">LLBB", data, 16)
    check_size(width, height)
    bits = width * height * depth * _PNG_CHANNELS.get(colours, 1)
    if bits > 8 * _DEFLATE_RATIO * len(data):
        raise HeaderError("claims to be larger than its data can be")
    position = 8
    for _ in range(_MAX_CHUNKS):
        length, name = struct.unpack_from(">L4s", data, position)
        position += 12 + length
        if name == b"IEND":
            return
    raise HeaderError("has too many chunks")


def _check_gif(data: bytes) -> None:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position, in_extension = 13 + _palette_size(flags), False
    for _ in range(_MAX_CHUNKS):
        byte = data[position]
        if in_extension:
            position += 1 + byte
            in_extension = byte != 0
        elif byte == 0x21:
            position += 2
            in_extension = True
        elif byte == 0x2C:
            x, y, across, down = struct.unpack_from("<HHHH", data, position + 1)
            return check_size(max(width, x + across), max(height, y + down))
        elif byte == 0:
            position += 1  # Padding that some writers leave.
        else:
            break
    raise HeaderError("has no picture")


def _palette_size(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _check_webp(data: bytes) -> None:
    if 8 + struct.unpack_from("<L", data, 4)[0] > len(data):
        raise HeaderError("is cut off")
    chunk = data[12:16]
    if chunk == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
    elif chunk == b"VP8L":
        bits = struct.unpack_from("<L", data, 21)[0]
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    check_size(width, height)


def _check_bmp(data: bytes) -> None:
    size = struct.unpack_from("<L", data, 14)[0]
    if size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        packing = 0
    else:
        width, height, _, bits, packing = struct.unpack_from("<llHHL", data, 18)
        height = abs(height)
    check_size(width, height)
    if packing in (1, 2):
        if width * height > _RLE_BMP_PIXELS:
            raise HeaderError("is too large for a run-length encoded BMP")
    elif width * height * bits > 8 * len(data):
        raise HeaderError("claims to be larger than its data can be")


_CHECKS: dict[str, Callable[[bytes], None]] = {
    "AVIF": check_avif,
    "BMP": _check_bmp,
    "GIF": _check_gif,
    "JPEG": check_jpeg,
    "PNG": _check_png,
    "TIFF": check_tiff,
    "WEBP": _check_webp,
}
