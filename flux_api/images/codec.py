"""Pictures as files."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import BytesIO
from zlib import crc32

import numpy
from isal import isal_zlib
from PIL import Image

_OPTIONS = {"jpeg": {"subsampling": 0}, "webp": {"method": 0}}


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """A finished picture as a file's bytes."""

    data: bytes
    media_type: str


def encode_image(
    image: Image.Image, output_format: str = "png", output_compression: int = 100
) -> EncodedImage:
    """The picture, which is RGB, as a PNG, JPEG or WebP file without any metadata; the
    compression is the quality, 0 to 100, of the last two."""
    if output_format == "png":
        return EncodedImage(_encode_png(image), "image/png")
    picture = image.copy()
    picture.info = {}
    buffer, options = BytesIO(), _OPTIONS[output_format]
    picture.save(buffer, output_format, quality=output_compression, **options)
    return EncodedImage(buffer.getvalue(), f"image/{output_format}")


def _encode_png(image: Image.Image) -> bytes:
    """Sub filter and ISA-L's deflate: a fifth of the time that Pillow's encoder takes
    for a file that is a few per cent larger."""
    samples = numpy.asarray(image)
    height, width, _ = samples.shape
    rows = numpy.empty((height, 1 + width * 3), numpy.uint8)
    # Each row begins with its filter: 1 is Sub.
    rows[:, 0] = 1
    filtered = rows[:, 1:].reshape(height, width, 3)
    filtered[:, 0] = samples[:, 0]
    numpy.subtract(samples[:, 1:], samples[:, :-1], out=filtered[:, 1:])
    # 8 bits, RGB.
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = isal_zlib.compress(rows, 1)
    chunks = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def png_chunk(name: bytes, body: bytes) -> bytes:
    """One chunk of a PNG with its length and checksum."""
    checksum = crc32(body, crc32(name))
    return b"".join(
        (struct.pack(">I", len(body)), name, body, struct.pack(">I", checksum))
    )
