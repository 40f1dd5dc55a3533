"""Full-size checkpoints with random weights, from the architectures alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import torch

from flux_api.footprint import build_empty, describe

SHARD = "4GB"


def write_checkpoint(source: str, pipeline: str, folder: Path) -> Path:
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
    from tests.tiny_checkpoints import clip_tokenizer, qwen_tokenizer, t5_tokenizer

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
