"""What a picture file claims about itself, read and judged before it is decoded."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from flux_api.avif_header import check_avif
from flux_api.exif import check_tiff, join_exif, read_orientation
from flux_api.image_limits import HeaderError, check_size

_ISO_BRANDS = (b"avif", b"avis", b"mif1", b"msf1")
# Each costs the decoder a turn of a Python loop.
_MAX_CHUNKS = 65_536
_MAX_SCANS = 64
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEFLATE_RATIO = 1032  # The most that one byte of deflate can stand for.
_JPEG_RATIO = 512  # One bit for a block of 64 pixels.
_RLE_BMP_PIXELS = 2**20  # Pillow decodes these in Python.
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ARITHMETIC_MARKERS = range(0xC9, 0xD0)
_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_FOREIGN = re.compile(
    rb"%PDF-\d|<script\b|<html[\s>]|<!doctype html|<\?php\s|Rar!\x1a\x07|"
    rb"7z\xbc\xaf\x27\x1c",
    re.IGNORECASE,
)
_ZIP_END = b"PK\x05\x06"


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
    _check_foreign(data)
    try:
        _CHECKS[kind](data)
    except (struct.error, IndexError) as error:
        raise HeaderError("is cut off or damaged") from error


def _check_foreign(data: bytes) -> None:
    """Refuse a file that is a document or an archive as well."""
    tail = data[-65_557:]  # As far as a ZIP's end record can lie from the end.
    if _FOREIGN.search(data, 0, 1024) or _FOREIGN.search(tail):
        raise HeaderError("is another kind of file as well")
    end = tail.rfind(_ZIP_END)
    if 0 <= end <= len(tail) - 22:
        comment = struct.unpack_from("<H", tail, end + 20)[0]
        if end + 22 + comment == len(tail):
            raise HeaderError("is an archive as well")


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


def _check_jpeg(data: bytes) -> None:
    position, scans, exif = 2, 0, b""
    for _ in range(_MAX_CHUNKS):
        if position >= len(data) and scans:
            return  # No end marker: whether all pixels are there, the decoder knows.
        start, marker = struct.unpack_from(">BB", data, position)
        if start != 0xFF:
            raise HeaderError("is damaged")
        if marker == 0xFF or 0xD0 <= marker <= 0xD7:
            position += 1 if marker == 0xFF else 2
            continue
        if marker == 0xD9:
            break
        length = struct.unpack_from(">H", data, position + 2)[0]
        body = data[position + 4 : position + 2 + length]
        position += 2 + length
        if marker == 0xE1 and body.startswith(b"Exif\0\0"):
            exif = join_exif(exif, body)
        elif marker in _FRAME_MARKERS:
            _check_frame(marker, body, len(data))
        elif marker == 0xDA:
            scans += 1
            found = _SCAN_END.search(data, position)
            position = found.start() if found else len(data)
    if not 0 < scans <= _MAX_SCANS:
        raise HeaderError("has too many scans" if scans else "has no picture")
    read_orientation(exif)


def _check_frame(marker: int, body: bytes, length: int) -> None:
    height, width = struct.unpack_from(">HH", body, 1)
    check_size(width, height)
    if marker not in _ARITHMETIC_MARKERS and width * height > _JPEG_RATIO * length:
        raise HeaderError("claims to be larger than its data can be")


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
    "JPEG": _check_jpeg,
    "PNG": _check_png,
    "TIFF": check_tiff,
    "WEBP": _check_webp,
}
