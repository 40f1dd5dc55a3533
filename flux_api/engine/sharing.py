"""How large a forward is that pictures share, and what of it a picture takes, in tokens
of picture and text."""

from __future__ import annotations

from flux_api.core import ImageRequest, Performance
from flux_api.engine.upscaling import LARGEST_TILE
from flux_api.models.info import ModelInfo

_PATCH = 16
# The large models pad every prompt to as many.
_TEXT_TOKENS = 512
# Pixels of a side up to which a forward is mostly overhead.
_SMALL_SIDE = 256


def tokens(request: ImageRequest, info: ModelInfo) -> int:
    """About how many tokens a forward of one picture has."""
    if request.mode == "upscale":
        tile = ((info.native_size or LARGEST_TILE) // _PATCH) ** 2
        return tile + (0 if info.native_size else _TEXT_TOKENS)
    side = info.native_size
    width, height = (side, side) if side else (request.width, request.height)
    # References are appended to the picture's own tokens.
    image = -(-width // _PATCH) * -(-height // _PATCH)
    text = 0 if side else _TEXT_TOKENS
    return image * (1 + len(request.images)) + text


def default_batch_tokens(parameters: int) -> int:
    """A forward's budget where sharing pays: one picture of 1024x1024, or several of
    512x512, more of them the smaller the transformer."""
    return int(min(9000.0, max(4608.0, 7.5e13 / parameters)))


def pays_on_cpu(performance: Performance, native_size: int | None) -> bool:
    """Whether sharing forwards is worth its rounding on a CPU: small pictures are
    mostly overhead."""
    small = native_size is not None and native_size <= _SMALL_SIDE
    return small and performance != "exact"
