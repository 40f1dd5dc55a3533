"""``python -m benchmarks.memory``: peak GPU memory of full-size models, random weights.

Needs a CUDA GPU, 40 GB of disk under --folder and 40 GB of RAM; no download. Each case
runs in a process of its own through the server's own loading: what counts is the most
that the process held on the card while it drew one picture (two steps: more of them
hold no more). Prints a table in Markdown; ``--write`` also puts it into
``benchmarks/memory.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

GIB = 2**30
TABLE = Path(__file__).with_name("memory.md")


@dataclass(frozen=True)
class Case:
    """One line of the table; ``limit`` is the promise in GiB, None for none."""

    name: str
    quantization: str
    offload: str
    limit: float | None = None


CASES = (
    Case("flux1", "nf4", "model", 16.0),
    Case("flux1", "nf4", "none"),
    Case("flux1", "int8", "model"),
    Case("klein-4b", "none", "model", 16.0),
    Case("klein-4b", "none", "none"),
    Case("klein-4b", "none", "group"),
    Case("klein-4b", "nf4", "none"),
    Case("klein-4b", "int8", "none"),
)


def main() -> int:
    """Measure the cases that were asked for; 1 where a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--folder", type=Path, default=Path("var/random-weights"))
    parser.add_argument("--only", nargs="*", metavar="SET-QUANTIZATION-OFFLOAD")
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(measure(Case(*json.loads(options.one)), options)))
        return 0
    import torch

    if not torch.cuda.is_available():
        print("This measures a GPU's memory, and there is none.", file=sys.stderr)
        return 2
    cases = [case for case in CASES if wanted(case, options.only)]
    lines = [*heading(options.side)]
    broken = False
    for case in cases:
        found = run(case, options)
        lines.append(line(case, found))
        print(lines[-1], flush=True)
        too_much = case.limit is not None and found["used"] > case.limit * GIB
        broken = broken or "error" in found or too_much
    text = "\n".join(lines)
    print(f"\n{text}")
    if options.write:
        TABLE.write_text(text + "\n", encoding="utf-8")
    return int(broken)


def wanted(case: Case, only: list[str] | None) -> bool:
    """Whether ``case`` is among those asked for."""
    return not only or f"{case.name}-{case.quantization}-{case.offload}" in only


def heading(side: int) -> list[str]:
    """The table's top, with the machine."""
    import torch

    card = torch.cuda.get_device_properties(0)
    return [
        "# Peak GPU memory, full-size models with random weights",
        "",
        f"{card.name}, {card.total_memory / GIB:.0f} GiB; torch {torch.__version__}; "
        f"one picture of {side}x{side}, two steps. `python -m benchmarks.memory`.",
        "",
        "| set | quantization | offload | held by the process | of that tensors "
        "| planned | seconds | promise |",
        "|---|---|---|---|---|---|---|---|",
    ]


def line(case: Case, found: Mapping[str, Any]) -> str:
    """One row."""
    start = f"| {case.name} | {case.quantization} | {case.offload} |"
    if "error" in found:
        return f"{start} failed: {found['error']} | | | | |"
    sizes = [found[key] / GIB for key in ("used", "allocated", "planned")]
    promise = ""
    if case.limit is not None:
        kept = "kept" if sizes[0] <= case.limit else "BROKEN"
        promise = f"under {case.limit:g} GiB: {kept}"
    numbers = " | ".join(f"{size:.2f} GiB" for size in sizes)
    return f"{start} {numbers} | {found['seconds']:.1f} | {promise} |"


def run(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """The measurement of ``case`` in a fresh process."""
    words = [case.name, case.quantization, case.offload]
    command = [sys.executable, "-m", "benchmarks.memory", "--one", json.dumps(words)]
    command += ["--folder", str(options.folder), "--side", str(options.side)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"error": last[:200]}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def measure(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Load and draw once: the peak in bytes, and what the plan had expected."""
    from flux_api.loading.footprint import footprint_of
    from flux_api.loading.placement import Placement, choose_device
    from flux_api.loading.plan import Machine, plan_memory

    os.environ["HF_HUB_OFFLINE"] = "1"
    info = random_set(case, options.folder)
    placement = Placement(
        choose_device(),
        case.quantization,  # type: ignore[arg-type]
        case.offload,  # type: ignore[arg-type]
    )
    seconds = draw(case.name, info, placement, options.side)
    footprint = footprint_of(info)
    assert footprint is not None
    plan = plan_memory(
        footprint,
        Machine(0, 0),
        quantization=placement.quantization,
        offload=placement.offload,
    )
    return {"planned": plan.peak, "seconds": seconds} | held()


def random_set(case: Case, folder: Path) -> Any:
    """The set of ``case``, reduced to pictures from a prompt, with random weights."""
    from benchmarks.random_weights import write_checkpoint
    from flux_api.models.catalog import MODEL_INFO
    from flux_api.models.sources import Folder

    shipped = MODEL_INFO[case.name]
    row = replace(shipped.tasks["generate"], loras=())
    source = shipped.base_model
    name = str(source).rpartition("/")[2]
    path = write_checkpoint(source, row.pipeline, folder / name)
    return replace(shipped, base_model=Folder(path), tasks={"generate": row})


def draw(name: str, info: Any, placement: Any, side: int) -> float:
    """Seconds of one picture, loading not counted."""
    from flux_api.blueprints.openai.parameters import ImagesParameters
    from flux_api.engine.pipeline_call import PipelineCall
    from flux_api.engine.prompt_cache import PromptCache
    from flux_api.engine.steps import decode, denoise, encode_prompt
    from flux_api.http.completion import Inputs, complete_request
    from flux_api.loading.model_sets import ModelSets

    sets = ModelSets({name: info}, lambda *_: placement)
    ready = sets.use(name, _silent).load("generate", (), _silent)
    wanted = {"prompt": "a red heart", "seed": 1, "steps": 2, "size": f"{side}x{side}"}
    parameters = ImagesParameters.read(wanted)
    request = complete_request(name, info, "generate", parameters, Inputs())
    call = PipelineCall(request, info, info.tasks["generate"], 1)
    began = time.monotonic()
    pipeline = ready.pipeline
    kwargs = encode_prompt(pipeline, call.prepare(pipeline), PromptCache(0), None)
    latents = denoise(pipeline, kwargs, pipeline.transformer, pipeline.vae)
    ready.release()
    image = decode(pipeline, pipeline.vae, latents)
    assert image.shape == (3, side, side)
    return time.monotonic() - began


def held() -> dict[str, int]:
    """The most bytes that tensors took on the GPU, and that the process did."""
    import torch

    if not torch.cuda.is_available():
        return {"used": 0, "allocated": 0}
    # Beside the allocator's own there is the driver's context.
    free, total = torch.cuda.mem_get_info()
    context = total - free - torch.cuda.memory_reserved()
    return {
        "used": torch.cuda.max_memory_reserved() + context,
        "allocated": torch.cuda.max_memory_allocated(),
    }


def _silent(_: str) -> None:
    pass


if __name__ == "__main__":
    sys.exit(main())
