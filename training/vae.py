"""Train the autoencoder, from nothing or only the decoder of an existing one."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from training import ranks
from training.clock import Clock, StopFlag, learning_rate
from training.data import Data, add_data_options, read_data
from training.state import Average, load_state, save_state

KL_WEIGHT = 5e-4
DECAY = 0.6


def choose_channels(size: int) -> tuple[int, ...]:
    """Return a level's channels each: 8 times smaller at 64 px, 16 times above."""
    return (16, 32, 64, 128) if size <= 64 else (16, 32, 64, 128, 128)


def new_vae(size: int, channels: tuple[int, ...]) -> AutoencoderKL:
    """Return an untrained autoencoder."""
    vae = AutoencoderKL(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=8,
        sample_size=size,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
        force_upcast=False,
        scaling_factor=1.0,
        shift_factor=0.0,
    )
    for module in vae.modules():
        # Residual blocks that start as identity: first a plain image pyramid.
        if module.__class__.__name__ == "ResnetBlock2D":
            torch.nn.init.zeros_(module.conv2.weight)
            torch.nn.init.zeros_(module.conv2.bias)
    return vae


def draw_batch(data: Data, rows: np.ndarray, count: int, rng: np.random.Generator):
    """Return random pictures in [-1, 1], a quarter of them on another colour."""
    picked = data.images[rng.choice(rows, count)].astype(np.float32)
    colour, away = picked[..., :3], 1 - picked[..., 3:] / 255
    other = rng.integers(0, 256, (count, 1, 1, 3))
    ground = np.where(rng.random((count, 1, 1, 1)) < 0.75, 255, other)
    colour = np.clip(colour + away * (ground - 255), 0, 255)
    gray = rng.random((count, 1, 1, 1)) < 0.06
    colour = np.where(gray, colour.mean(-1, keepdims=True), colour)
    batch = torch.from_numpy(colour.astype(np.float32)).permute(0, 3, 1, 2)
    batch = batch / 127.5 - 1
    if rng.random() < 0.5:
        batch = batch.flip(3)
    return batch.contiguous(memory_format=torch.channels_last)


def reconstruction_loss(made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return the pixel error plus the error of the edges."""
    off = made.float() - wanted
    across = (off[..., 1:] - off[..., :-1]).abs().mean()
    down = (off[..., 1:, :] - off[..., :-1, :]).abs().mean()
    return off.abs().mean() + 1.5 * off.square().mean() + 0.5 * (across + down)


@torch.no_grad()
def measure_psnr(vae: AutoencoderKL, data: Data, rows: np.ndarray) -> float:
    """Return the mean PSNR in dB of these pictures after encoding and decoding."""
    device = next(vae.parameters()).device
    pictures = torch.from_numpy(data.images[rows][..., :3].astype(np.float32))
    wanted = (pictures.permute(0, 3, 1, 2) / 127.5 - 1).to(device)
    made = vae.decode(vae.encode(wanted).latent_dist.mode()).sample.clamp(-1, 1)
    error = (made - wanted).square().mean((1, 2, 3))
    return (10 * torch.log10(4 / error)).mean().item()


class VaeRun:
    """One rank's training run of an autoencoder, or of its decoder alone."""

    def __init__(
        self,
        options: argparse.Namespace,
        data: Data,
        vae: AutoencoderKL,
        trained: torch.nn.Module,
    ) -> None:
        """Take up the saved state of this run, if there is one."""
        self.options, self.data = options, data
        self.rows = np.flatnonzero(~data.held_out)
        self.device = ranks.start_rank()
        self.vae = vae.float().to(self.device, memory_format=torch.channels_last)
        self.parameters = list(trained.parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=0.0, betas=(0.9, 0.98), weight_decay=0.0
        )
        self.average, self.clock = Average([vae], 0.998), Clock(options.budget)
        self.step = 0
        if options.state.exists():
            self.step = load_state(
                options.state, [vae], self.optimizer, self.average, self.clock
            )
        ranks.share_start(vae.state_dict().values())
        self.random = np.random.default_rng([ranks.RANK, self.step])
        torch.manual_seed(1000 * self.step + ranks.RANK)

    def advance(self, share: float) -> float:
        """Take one optimizer step and return its loss."""
        rate = learning_rate(self.options.rate, self.step, share, DECAY)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        drawn = draw_batch(self.data, self.rows, self.options.batch, self.random)
        loss = self._loss(drawn.to(self.device))
        self.optimizer.zero_grad()
        loss.backward()
        ranks.average_gradients(self.parameters)
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.average.update([self.vae], self.step)
        self.step += 1
        return loss.item()

    def _loss(self, wanted: torch.Tensor) -> torch.Tensor:
        whole = not self.options.decoder_only
        with torch.autocast(self.device.type, torch.bfloat16):
            with torch.set_grad_enabled(whole):
                latents = self.vae.encode(wanted).latent_dist
                drawn = latents.sample()
            made = self.vae.decode(drawn).sample
        loss = reconstruction_loss(made, wanted)
        if whole:
            loss = loss + KL_WEIGHT * latents.kl().mean() / latents.mean[0].numel()
        return loss

    def save(self) -> None:
        """Write the state that a later run goes on from."""
        if ranks.RANK == 0:
            save_state(
                self.options.state,
                [self.vae],
                self.optimizer,
                self.average,
                self.clock,
                self.step,
            )

    def export(self) -> None:
        """Write the averaged weights as a diffusers folder and measure them."""
        if ranks.RANK:
            return
        self.average.copy_to([self.vae])
        self.vae.save_pretrained(self.options.out)
        sets = {"training": self.rows[::40], "held-out": self.data.held_out}
        for kind, rows in sets.items():
            psnr = measure_psnr(self.vae, self.data, rows)
            print(f"{kind} PSNR {psnr:.2f} dB", flush=True)


def train_vae(run: VaeRun) -> None:
    """Train until the budget is spent or a signal asks to stop."""
    with StopFlag() as stop:
        while (share := run.clock.tick()) < 1 and not stop.agreed():
            loss = run.advance(share)
            if ranks.RANK == 0 and run.step % 200 == 0:
                line = {"step": run.step, "spent": round(run.clock.spent)}
                print(json.dumps(line | {"loss": round(loss, 4)}), flush=True)
            if run.step % 600 == 0:
                run.save()
    run.save()


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options of one autoencoder training run."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_data_options(parser)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--init", type=Path)
    parser.add_argument("--decoder-only", action="store_true")
    parser.add_argument("--budget", type=float, default=1200, help="active seconds")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--batch", type=int, default=8, help="per rank")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Train as the options say."""
    options = parse_options(arguments)
    data = read_data(options, options.size)
    vae = AutoencoderKL.from_pretrained(options.init) if options.init else None
    vae = vae or new_vae(data.size, choose_channels(data.size))
    run = VaeRun(options, data, vae, vae.decoder if options.decoder_only else vae)
    train_vae(run)
    run.export()
    ranks.stop_rank()


if __name__ == "__main__":
    main()
