"""Every training picture after every operation, encoded once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from training.data import Data
from training.pictures import OPS, apply_op, colour_of

EXTRAS = 900


@dataclass
class Latents:
    """Packed latents by row and operation, and what each row shows."""

    values: torch.Tensor  # rows x OPS x tokens x channels, normalised
    rows: np.ndarray  # the pictures' indices in the data
    usable: np.ndarray  # rows x OPS; painting needs a picture of one main colour
    colours: list[str | None]  # the one main colour, where there is one
    known: int  # the first rows are the vocabulary's, the rest are edit inputs only


def pack(latents: torch.Tensor) -> torch.Tensor:
    """Return latents as the Flux pipelines pack them: one token for 2x2."""
    count, channels, height, width = latents.shape
    split = latents.view(count, channels, height // 2, 2, width // 2, 2)
    return split.permute(0, 2, 4, 1, 3, 5).reshape(
        count, height * width // 4, channels * 4
    )


def training_rows(data: Data) -> tuple[np.ndarray, int]:
    """Return the pictures to train on, and how many of them are the vocabulary's."""
    ours = np.isin(data.codes, data.vocabulary)
    known = np.flatnonzero(ours & ~data.held_out)
    # Pictures of other concepts teach edits that work on anything.
    others = np.flatnonzero(~ours)
    rng = np.random.default_rng(7)
    extra = rng.permutation(others)[:EXTRAS]
    return np.concatenate([known, extra]), len(known)


def measure_latents(vae: AutoencoderKL, data: Data) -> tuple[float, float]:
    """Return the mean and standard deviation that normalise the latents."""
    rows, known = training_rows(data)
    sample = rows[: known : max(1, known // 512)]
    values = encode(vae, [apply_op(data.images[row], "none") for row in sample])
    return values.mean().item(), values.std().item()


@torch.no_grad()
def encode(vae: AutoencoderKL, pictures: list) -> torch.Tensor:
    """Return the unnormalised latents of pictures."""
    device = next(vae.parameters()).device
    stack = torch.from_numpy(np.stack([np.asarray(p) for p in pictures]))
    batch = stack.permute(0, 3, 1, 2).float().to(device) / 127.5 - 1
    with torch.autocast(device.type, torch.bfloat16):
        found = vae.encode(batch.contiguous(memory_format=torch.channels_last))
    return found.latent_dist.mode().float()


def encode_all(vae: AutoencoderKL, data: Data, cache: Path) -> Latents:
    """Return the latents of all training pictures, from the cache where it exists."""
    if cache.exists():
        return Latents(**torch.load(cache, weights_only=False))
    rows, known = training_rows(data)
    colours = [
        colour_of(data.images[row]) if place < known else None
        for place, row in enumerate(rows)
    ]
    usable = np.ones((len(rows), len(OPS)), bool)
    for place, colour in enumerate(colours):
        for index, op in enumerate(OPS):
            if op.startswith("paint_"):
                usable[place, index] = colour is not None and op != f"paint_{colour}"
    side = data.size // 2 ** (len(vae.config.block_out_channels) - 1) // 2
    width = vae.config.latent_channels * 4
    shape = (len(rows), len(OPS), side * side, width)
    values = torch.zeros(shape, dtype=torch.bfloat16)
    shift, scale = vae.config.shift_factor, vae.config.scaling_factor
    for index, op in enumerate(OPS):
        places = np.flatnonzero(usable[:, index])
        for part in np.array_split(places, max(1, len(places) // 64)):
            pictures = [apply_op(data.images[rows[place]], op) for place in part]
            if pictures:
                found = (encode(vae, pictures) - shift) * scale
                values[part, index] = pack(found).bfloat16().cpu()
        print(f"encoded {op}: {len(places)} pictures", flush=True)
    made = Latents(values, rows, usable, colours, known)
    torch.save(vars(made), cache)
    return made
