"""Train everything within a time budget: data, autoencoder, flow, export, judgement.

Stop it whenever you like; the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from training.data import CONCEPTS, load_data
from training.latents import measure_latents
from training.model import new_pipeline
from training.prepare import prepare_data
from training.ranks import launch
from training.sources import STYLES
from training.widen import widen

CPU_STYLES = "noto,twemoji,flat,3d,emojione"
VAE_SHARE = 0.35  # of the time of a run from nothing


@dataclass(frozen=True)
class Plan:
    """What a machine can do in its time."""

    styles: str
    concepts: Path | None
    ranks: int
    vae_batch: int
    flow_batch: int
    model: str


def choose_plan() -> Plan:
    """Return everything for a GPU, and the common concepts for a CPU."""
    if torch.cuda.is_available():
        everything = ",".join(STYLES)
        count = torch.cuda.device_count()
        return Plan(everything, None, count, 64, 1024, "medium")
    ranks = min(2, os.cpu_count() or 1)
    return Plan(CPU_STYLES, CONCEPTS, ranks, 16, 96, "small")


def run_all(options: argparse.Namespace, plan: Plan) -> None:
    """Run every stage; each takes up its saved state."""
    data: Path = options.work / "data"
    prepare_data(data, options.size, list(STYLES))
    # A run from another start has other latents and weights: it gets its own folder.
    run: Path = options.work / (options.init.resolve().name if options.init else "new")
    run.mkdir(parents=True, exist_ok=True)
    shared = ["--data", str(data), "--size", str(options.size), *_vocabulary(plan)]
    seconds, start = options.budget * 60, options.init
    if start is None:
        vae = ["--styles", ",".join(STYLES), "--state", str(run / "vae.pt")]
        vae += ["--out", str(run / "vae"), "--budget", str(seconds * VAE_SHARE)]
        vae += ["--batch", str(plan.vae_batch)]
        launch(plan.ranks, "training.vae", [*shared, *vae])
        start = _build(run, data, options.size, plan)
        seconds *= 1 - VAE_SHARE
    flow = ["--styles", plan.styles, "--init", str(start), "--rate", str(options.rate)]
    flow += ["--latents", str(run / "latents.pt"), "--state", str(run / "flow.pt")]
    flow += ["--budget", str(seconds), "--batch", str(plan.flow_batch)]
    launch(plan.ranks, "training.flow", [*shared, *flow])
    _finish(run, data, start, plan)


def _vocabulary(plan: Plan) -> list[str]:
    return ["--concepts", str(plan.concepts)] if plan.concepts else []


def _build(run: Path, folder: Path, size: int, plan: Plan) -> Path:
    """Return an untrained pipeline around the new autoencoder."""
    start = run / "start"
    if not start.exists():
        data = load_data(folder, size, plan.styles.split(","), plan.concepts)
        vae = AutoencoderKL.from_pretrained(run / "vae")
        mean, deviation = measure_latents(vae, data)
        vae.register_to_config(scaling_factor=1 / deviation, shift_factor=mean)
        torch.manual_seed(0)
        pipeline = new_pipeline(vae, data.words, plan.model)
        widen(pipeline)
        pipeline.save_pretrained(start)
    return start


def _finish(run: Path, data: Path, start: Path, plan: Plan) -> None:
    """Export, judge and draw; nothing that is committed is overwritten."""
    out = str(run / "export")
    state = ["--state", str(run / "flow.pt"), "--out", out]
    _python("training.export", "--init", str(start), *state)
    known = ["--data", str(data), "--model", out, *_vocabulary(plan)]
    judged = [*known, "--styles", plan.styles]
    _python("training.unseen", *judged, "--latents", str(run / "latents.pt"))
    _python("training.known_words", *known)
    _python("training.evaluate", *judged)
    _python("training.grids", *judged, "--out", str(run / "grids"))


def _python(module: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", module, *arguments], check=True)


def main() -> None:
    """Read the options and run all stages."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("--budget", type=float, default=120, help="minutes")
    parser.add_argument("--init", type=Path, help="an export to go on from")
    parser.add_argument("--rate", type=float, default=1e-3, help="of learning")
    parser.add_argument("--size", type=int, choices=(64, 128, 256), default=64)
    parser.add_argument("--work", type=Path, default=Path("training/work"))
    run_all(parser.parse_args(), choose_plan())


if __name__ == "__main__":
    main()
