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
    work: Path = options.work
    prepare_data(work / "data", options.size, list(STYLES))
    shared = ["--data", str(work / "data"), "--size", str(options.size)]
    vae_share = 0.12 if options.init else 0.35
    seconds = options.budget * 60
    vae = ["--styles", ",".join(STYLES), "--state", str(work / "vae.pt")]
    vae += ["--out", str(work / "vae"), "--budget", str(seconds * vae_share)]
    vae += ["--batch", str(plan.vae_batch), *_vocabulary(plan)]
    if options.init:
        # The encoder stays as it is: the flow's weights are made for its latents.
        init = ["--init", f"{options.init}/vae", "--decoder-only", "--rate", "1e-3"]
        launch(plan.ranks, "training.vae", [*shared, *vae, *init])
        start = options.init
    else:
        launch(plan.ranks, "training.vae", [*shared, *vae])
        start = _build(work, options.size, plan)
    flow = ["--styles", plan.styles, "--init", str(start)]
    flow += ["--latents", str(work / "latents.pt"), "--state", str(work / "flow.pt")]
    flow += ["--budget", str(seconds * (1 - vae_share))]
    flow += ["--batch", str(plan.flow_batch), *_vocabulary(plan)]
    launch(plan.ranks, "training.flow", [*shared, *flow])
    _finish(work, start, plan)


def _vocabulary(plan: Plan) -> list[str]:
    return ["--concepts", str(plan.concepts)] if plan.concepts else []


def _build(work: Path, size: int, plan: Plan) -> Path:
    """Return an untrained pipeline around the new autoencoder."""
    start = work / "start"
    if not start.exists():
        data = load_data(work / "data", size, plan.styles.split(","), plan.concepts)
        vae = AutoencoderKL.from_pretrained(work / "vae")
        mean, deviation = measure_latents(vae, data)
        vae.register_to_config(scaling_factor=1 / deviation, shift_factor=mean)
        torch.manual_seed(0)
        pipeline = new_pipeline(vae, data.words, plan.model)
        widen(pipeline)
        pipeline.save_pretrained(start)
    return start


def _finish(work: Path, start: Path, plan: Plan) -> None:
    """Export, judge and draw; nothing that is committed is overwritten."""
    out = str(work / "export")
    state = ["--state", str(work / "flow.pt"), "--vae", str(work / "vae")]
    _python("training.export", "--init", str(start), *state, "--out", out)
    quiet = ["--styles", plan.styles, "--latents", str(work / "latents.pt")]
    shared = ["--data", str(work / "data"), *_vocabulary(plan)]
    _python("training.unseen", *shared, *quiet, "--model", out)
    known = ["--data", str(work / "data"), *_vocabulary(plan)]
    _python("training.known_words", *known, "--model", out)
    judged = ["--model", out, "--data", str(work / "data"), "--styles", plan.styles]
    judged += _vocabulary(plan)
    _python("training.evaluate", *judged)
    _python("training.grids", *judged, "--out", str(work / "grids"))


def _python(module: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", module, *arguments], check=True)


def main() -> None:
    """Read the options and run all stages."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("--budget", type=float, default=120, help="minutes")
    parser.add_argument("--init", type=Path, help="an export to go on from")
    parser.add_argument("--size", type=int, choices=(64, 128, 256), default=64)
    parser.add_argument("--work", type=Path, default=Path("training/work"))
    run_all(parser.parse_args(), choose_plan())


if __name__ == "__main__":
    main()
