"""What a picture file claims about itself, read and judged before it is decoded."""

from __future__ import annotations

MAX_PIXELS = 40_000_000
MAX_SIDE = 16_384

_ISO_BRANDS = (b"avif", b"avis", b"mif1", b"msf1")


class HeaderError(ValueError):
    """Not acceptable; the message is one clause for the caller."""


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


def check_size(width: int, height: int) -> None:
    """Refuse sides and areas beyond the limits."""
    if width < 1 or height < 1:
        raise HeaderError("has no pixels")
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise HeaderError(
            f"is {width}x{height}; the limits are {MAX_SIDE} pixels a side and "
            f"{MAX_PIXELS // 1_000_000} million pixels"
        )


def check_header(kind: str, data: bytes) -> None:
    """Refuse what is known to be wrong before a decoder sees it."""


def read_orientation(exif: bytes) -> int:
    """The EXIF orientation, 1 to 8, of a metadata block."""
    return 1
