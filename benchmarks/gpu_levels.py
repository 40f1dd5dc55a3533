"""A FLUX_PERFORMANCE on a GPU, a row: seconds of a picture beside those that the card
would need at the least, for the matrices of its steps alone.

A child of ``benchmarks.gpu_check``, which reads the lines that it prints. Each level
has a process of its own: what one has compiled is not to be the next one's.
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu_placements import failure, picture_of, read_options, run, say
from flux_api.core import ImageRequest, Performance
from flux_api.engine.backend import DiffusersBackend
from flux_api.engine.quality import Quality, QualityGate
from flux_api.engine.tuning import Tuner
from flux_api.loading.attention import NATIVE, set_attention
from flux_api.loading.memory import choose_placement
from flux_api.loading.model_sets import ModelSets
from flux_api.loading.placement import choose_device
from flux_api.models.catalog import MODEL_INFO
from flux_api.models.info import ModelInfo
from flux_api.models.toml_file import load_models
from flux_api.settings import Settings

LEVELS: tuple[Performance, ...] = ("exact", "speed", "max")
# As others measure these models; FLUX.1 has a LoRA for fewer, which is left out here.
STEPS = {"klein-4b": 4, "flux1": 28}
PICTURES = 3
# Random weights draw noise, of which a verdict on "max" says nothing.
_GOOD = Quality(30.0, 0.9, exact_seconds=1.0, seconds=0.5)
_MORE = 4


def main() -> int:
    """Print a line for one level; 0 where it is the last, or the time is up."""
    options = read_options()
    level, *others = LEVELS[options.skip :]
    if time.time() > options.until:
        return 0
    say("BEGIN", {"row": level})
    info = load_models(options.table, MODEL_INFO)[options.set]
    try:
        row = measure(options.set, info, level, options.side)
    # Whatever a library raises: the next level may do.
    except Exception as failed:
        row = {"result": failure(failed)}
    say("ROW", {"part": "levels", "row": level} | row)
    say("END", {"row": level})
    return _MORE if others else 0


def measure(
    name: str, info: ModelInfo, level: Performance, side: int
) -> dict[str, object]:
    """The row of ``level``: pictures of ``side`` x ``side``, each from its request to
    its pixels, with a prompt that was not read before."""
    device = choose_device()
    tuner = Tuner(level, device)
    QualityGate(tuner.verdicts).keep("max", name, info, _GOOD)
    placement = choose_placement(name, info, Settings(), device, _silent)
    sets = ModelSets({name: info}, lambda *_: placement)
    backend = DiffusersBackend(
        {name: info}, name, batch_tokens=0, tuner=tuner, sets=sets
    )
    began = time.monotonic()
    backend.load(_silent)
    ready = time.monotonic() - began
    request = picture_of(name, info, "generate", side, steps=STEPS[name])
    request = replace(request, loras=())
    drawn = [
        run(backend, replace(request, prompt=f"a red heart, {number}"))
        for number in range(1 + PICTURES)
    ]
    # The first one of this size is slower.
    picture = statistics.median(seconds for _, seconds, _ in drawn[1:])
    step = statistics.median(seconds for _, _, seconds in drawn[1:])
    row = {
        "result": "ok",
        "drawn as": drawn[0][0].performance,
        "held": f"{placement.quantization}, {placement.offload}",
        "ready in": f"{ready:.1f} s",
        "a step": f"{step:.4f} s",
        f"{side}x{side}, {STEPS[name]} steps": f"{picture:.3f} s",
        "note": backend.performance.get("performance_note", ""),
    }
    try:
        flops = STEPS[name] * _flops_a_step(name, info, request, sets)
        floor = flops / _flops_a_second(device, 8 * side)
    # What was measured is not to be lost for it.
    except Exception as failed:
        return row | {"16-bit floor": failure(failed)}
    return row | {
        "16-bit floor": f"{floor:.4f} s",
        "share of it": f"{floor / picture:.1%}",
    }


def _flops_a_step(
    name: str, info: ModelInfo, request: ImageRequest, sets: ModelSets
) -> int:
    """Those of the transformer's matrices, counted as it runs plain."""
    loaded = sets.use(name, _silent).load("generate", (), _silent)
    transformer = loaded.pipeline.transformer
    # What packages of their own compute is not counted.
    set_attention(transformer, NATIVE)
    backend = DiffusersBackend({name: info}, name, batch_tokens=0, sets=sets)
    with (
        FlopCounterMode(display=False) as counter,
        torch.compiler.set_stance("force_eager"),
    ):
        run(backend, replace(request, num_inference_steps=1))
    return sum(counter.get_flop_counts()[type(transformer).__name__].values())


def _flops_a_second(device: torch.device, size: int) -> float:
    """What the device reaches with matrices of ``size`` x ``size`` in bfloat16."""
    one = torch.randn(size, size, dtype=torch.bfloat16, device=device)
    seconds = []
    for _ in range(10):
        torch.accelerator.synchronize()
        began = time.perf_counter()
        one @ one
        torch.accelerator.synchronize()
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / min(seconds)


def _silent(*_: object) -> None:
    pass


if __name__ == "__main__":
    sys.exit(main())
