"""Cheap previews: one linear map from a model's packed latents to pixels.

The map is fitted once a VAE, by encoding drawn shapes with it, and kept
(``preview_fits``): each packed latent (a patch of 16x16 pixels or what the VAE makes of
it) becomes SIDE x SIDE pixels, fewer where the picture is large. A preview costs one
matrix product on the device, never a VAE decode.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

SIDE = 8
LONGEST = 256
"""Most pixels of a preview's longer side."""
_SAMPLES = 24
_RIDGE = 1e-3


class LinearPreview:
    """Packed latents of one VAE to small pictures, by the ``weight`` that :func:`fit`
    gives for it."""

    def __init__(self, weight: torch.Tensor) -> None:
        self._weight = weight
        self._weights: dict[tuple[int, torch.device], torch.Tensor] = {}

    def draw(self, latents: torch.Tensor, width: int, height: int) -> Image.Image:
        """The picture of ``latents`` (tokens, channels), a grid of ``width`` by
        ``height`` tokens: RGB, the same number of pixels for each token, at most
        LONGEST on the longer side where there are no more tokens."""
        side = SIDE
        while side > 1 and side * max(width, height) > LONGEST:
            side //= 2
        weight = self._weight_for(side, latents.device)
        patches = _with_one(latents[: width * height].float()) @ weight
        grid = patches.view(height, width, 3, side, side).permute(0, 3, 1, 4, 2)
        pixels = grid.reshape(height * side, width * side, 3)
        colours = ((pixels + 1) * 127.5).nan_to_num().clamp(0, 255).to(torch.uint8)
        return Image.fromarray(colours.contiguous().cpu().numpy())

    def _weight_for(self, side: int, device: torch.device) -> torch.Tensor:
        """The map to ``side`` x ``side`` pixels a token, kept on ``device``."""
        key = side, device
        if key not in self._weights:
            whole = self._weight.view(-1, 3, SIDE, SIDE)
            small = torch.nn.functional.avg_pool2d(whole, SIDE // side)
            self._weights[key] = small.flatten(1).to(device)
        return self._weights[key]


def fit(vae: Any) -> torch.Tensor:
    """The map of latents of ``vae`` and a 1, to the SIDE x SIDE pixels of each,
    (channels + 1, 3 * SIDE * SIDE) on the CPU; a few VAE encodes of 128x128 pixels."""
    patch = 2 ** len(vae.config.block_out_channels)
    side = 8 * patch
    pictures = torch.stack([_shapes(side, seed) for seed in range(_SAMPLES)])
    latents = [pack(vae, picture[None]) for picture in pictures]
    features = torch.cat(latents).flatten(0, 1).float().cpu()
    small = torch.nn.functional.interpolate(
        pictures, size=(side // patch * SIDE,) * 2, mode="area"
    )
    targets = _to_patches(small).flatten(0, 1)
    return _least_squares(_with_one(features), targets)


@torch.no_grad()
def pack(vae: Any, pictures: torch.Tensor) -> torch.Tensor:
    """The packed, normalised latents (batch, tokens, channels) that a Flux transformer
    sees for ``pictures`` (batch, 3, height, width) in -1..1."""
    parameter = next(vae.parameters())
    pictures = pictures.to(parameter.device, parameter.dtype)
    latents = vae.encode(pictures).latent_dist.mode()
    batch, channels, height, width = latents.shape
    patches = latents.view(batch, channels, height // 2, 2, width // 2, 2)
    patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    if hasattr(vae, "bn"):  # AutoencoderKLFlux2 normalises by batch statistics
        scale = (vae.bn.running_var + vae.config.batch_norm_eps).sqrt()
        packed: torch.Tensor = (patches - vae.bn.running_mean) / scale
        return packed
    shift, scale = vae.config.shift_factor or 0.0, vae.config.scaling_factor
    scaled: torch.Tensor = (patches - shift) * scale
    return scaled


def _shapes(side: int, seed: int) -> torch.Tensor:
    """Random flat shapes on a random ground, (3, side, side) in -1..1."""
    random = np.random.default_rng(seed)

    def colour() -> tuple[int, int, int]:
        red, green, blue = (int(value) for value in random.integers(0, 256, 3))
        return red, green, blue

    image = Image.new("RGB", (side, side), "white" if seed % 2 else colour())
    draw = ImageDraw.Draw(image)
    for number in range(10):
        left, upper, right, lower = random.integers(0, side, 4)
        box = [*sorted((int(left), int(right))), *sorted((int(upper), int(lower)))]
        shape = draw.ellipse if number % 2 else draw.rectangle
        shape((box[0], box[2], box[1], box[3]), fill=colour())
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1


def _to_patches(pictures: torch.Tensor) -> torch.Tensor:
    """(batch, 3, h*SIDE, w*SIDE) to (batch, h*w, 3*SIDE*SIDE)."""
    batch, _, height, width = pictures.shape
    split = pictures.view(batch, 3, height // SIDE, SIDE, width // SIDE, SIDE)
    return split.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def _with_one(features: torch.Tensor) -> torch.Tensor:
    return torch.cat([features, features.new_ones(len(features), 1)], 1)


def _least_squares(features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The ridge regression of ``targets`` on ``features``."""
    gram = features.T @ features
    gram += _RIDGE * gram.diagonal().mean() * torch.eye(len(gram))
    weight: torch.Tensor = torch.linalg.solve(gram, features.T @ targets)
    return weight.contiguous()
