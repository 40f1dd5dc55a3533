"""Metadata in PNG, JPEG and WebP files: put in without touching a pixel."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

from flux_api.images.codec import EncodedImage, png_chunk

JPEG_BYTES = 65_533
"""What fits into one segment of a JPEG."""

_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_XMP = b"XML:com.adobe.xmp"
_PARAMETERS = "parameters"
_JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_EXIF = b"Exif\0\0"
_EXIF_IFD, _COMMENT = 0x8769, 0x9286
_LONG, _UNDEFINED = 4, 7
_HAS_EXIF, _HAS_XMP = 0x08, 0x04
_SCAN = 0xDA


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a picture's file says beside its pixels: an ``xmp`` packet, and a text on
    how it was made in the form of AUTOMATIC1111's tools ("" for none)."""

    xmp: bytes
    parameters: str = ""

    @property
    def fits_jpeg(self) -> bool:
        """Whether each part of it fits into a segment of a JPEG."""
        longest = max(len(_JPEG_XMP + self.xmp), len(_exif(self.parameters)))
        return longest <= JPEG_BYTES


def add_metadata(file: EncodedImage, metadata: Metadata) -> EncodedImage:
    """``file``, fresh from :func:`~flux_api.images.codec.encode_image`, with
    ``metadata``; ValueError where a JPEG has no room for it."""
    add = {
        "image/png": _add_to_png,
        "image/jpeg": _add_to_jpeg,
        "image/webp": _add_to_webp,
    }
    return replace(file, data=add[file.media_type](file.data, metadata))


def picture_data(data: bytes) -> bytes:
    """What of a file is its picture: PNG's compressed samples, JPEG's scans, WebP's
    frame. Metadata comes and goes without changing it, another encoder does not; empty
    for any other file."""
    if data.startswith(_PNG_START):
        chunks = _png_chunks(data)
        return b"".join(body for name, body in chunks if name == b"IDAT")
    if data.startswith(b"\xff\xd8\xff"):
        return data[_find_scan(data) :]
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        frames = (b"VP8 ", b"VP8L", b"ALPH", b"ANMF")
        return b"".join(body for name, body in _webp_chunks(data) if name in frames)
    return b""


def _add_to_png(data: bytes, metadata: Metadata) -> bytes:
    chunks = [_png_text(_PNG_XMP, metadata.xmp)]
    if metadata.parameters:
        chunks.append(_png_parameters(metadata.parameters))
    # Right behind the header, which is always 13 bytes in a chunk of 25.
    end = len(_PNG_START) + 25
    return b"".join((data[:end], *chunks, data[end:]))


def _png_text(keyword: bytes, text: bytes) -> bytes:
    # Neither compressed, nor in a language, nor with a translated keyword.
    return png_chunk(b"iTXt", keyword + b"\0\0\0\0\0" + text)


def _png_parameters(text: str) -> bytes:
    keyword = _PARAMETERS.encode()
    try:
        # As those tools write it themselves wherever it can be.
        return png_chunk(b"tEXt", keyword + b"\0" + text.encode("latin-1"))
    except UnicodeEncodeError:
        return _png_text(keyword, text.encode())


def _add_to_jpeg(data: bytes, metadata: Metadata) -> bytes:
    bodies = [_JPEG_XMP + metadata.xmp]
    if metadata.parameters:
        bodies.insert(0, _exif(metadata.parameters))
    if max(map(len, bodies)) > JPEG_BYTES:
        raise ValueError("more metadata than a JPEG's segment takes")
    # Behind the JFIF header, which has to come first.
    end = 4 + int.from_bytes(data[4:6], "big") if data[3] == 0xE0 else 2
    segments = (b"\xff\xe1" + struct.pack(">H", len(b) + 2) + b for b in bodies)
    return b"".join((data[:end], *segments, data[end:]))


def _add_to_webp(data: bytes, metadata: Metadata) -> bytes:
    chunks = dict(_webp_chunks(data))
    # A frame of VP8 says its size behind ten bytes, in 14 bits each.
    width, height = struct.unpack_from("<HH", chunks[b"VP8 "], 6)
    sides = ((side & 0x3FFF) - 1 for side in (width, height))
    header = bytes(3) + b"".join(side.to_bytes(3, "little") for side in sides)
    flags = _HAS_XMP
    if metadata.parameters:
        flags |= _HAS_EXIF
        chunks[b"EXIF"] = _exif(metadata.parameters).removeprefix(_EXIF)
    chunks[b"XMP "] = metadata.xmp
    chunks = {b"VP8X": bytes([flags]) + header, **chunks}
    body = b"WEBP" + b"".join(_webp_chunk(*chunk) for chunk in chunks.items())
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _exif(parameters: str) -> bytes:
    """EXIF with the text as its comment and nothing else: by Pillow the comment would
    have another type than the standard's."""
    comment = b"UNICODE\0" + parameters.encode("utf-16-be")
    # Two directories of one entry each, of which the first points to the second.
    first, second, end = 8, 26, 44
    return _EXIF + b"".join(
        (
            struct.pack(">2sHI", b"MM", 42, first),
            struct.pack(">HHHIII", 1, _EXIF_IFD, _LONG, 1, second, 0),
            struct.pack(">HHHIII", 1, _COMMENT, _UNDEFINED, len(comment), end, 0),
            comment,
        )
    )


def _find_scan(data: bytes) -> int:
    """Where a JPEG's first scan begins; the end where there is none."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        if data[position + 1] == _SCAN:
            return position
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return len(data)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = len(_PNG_START)
    while position + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        yield name, data[position + 8 : position + 8 + length]
        position += 12 + length


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    # Behind RIFF, the length, and WEBP.
    position = 12
    while position + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, position)
        yield name, data[position + 8 : position + 8 + length]
        position += 8 + length + (length & 1)


def _webp_chunk(name: bytes, body: bytes) -> bytes:
    padding = b"\0" * (len(body) & 1)
    return name + struct.pack("<I", len(body)) + body + padding
