"""How pictures are compared: nearest training picture, PSNR, nearest operation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image

from training.data import Data
from training.latents import encode
from training.pictures import OPS, apply_op, colour_of, on_white

SAME_PICTURE = 30.0  # dB; two results this close are one picture to the eye
RIVALS = [op for op in OPS if not op.startswith("paint_")]


def psnr(made: Image.Image, wanted: Image.Image) -> float:
    """Return the peak signal-to-noise ratio in dB over all three channels."""
    off = np.asarray(made, np.float64) - np.asarray(wanted, np.float64)
    return 10 * np.log10(255**2 / max(float(np.square(off).mean()), 1e-3))


def nearest_op(rgba: np.ndarray, made: Image.Image, asked: str) -> str:
    """Return the operation whose result by Pillow is nearest to a picture.

    An operation that does to this picture what the asked one does (mirroring a
    circle and doing nothing) is no rival.
    """
    wanted = apply_op(rgba, asked)
    scores = {asked: psnr(made, wanted)}
    for op in RIVALS:
        result = apply_op(rgba, op)
        if op != asked and psnr(result, wanted) < SAME_PICTURE:
            scores[op] = psnr(made, result)
    return max(scores, key=lambda op: scores[op])


def main_colour(image: Image.Image) -> str | None:
    """Return the colour word of a picture on white, if one colour rules it."""
    pixels = np.asarray(image)
    solid = (255 - pixels.min(-1) > 30).astype(np.uint8) * 255
    return colour_of(np.dstack([pixels, solid]))


class Gallery:
    """Pictures to look up the nearest one in, by pixels and by VAE latents."""

    def __init__(self, vae: AutoencoderKL, data: Data, rows: np.ndarray) -> None:
        """Take the features of these pictures on white."""
        self.vae = vae
        self.codes, self.styles = data.codes[rows], data.styles[rows]
        images = [on_white(data.images[row]) for row in rows]
        self.features = {
            "pixels": _pixels(images),
            "latents": self._latents(images),
        }

    def distances(self, images: Sequence[Image.Image], kind: str) -> torch.Tensor:
        """Return the distance of each image to each picture of the gallery."""
        found = _pixels(images) if kind == "pixels" else self._latents(images)
        return torch.cdist(found, self.features[kind])

    def concept_rank(self, distances: torch.Tensor, code: str) -> int:
        """Return how many concepts have a nearer picture than this one has."""
        own = distances[torch.from_numpy(self.codes == code)].min().item()
        return len({*self.codes[(distances < own).numpy()]})

    def nearest_style(self, distances: torch.Tensor, code: str) -> str:
        """Return the style of the concept's nearest picture."""
        own = np.flatnonzero(self.codes == code)
        return str(self.styles[own[distances[own].argmin().item()]])

    def _latents(self, images: Sequence[Image.Image]) -> torch.Tensor:
        parts = [
            encode(self.vae, images[start : start + 64]).flatten(1).cpu()
            for start in range(0, len(images), 64)
        ]
        return torch.cat(parts)


def _pixels(images: Sequence[Image.Image]) -> torch.Tensor:
    small = [image.resize((16, 16), Image.Resampling.BOX) for image in images]
    return torch.from_numpy(
        np.stack([np.asarray(s, np.float32) for s in small])
    ).flatten(1)
