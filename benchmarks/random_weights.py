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
from safetensors.torch import save_file

from flux_api.loading.footprint import build_empty, describe
from flux_api.models.catalog import MODEL_INFO
from flux_api.models.info import TaskDefaults
from flux_api.models.sources import Source

SHARD = "4GB"
_SHARD_BYTES = 4_000_000_000
_WEIGHTS = "diffusion_pytorch_model"


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
    place = folder / _last(info.base_model)
    write_checkpoint(info.base_model, row.pipeline, place)
    lines = [f"[{name}]", f"base_model = {json.dumps(str(place))}"]
    for task, other in info.tasks.items():
        if other.loras:
            # They are real, and would have to be downloaded.
            lines.append(f"tasks.{task}.loras = {{}}")
        if other.prior is not None:
            made = write_prior(other.prior, folder / _last(other.prior))
            lines.append(f"tasks.{task}.prior = {json.dumps(str(made))}")
        if info.base_of(other) != info.base_model:
            made = link_checkpoint(place, other, folder / _last(info.base_of(other)))
            lines.append(f"tasks.{task}.base_model = {json.dumps(str(made))}")
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
        if name == "transformer":
            write_transformer(part, folder / name)
        else:
            part.save_pretrained(folder / name, max_shard_size=SHARD)
        index[name] = [kind.partition(".")[0], kind.rpartition(".")[2]]
        del part
    index |= write_rest(pipeline, folder)
    # Last: a folder without it is begun anew.
    index_path.write_text(json.dumps(index), encoding="utf-8")
    return folder


def write_transformer(module: Any, folder: Path) -> None:
    """``module`` in files of a few GB, its first layer in one of its own, so that a
    model which differs in that one can share the others."""
    module.save_config(folder)
    files: list[dict[str, torch.Tensor]] = [{}, {}]
    size = 0
    for key, tensor in module.state_dict().items():
        if key.startswith("x_embedder."):
            files[0][key] = tensor.contiguous()
            continue
        if size + tensor.nbytes > _SHARD_BYTES:
            files.append({})
            size = 0
        files[-1][key] = tensor.contiguous()
        size += tensor.nbytes
    places: dict[str, str] = {}
    for number, tensors in enumerate(files, 1):
        name = f"{_WEIGHTS}-{number:05}-of-{len(files):05}.safetensors"
        save_file(tensors, folder / name, {"format": "pt"})
        places |= dict.fromkeys(tensors, name)
    index = {"metadata": {}, "weight_map": places}
    path = folder / f"{_WEIGHTS}.safetensors.index.json"
    path.write_text(json.dumps(index), encoding="utf-8")


def link_checkpoint(base: Path, row: TaskDefaults, folder: Path) -> Path:
    """The checkpoint of ``row`` under ``folder``: links to the files of ``base``, but
    for the first layer of a transformer that takes more channels."""
    if (folder / "model_index.json").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for part in base.iterdir():
        if part.is_dir() and part.name != "transformer":
            (folder / part.name).symlink_to(part)
    source = base / "transformer"
    if row.pipeline == "FluxFillPipeline":
        _link_fill(source, folder / "transformer")
    else:
        (folder / "transformer").symlink_to(source)
    index = json.loads((base / "model_index.json").read_text("utf-8"))
    index["_class_name"] = row.pipeline
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def _link_fill(source: Path, folder: Path) -> None:
    """A transformer that takes mask and masked picture beside the noise."""
    folder.mkdir()
    config = json.loads((source / "config.json").read_text("utf-8"))
    config |= {"in_channels": 6 * config["in_channels"], "out_channels": 64}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for path in source.iterdir():
        if path.name.startswith(f"{_WEIGHTS}-00001-"):
            width = config["num_attention_heads"] * config["attention_head_dim"]
            layer = torch.nn.Linear(config["in_channels"], width, dtype=torch.bfloat16)
            tensors = {f"x_embedder.{k}": v for k, v in layer.state_dict().items()}
            save_file(tensors, folder / path.name, {"format": "pt"})
        elif path.name != "config.json":
            (folder / path.name).symlink_to(path)


def write_prior(source: Source, folder: Path) -> Path:
    """A Redux prior with random weights under ``folder``."""
    from transformers.models.siglip.image_processing_pil_siglip import (
        SiglipImageProcessorPil,
    )

    described = describe(source)
    if described is None:
        raise ValueError(f"{source} is not known")
    if not (folder / "model_index.json").is_file():
        side = described["image_encoder"][1]["image_size"]
        parts = {name: fill(build_empty(*of)) for name, of in described.items()}
        diffusers.FluxPriorReduxPipeline(
            **parts,
            feature_extractor=SiglipImageProcessorPil(
                size={"height": side, "width": side}
            ),
        ).save_pretrained(folder)
    return folder


def _last(source: Source) -> str:
    return str(source).rpartition("/")[2]


def fill(module: Any) -> Any:
    """``module``, built on the meta device, with small random numbers."""
    module = module.to(torch.bfloat16)
    size = sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))
    # A GPU makes them in no time, where it has room.
    device = "cuda" if size < _free_on_gpu() else "cpu"
    module = module.to_empty(device=device)
    if hasattr(module, "tie_weights"):
        # Each of what shares its memory has got its own.
        module.tie_weights()
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.normal_(0.0, 0.02)
        if hasattr(module, "bn"):
            module.bn.running_mean.zero_()
            module.bn.running_var.fill_(1.0)
    return module


def _free_on_gpu() -> int:
    return torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 0


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
