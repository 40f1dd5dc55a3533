"""How large a forward is that pictures share, in tokens of picture and text."""

from __future__ import annotations

from flux_api.core import Performance

# Pixels of a side up to which a forward is mostly overhead.
_SMALL_SIDE = 256


def default_batch_tokens(parameters: int) -> int:
    """A forward's budget where sharing pays: one picture of 1024x1024, or several of
    512x512, more of them the smaller the transformer."""
    return int(min(9000.0, max(4608.0, 7.5e13 / parameters)))


def pays_on_cpu(performance: Performance, native_size: int | None) -> bool:
    """Whether sharing forwards is worth its rounding on a CPU: small pictures are
    mostly overhead."""
    small = native_size is not None and native_size <= _SMALL_SIDE
    return small and performance != "exact"
