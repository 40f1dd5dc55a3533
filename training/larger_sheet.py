"""Show the larger decoder beside the model's own, and measure both."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import interpolate

from training.data import Data, add_data_options, read_data
from training.drawing import Artist
from training.grids import EDITS, JAPANESE_EDITS, JAPANESE_PROMPTS, PROMPTS
from training.larger import larger_vae, shrink
from training.pictures import on_white

COLUMNS, HEAD, GAP, EDITED = 4, 14, 8, 4

Decode = Callable[[torch.Tensor], torch.Tensor]


def draw_samples(artist: Artist, inputs: list[Image.Image]) -> list[Image.Image]:
    """Return the fixed prompts and some edits in both languages."""
    prompts = [*PROMPTS, *JAPANESE_PROMPTS]
    orders = [*EDITS[: len(inputs)], *list(JAPANESE_EDITS)[: len(inputs)]]
    made = artist.generate(prompts, range(10, 10 + len(prompts)))
    return made + artist.edit(inputs * 2, orders, range(len(orders)))


def lay_out(left: list[Image.Image], right: list[Image.Image]) -> Image.Image:
    """Return numbered pairs: the model's own decoder, enlarged, and the larger one."""
    side = right[0].width
    width, height = 2 * side + GAP, side + HEAD
    rows = -(-len(left) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * width, rows * height), "#dddddd")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for index, (own, larger) in enumerate(zip(left, right, strict=True)):
        x, y = index % COLUMNS * width, index // COLUMNS * height
        pen.text((x + 2, y), str(index + 1), fill="black", font=font)
        enlarged = own.resize((side, side), Image.Resampling.LANCZOS)
        sheet.paste(enlarged, (x, y + HEAD))
        sheet.paste(larger, (x + side, y + HEAD))
    return sheet


def edges(pictures: torch.Tensor) -> torch.Tensor:
    """Return the mean step between neighbouring pixels."""
    across = (pictures[..., 1:] - pictures[..., :-1]).abs().mean()
    return across + (pictures[..., 1:, :] - pictures[..., :-1, :]).abs().mean()


@torch.no_grad()
def measure(
    name: str, decode: Decode, latents: torch.Tensor, wanted: torch.Tensor
) -> None:
    """Print how near decoded pictures are to the drawn ones, and one's time."""
    made = decode(latents).clamp(-1, 1)
    error = (made - wanted).square().mean((1, 2, 3))
    psnr = (10 * torch.log10(4 / error)).mean().item()
    sharpness = (edges(made) / edges(wanted)).item()
    seconds = []  # the shortest counts: other work only lengthens
    for _ in range(20):
        start = time.perf_counter()
        decode(latents[:1])
        seconds.append(time.perf_counter() - start)
    print(
        f"{name}: PSNR {psnr:.2f} dB, edges {sharpness:.1%} of the drawn ones, "
        f"{1000 * min(seconds):.1f} ms a decode",
        flush=True,
    )


def compare(vae: AutoencoderKL, larger: nn.Module, data: Data) -> None:
    """Measure both decoders by the pictures that training never saw."""
    drawn = np.stack([np.asarray(on_white(p)) for p in data.images[data.held_out]])
    wanted = torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        latents = vae.encode(shrink(wanted)).latent_dist.mode()

    def enlarged(values: torch.Tensor) -> torch.Tensor:
        made = vae.decoder(values)
        return interpolate(made, scale_factor=2, mode="bicubic")

    measure("its own decoder, enlarged", enlarged, latents, wanted)
    measure("the larger decoder", larger, latents, wanted)


def main() -> None:
    """Print the numbers and write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/tiny"))
    add_data_options(parser)
    parser.add_argument("--decoder", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    artist = Artist(options.model)
    vae = artist.base.vae
    larger = larger_vae(vae).decoder.eval()
    larger.load_state_dict(load_file(options.decoder))
    data = read_data(options, 2 * artist.size)
    compare(vae, larger, data)
    held_out = data.images[data.held_out][:: data.held_out.sum() // EDITED]
    small = (artist.size, artist.size)
    inputs = [
        on_white(picture).resize(small, Image.Resampling.LANCZOS)
        for picture in held_out[:EDITED]
    ]
    own = draw_samples(artist, inputs)
    vae.decoder = larger  # the encoder and the latents stay as they are
    lay_out(own, draw_samples(artist, inputs)).save(options.out)


if __name__ == "__main__":
    main()
