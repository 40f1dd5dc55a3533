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
from training.data import Data, load_data
from training.state import Average, load_state, save_state

KL_WEIGHT = 5e-4


def new_vae(size: int) -> AutoencoderKL:
    """Return an untrained autoencoder: 8 times smaller at 64 px, 16 times above."""
    channels = (16, 32, 64, 128) if size <= 64 else (16, 32, 64, 128, 128)
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


def train_vae(options: argparse.Namespace) -> None:
    """Train until the budget is spent and write the averaged weights to `out`."""
    device = ranks.start_rank()
    data = load_data(options.data, options.size, options.styles.split(","))
    rows = np.flatnonzero(~data.held_out)
    vae = AutoencoderKL.from_pretrained(options.init) if options.init else None
    vae = (vae or new_vae(options.size)).to(device, memory_format=torch.channels_last)
    trained = vae.decoder if options.decoder_only else vae
    vae.encoder.requires_grad_(not options.decoder_only)
    parameters = list(trained.parameters())
    optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.98), weight_decay=0.0)
    average, clock, step = Average([vae], 0.998), Clock(options.budget), 0
    if options.state.exists():
        step = load_state(options.state, [vae], optimizer, average, clock)
    ranks.share_start(vae.state_dict().values())
    rng = np.random.default_rng([ranks.RANK, step])
    torch.manual_seed(1000 * step + ranks.RANK)
    stop = StopFlag()
    while (share := clock.tick()) < 1 and not stop.agreed():
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(options.rate, step, share, 0.6)
        wanted = draw_batch(data, rows, options.batch, rng).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            with torch.set_grad_enabled(not options.decoder_only):
                latents = vae.encode(wanted).latent_dist
                drawn = latents.sample()
            made = vae.decode(drawn).sample
        loss = reconstruction_loss(made, wanted)
        if not options.decoder_only:
            loss = loss + KL_WEIGHT * latents.kl().mean() / latents.mean[0].numel()
        optimizer.zero_grad()
        loss.backward()
        ranks.average_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        average.update([vae], step)
        step += 1
        if ranks.RANK == 0 and (step % 200 == 0):
            line = {"step": step, "spent": round(clock.spent), "loss": loss.item()}
            print(json.dumps(line), flush=True)
            if step % 600 == 0:
                save_state(options.state, [vae], optimizer, average, clock, step)
    if ranks.RANK == 0:
        save_state(options.state, [vae], optimizer, average, clock, step)
        average.copy_to([vae])
        vae.save_pretrained(options.out)
        for kind, which in (("training", rows[::40]), ("held-out", data.held_out)):
            print(f"{kind} PSNR {measure_psnr(vae, data, which):.2f} dB", flush=True)
    ranks.stop_rank()


def main() -> None:
    """Read the options and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--styles", required=True)
    parser.add_argument("--init", type=Path)
    parser.add_argument("--decoder-only", action="store_true")
    parser.add_argument("--budget", type=float, default=1200)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    train_vae(parser.parse_args())


if __name__ == "__main__":
    main()
