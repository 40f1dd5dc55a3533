"""How large a picture may be, and the error of one that may not be decoded."""

from __future__ import annotations

MAX_PIXELS = 40_000_000
MAX_SIDE = 16_384


class HeaderError(ValueError):
    """Not acceptable; the message is one clause for the caller."""


def check_size(width: int, height: int) -> None:
    """Refuse sides and areas beyond the limits."""
    if width < 1 or height < 1:
        raise HeaderError("has no pixels")
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise HeaderError(
            f"is {width}x{height}; the limits are {MAX_SIDE} pixels a side and "
            f"{MAX_PIXELS // 1_000_000} million pixels"
        )
