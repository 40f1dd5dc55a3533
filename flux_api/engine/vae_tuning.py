"""Makes a VAE decode faster where FLUX_PERFORMANCE allows it: each way is timed, and
the quickest kept."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

from flux_api.engine.trial import clock_of
from flux_api.loading.group_norm import is_split, split, unsplit

logger = logging.getLogger(__name__)

# Latents of 512x512: enough to fill a card, and soon decoded.
_SIDE = 64
_REPEATS = 5
_AS_IT_IS = "plain"
# Which order suits convolutions and the norms between them is for the card to say: by
# itself channels last is slower, since torch's group norms copy what lies so.
_ORDERS = {
    "split norms": torch.contiguous_format,
    "split norms, channels last": torch.channels_last,
}


def tune_vae(
    vae: Any,
    device: torch.device,
    is_worth_it: Callable[[float, float], bool],
    show_life: Callable[[], None],
) -> bool:
    """Whether ``vae`` decodes faster now than torch's own layers do, as
    ``is_worth_it`` compares the seconds. Only on CUDA's devices: elsewhere group norms
    are no bottleneck."""
    if device.type != "cuda" or is_split(vae):
        return is_split(vae)
    best, seconds = _AS_IT_IS, {_AS_IT_IS: decoding_seconds(vae, _SIDE, show_life)}
    try:
        if not split(vae):
            return False
        for order, memory_format in _ORDERS.items():
            vae.to(memory_format=memory_format)
            seconds[order] = decoding_seconds(vae, _SIDE, show_life)
        quickest = min(seconds, key=lambda way: seconds[way])
        if is_worth_it(seconds[_AS_IT_IS], seconds[quickest]):
            best = quickest
    finally:
        if best == _AS_IT_IS:
            unsplit(vae)
        vae.to(memory_format=_ORDERS.get(best, torch.contiguous_format))
    times = ", ".join(f"{way} {s * 1000:.1f} ms" for way, s in seconds.items())
    logger.info("decoding 512x512: %s", times)
    return best != _AS_IT_IS


@torch.no_grad()
def decoding_seconds(vae: Any, side: int, show_life: Callable[[], None]) -> float:
    """The least time of several decodings of ``side`` x ``side`` latents, after one to
    get warm."""
    first = next(vae.parameters())
    latents = torch.randn(
        (1, vae.config.latent_channels, side, side),
        dtype=first.dtype,
        device=first.device,
    )
    found, clock = [], clock_of(first.device)
    for _ in range(1 + _REPEATS):
        show_life()
        began = clock()
        vae.decode(latents, return_dict=False)
        torch.accelerator.synchronize(first.device)
        found.append(clock() - began)
    return min(found[1:])
