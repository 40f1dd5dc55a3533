"""Each way of holding a set, drawn with: peak memory and seconds, a row each.

A child of ``benchmarks.gpu_check``, which reads the lines that it prints.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from flux_api.blueprints.openai.parameters import ImagesParameters
from flux_api.core import ImageRequest, ImageResult
from flux_api.engine.backend import DiffusersBackend
from flux_api.errors import BadSetting, FluxError
from flux_api.http.model_defaults import Inputs, complete_request
from flux_api.loading.device import first_line, free_memory
from flux_api.loading.footprint import GIB, footprint_of
from flux_api.loading.memory import look_at_machine
from flux_api.loading.model_sets import ModelSets
from flux_api.loading.placement import Placement, check_placement, choose_device
from flux_api.loading.plan import Plan, plan_memory
from flux_api.models.catalog import MODEL_INFO
from flux_api.models.info import ModelInfo, TaskName
from flux_api.models.toml_file import load_models
from flux_api.queue.tasks import BackendBroken, Callbacks, Picture
from flux_api.settings import Offload, Quantization

STEPS = 3
REFERENCES = 4
ALL: tuple[TaskName, ...] = ("generate", "edit", "variation", "inpaint")
ONE: tuple[TaskName, ...] = ("generate",)


@dataclass(frozen=True)
class Way:
    """How a set is held, and the tasks that it is tried with."""

    quantization: Quantization
    offload: Offload
    tasks: tuple[TaskName, ...]


# The first of each set does all of its tasks. FLUX.1's other transformers take a while
# to load, so not every way does them too.
WAYS: dict[str, tuple[Way, ...]] = {
    "klein-4b": (
        Way("none", "none", ALL),
        Way("none", "text", ("generate", "edit")),
        Way("none", "model", ("generate", "edit")),
        Way("nf4", "none", ("generate", "edit")),
        Way("nf4", "text", ONE),
        Way("nf4", "model", ONE),
        Way("int8", "none", ONE),
        Way("int8", "text", ONE),
        Way("fp8", "none", ONE),
        Way("fp8", "text", ONE),
        Way("none", "group", ("generate", "edit")),
        Way("none", "sequential", ONE),
    ),
    "flux1": (
        Way("none", "text", ALL),
        Way("none", "none", ("generate", "edit", "inpaint", "generate")),
        Way("nf4", "none", ("generate", "edit")),
        Way("nf4", "text", ONE),
        Way("nf4", "model", ONE),
        Way("none", "model", ONE),
        Way("int8", "none", ONE),
        Way("fp8", "text", ONE),
        Way("none", "group", ("generate", "edit")),
        Way("none", "sequential", ONE),
    ),
}


def main() -> int:
    """Print a line for each row; 3 where the device is lost."""
    options = read_options()
    info = load_models(options.table, MODEL_INFO)[options.set]
    for way in WAYS[options.set][options.skip :]:
        name = f"{way.quantization}, {way.offload}"
        if time.time() > options.until:
            return 0
        say("BEGIN", {"row": name})
        lost = False
        try:
            for row in measure(options.set, info, way, options.side):
                say("ROW", {"row": name} | row)
        except BadSetting as refused:
            say("ROW", {"row": name, "result": f"refused: {refused}"})
        # Whatever a library raises: the next way may do.
        except Exception as failed:
            lost = isinstance(failed, (BackendBroken, torch.AcceleratorError))
            say("ROW", {"row": name, "result": failure(failed)})
        free_memory()
        say("END", {"row": name})
        if lost:
            return 3
    return 0


def read_options() -> argparse.Namespace:
    """What the parent asks of a child: which set of which table, at which side in
    pixels, how many rows to leave out, and the Unix time to end at."""
    parser = argparse.ArgumentParser()
    parser.add_argument("set", choices=WAYS)
    parser.add_argument("table", type=Path)
    parser.add_argument("--side", type=int, required=True)
    parser.add_argument("--skip", type=int, required=True)
    parser.add_argument("--until", type=float, required=True)
    return parser.parse_args()


def measure(
    name: str, info: ModelInfo, way: Way, side: int
) -> Iterator[dict[str, object]]:
    """A row for each task of ``way``, at ``side`` x ``side``."""
    device = choose_device()
    check_placement(way.quantization, way.offload, device)
    footprint = footprint_of(info)
    assert footprint is not None
    machine = look_at_machine(device)
    plan = plan_memory(
        footprint, machine, quantization=way.quantization, offload=way.offload
    )
    if not plan.fits:
        yield {"result": f"not on this machine: {plan}, {plan.host / GIB:.0f} GiB RAM"}
        return
    # CUDA's own memory comes with the first tensor.
    torch.zeros(1, device=device)
    held = _bytes(device)
    backend = _backend(name, info, way, plan)
    torch.cuda.reset_peak_memory_stats(device)
    began = time.monotonic()
    backend.sets.use(name, _silent).load("generate", (), _silent)
    loading = f"{time.monotonic() - began:.1f} s"
    for task in way.tasks:
        try:
            request = picture_of(name, info, task, side, steps=STEPS)
            _, whole, step = run(backend, request)
        except FluxError as failed:
            # The next task may do.
            yield {"task": task, "result": failure(failed)}
            continue
        peak = torch.cuda.max_memory_allocated(device)
        yield {
            "task": task,
            "result": "ok",
            "loaded in": loading,
            "references": references(info, task),
            "a step": f"{step:.3f} s",
            "in all": f"{whole:.2f} s",
            "peak": f"{peak / GIB:.2f} GiB",
            "planned": f"{plan.peak / GIB:.2f} GiB",
        }
        loading = ""
    del backend
    free_memory()
    left = _bytes(device) - held
    # Kernels' own workspaces stay.
    if left > GIB // 4:
        yield {"result": f"failed: {left / GIB:.2f} GiB are left behind"}


def _backend(name: str, info: ModelInfo, way: Way, plan: Plan) -> DiffusersBackend:
    placement = Placement(
        choose_device(),
        way.quantization,
        way.offload,
        resident=plan.resident,
        copies=plan.copies,
    )
    sets = ModelSets({name: info}, lambda *_: placement)
    return DiffusersBackend({name: info}, name, batch_tokens=0, sets=sets)


def picture_of(
    name: str, info: ModelInfo, task: TaskName, side: int, *, steps: int | None
) -> ImageRequest:
    """A request for one picture of ``side`` x ``side``; None for the set's steps."""
    pixels = np.random.default_rng(1).integers(0, 255, (side, side, 3), np.uint8)
    picture = Image.fromarray(pixels)
    mask = Image.new("L", (side, side), 255) if task == "inpaint" else None
    words: dict[str, Any] = {"seed": 1, "steps": steps, "size": f"{side}x{side}"}
    if task != "variation":
        words["prompt"] = "a red heart"
    return complete_request(
        name,
        info,
        "edit" if task == "inpaint" else task,
        ImagesParameters.read(words),
        Inputs((picture,) * references(info, task), mask),
    )


def references(info: ModelInfo, task: TaskName) -> int:
    """How many pictures a request of ``task`` has here."""
    return 0 if task == "generate" else min(REFERENCES, info.tasks[task].max_images)


def run(
    backend: DiffusersBackend, request: ImageRequest
) -> tuple[ImageResult, float, float]:
    """The picture, seconds of it, and of a step."""
    times: list[float] = []

    def on_step(_step: int, _total: int) -> None:
        times.append(time.monotonic())

    began = time.monotonic()
    callbacks = Callbacks(_silent, on_step, _silent, _silent)
    result = backend.run(Picture(request, 0, "check"), callbacks)
    whole = time.monotonic() - began
    # A step is told of once the one before it is done, so the first comes too early.
    steps = max(1, len(times) - 2)
    return result, whole, (times[-1] - times[max(-len(times), -1 - steps)]) / steps


def failure(error: Exception) -> str:
    """The result of a row that came to ``error``."""
    return f"failed: {type(error).__name__}: {first_line(error)}"


def _bytes(device: torch.device) -> int:
    return int(torch.cuda.memory_allocated(device))


def _silent(*_: object) -> None:
    pass


def say(word: str, facts: dict[str, Any]) -> None:
    """Tell the parent."""
    print(word, json.dumps(facts), flush=True)


if __name__ == "__main__":
    sys.exit(main())
