"""Input pictures that were encoded before: the same latents, without the VAE."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from typing import Any

import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput

from flux_api.engine.prompt_cache import PromptCache


class RememberingVae:
    """Stands where ``vae``, the one of ``weights``, stands, and encodes no picture that
    ``cache`` knows; what comes out is the same, bit for bit."""

    def __init__(self, vae: Any, cache: PromptCache, weights: Hashable) -> None:
        self._vae, self._cache, self._weights = vae, cache, weights

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vae, name)

    def encode(self, pictures: torch.Tensor) -> AutoencoderKLOutput:
        """As the VAE itself encodes ``pictures``, (batch, 3, height, width)."""
        if self._cache.most_bytes == 0:
            # To tell them apart would be work for nothing, under the device's lock.
            return self._vae.encode(pictures)
        # Tiles make slightly other numbers.
        key = self._weights, self._vae.use_tiling, _digest(pictures)

        def encode() -> tuple[torch.Tensor]:
            return (self._vae.encode(pictures).latent_dist.parameters,)

        # Before any of them is drawn: pipelines that sample do so with their own seed.
        [parameters] = self._cache.get(key, encode, pictures.device, kind="pictures")
        return AutoencoderKLOutput(DiagonalGaussianDistribution(parameters))


def _digest(pictures: torch.Tensor) -> Hashable:
    """What tells the numbers of ``pictures`` from all others."""
    numbers = pictures.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    whole = hashlib.sha256(numbers.data).digest()
    return tuple(pictures.shape), pictures.dtype, whole
