"""``python -m benchmarks.random_weights SET``: a whole checkpoint of random weights.

It is made from the architecture alone, without a download, and draws noise at the very
speed of the real one. Prints the settings that the other benchmarks take for it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import diffusers
import torch

from flux_api.loading.footprint import build_empty, describe
from flux_api.models.catalog import MODEL_INFO
from flux_api.models.sources import Source

SHARD = "4GB"


def main() -> None:
    """Write the checkpoint of a set, and a MODEL_INFO file that names it."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("set", choices=sorted(set(MODEL_INFO) - {"tiny"}))
    parser.add_argument("--folder", type=Path, default=Path("var/random-weights"))
    options = parser.parse_args()
    print(write_set(options.set, options.folder.resolve()))


def write_set(name: str, folder: Path) -> str:
    """The settings under which the set ``name`` draws with random weights."""
    info = MODEL_INFO[name]
    row = info.tasks["generate"]
    place = folder / str(info.base_model).rpartition("/")[2]
    write_checkpoint(info.base_model, row.pipeline, place)
    lines = [f"[{name}]", f"base_model = {json.dumps(str(place))}"]
    if row.loras:
        # They are real, and would have to be downloaded.
        lines.append("tasks.generate.loras = {}")
    table = folder / f"{name}.toml"
    table.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return f"FLUX_MODEL={name} MODEL_INFO={table}"


def write_checkpoint(source: Source, pipeline: str, folder: Path) -> Path:
    """The components of ``source`` with random bfloat16 weights under ``folder``, as
    ``pipeline`` loads them; what is there already is kept."""
    index_path = folder / "model_index.json"
    if index_path.is_file():
        return folder
    described = describe(source)
    if described is None:
        raise ValueError(f"{source} is not known")
    index: dict[str, Any] = {"_class_name": pipeline}
    for name, (kind, config) in described.items():
        part = fill(build_empty(kind, config))
        part.save_pretrained(folder / name, max_shard_size=SHARD)
        index[name] = [kind.partition(".")[0], kind.rpartition(".")[2]]
        del part
    index |= write_rest(pipeline, folder)
    # Last: a folder without it is begun anew.
    index_path.write_text(json.dumps(index), encoding="utf-8")
    return folder


def fill(module: Any) -> Any:
    """``module``, built on the meta device, with small random numbers."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    module = module.to(torch.bfloat16).to_empty(device=device)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.normal_(0.0, 0.02)
        if hasattr(module, "bn"):
            module.bn.running_mean.zero_()
            module.bn.running_var.fill_(1.0)
    return module


def write_rest(pipeline: str, folder: Path) -> dict[str, Any]:
    """Scheduler, tokenizers and switches; the entries of the index."""
    from tests.support.tiny_checkpoints import (
        clip_tokenizer,
        qwen_tokenizer,
        t5_tokenizer,
    )

    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(
        shift=3.0, use_dynamic_shifting=True
    )
    scheduler.save_pretrained(folder / "scheduler")
    rest: dict[str, Any] = {
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"]
    }
    tokenizers: dict[str, Any] = {"tokenizer": qwen_tokenizer()}
    if pipeline == "FluxPipeline":
        tokenizers = {"tokenizer": clip_tokenizer(), "tokenizer_2": t5_tokenizer()}
    for name, tokenizer in tokenizers.items():
        tokenizer.save_pretrained(folder / name)
        rest[name] = ["transformers", type(tokenizer).__name__]
    if pipeline == "Flux2KleinPipeline":
        rest["is_distilled"] = True
    return rest


if __name__ == "__main__":
    main()
