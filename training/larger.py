"""Train a decoder with one more level: pictures of twice the size, the same latents.

A trial: the encoder and the flow stay as they are, and nothing is exported.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch.nn.functional import interpolate

from training import ranks
from training.data import Data, add_data_options, read_data
from training.vae import VaeRun, new_vae, reconstruction_loss, train_vae

NOISE = 0.1  # of the latents' deviation: those of the flow are not clean


def larger_vae(vae: AutoencoderKL) -> AutoencoderKL:
    """Return an autoencoder whose decoder starts as this one's, with a level more.

    Its encoder is untrained: only its decoder is of use.
    """
    channels = vae.config.block_out_channels
    larger = new_vae(2 * vae.config.sample_size, (channels[0], *channels))
    scale, shift = vae.config.scaling_factor, vae.config.shift_factor
    larger.register_to_config(scaling_factor=scale, shift_factor=shift)
    larger.decoder.load_state_dict(vae.decoder.state_dict(), strict=False)
    # The new level's blocks start as identity already; so does its way there.
    convolution = larger.decoder.up_blocks[-2].upsamplers[0].conv
    torch.nn.init.dirac_(convolution.weight)
    torch.nn.init.zeros_(convolution.bias)
    return larger


def shrink(pictures: torch.Tensor) -> torch.Tensor:
    """Return pictures at half their size, which is what the encoder knows."""
    half = interpolate(pictures, scale_factor=0.5, mode="bicubic", antialias=True)
    return half.clamp(-1, 1)


class LargerRun(VaeRun):
    """One rank's training run of the larger decoder against the given encoder."""

    def __init__(
        self, options: argparse.Namespace, data: Data, vae: AutoencoderKL
    ) -> None:
        """Take up the saved state of this run, if there is one."""
        larger = larger_vae(vae)
        super().__init__(options, data, larger, larger.decoder)
        # On a CPU the gradient of a group norm takes most of a step in channels_last.
        self.vae.to(memory_format=torch.contiguous_format)
        self.given = vae.float().to(self.device, memory_format=torch.channels_last)

    def _loss(self, wanted: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self.device.type, torch.bfloat16):
            with torch.no_grad():
                latents = self.given.encode(shrink(wanted)).latent_dist.sample()
                deviation = NOISE / self.given.config.scaling_factor
                latents = latents + deviation * torch.randn_like(latents)
            made = self.vae.decode(latents.contiguous()).sample
        return reconstruction_loss(made, wanted.contiguous())

    def export(self) -> None:
        """Write the averaged weights of the decoder alone."""
        if ranks.RANK:
            return
        self.average.copy_to([self.vae])
        weights = self.vae.decoder.state_dict()
        save_file({k: v.contiguous() for k, v in weights.items()}, self.options.out)
        print(f"{self.step} steps, {self.options.batch} pictures a rank", flush=True)


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options of one run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/tiny"))
    add_data_options(parser)
    parser.add_argument("--budget", type=float, default=3600, help="active seconds")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=8, help="per rank")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Train as the options say."""
    options = parse_options(arguments)
    vae = AutoencoderKL.from_pretrained(options.model / "vae")
    size = 2 * vae.config.sample_size
    data = read_data(options, size)
    run = LargerRun(options, data, vae)
    train_vae(run)
    run.export()
    ranks.stop_rank()


if __name__ == "__main__":
    main()
