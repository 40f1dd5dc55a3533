"""How many bytes a set's components take, from their configurations alone.

Each component is built on torch's ``meta`` device, where weights have shapes and no
memory. A local checkpoint is described by its own ``config.json`` files, one that is
not downloaded yet by ``architectures.json``.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from flux_api.loading.file_weights import (
    Weights,
    config_of_file,
    own_files,
    weigh_file,
)
from flux_api.loading.quantization import QUANTIZED, is_quantized_layer
from flux_api.models.hub import (
    CLASSIC_INDEX,
    MODULAR_INDEX,
    is_packed_folder,
    present_folder,
)
from flux_api.models.info import ModelInfo
from flux_api.models.sources import Folder, Source
from flux_api.settings import Quantization

_ARCHITECTURES = Path(__file__).with_name("architectures.json")
# Tensors of the widest full-size feature map that a VAE holds at once.
_VAE_TENSORS = 4
# Hidden states, projections and attention of one transformer block, in units of its
# width a token.
_BLOCK_WIDTHS = 40
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Footprint:
    """The components of a set by checkpoint and name, and the bytes that making one
    picture takes beside them; ``own`` names those that are in files of the set's."""

    parts: Mapping[tuple[Source, str], Weights]
    working: int
    own: frozenset[str] = frozenset()

    def total(self, quantization: Quantization, width: int = 2) -> int:
        """The bytes of all weights."""
        return sum(p.bytes_in(quantization, width) for p in self.parts.values())

    def largest(self, quantization: Quantization, width: int = 2) -> int:
        """The bytes of the largest component."""
        return max(p.bytes_in(quantization, width) for p in self.parts.values())

    def named(self, name: str, quantization: Quantization, width: int = 2) -> int:
        """The bytes of the components called ``name``."""
        found = (part for (_, own), part in self.parts.items() if own == name)
        return sum(part.bytes_in(quantization, width) for part in found)

    def largest_layer(self, width: int = 2) -> int:
        """The bytes of the largest single layer."""
        return max(part.largest for part in self.parts.values()) * width


def footprint_of(info: ModelInfo) -> Footprint | None:
    """What ``info`` takes; None where a checkpoint is not here and not known."""
    parts: dict[tuple[Source, str], Weights] = {}
    working = 0
    files = own_files(info)
    for source in info.sources:
        described = describe(source)
        if described is None:
            return None
        own, folder = source == info.base_model, present_folder(source)
        for name, (kind, config) in described.items():
            if name in info.skip_blocks or (not own and name in info.shared_components):
                continue
            if own and name in files:
                continue
            parts[source, name] = weigh(name, kind, json.dumps(config))
            there = info.components.get(name) if own else None
            where = (
                there.path if isinstance(there, Folder) else folder and folder / name
            )
            if where and is_packed_folder(where):
                stored = sum(f.stat().st_size for f in where.glob("*.safetensors"))
                parts[source, name] = replace(parts[source, name], stored=stored)
            working = max(working, _working_bytes(name, config, info))
    for name, (facts, prefix) in files.items():
        parts[info.base_model, name] = weigh_file(name, facts, prefix)
        config = config_of_file(name, facts, prefix)
        working = max(working, _working_bytes(name, config, info))
    return Footprint(parts, working, frozenset(files))


def describe(source: Source) -> dict[str, tuple[str, dict[str, Any]]] | None:
    """Class and configuration of each component with weights in ``source``."""
    folder = present_folder(source)
    if folder is not None and (found := _describe_folder(folder)):
        return found
    known = json.loads(_ARCHITECTURES.read_text(encoding="utf-8"))
    checkpoint = known["checkpoints"].get(str(source))
    if checkpoint is None or isinstance(source, Folder):
        return None
    return {name: tuple(known["parts"][part]) for name, part in checkpoint.items()}


@lru_cache(maxsize=256)
def weigh(name: str, kind: str, config: str) -> Weights:
    """The weights of component ``name``: class ``kind`` built from ``config``, JSON."""
    module = build_empty(kind, json.loads(config))
    linear = rows = largest = 0
    for path, layer in module.named_modules():
        own = sum(p.numel() for p in layer.parameters(recurse=False))
        largest = max(largest, own)
        if is_quantized_layer(path, layer):
            linear += layer.weight.numel()
            rows += layer.weight.shape[0]
    total = sum(p.numel() for p in module.parameters())
    quantizable = name in QUANTIZED and "CLIP" not in kind
    return Weights(linear, rows, total - linear, largest, quantizable)


def build_empty(kind: str, config: dict[str, Any]) -> torch.nn.Module:
    """A component of class ``kind`` on the meta device: shapes without memory."""
    module_name, _, class_name = kind.rpartition(".")
    component = getattr(importlib.import_module(module_name), class_name)
    with torch.device("meta"):
        if module_name.startswith("diffusers"):
            built: torch.nn.Module = component.from_config(config)
        else:
            built = component._from_config(component.config_class(**config))
    return built


def _describe_folder(folder: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for index_name in (CLASSIC_INDEX, MODULAR_INDEX):
        if not (folder / index_name).is_file():
            continue
        index = json.loads((folder / index_name).read_text(encoding="utf-8"))
        for name, entry in index.items():
            path = folder / name / "config.json"
            if isinstance(entry, list) and path.is_file():
                library = _LIBRARIES.get(entry[0], entry[0])
                config = json.loads(path.read_text(encoding="utf-8"))
                found[name] = (f"{library}.{entry[1]}", config)
    return found


# How pipelines' indexes name the modules of classes that no library exports.
_LIBRARIES = {"flux": "diffusers.pipelines.flux"}


def _working_bytes(name: str, config: Mapping[str, Any], info: ModelInfo) -> int:
    """What making a picture of the default size takes in this component, bfloat16."""
    width, height = info.sizes.default
    if info.native_size:
        width = height = info.native_size
    if name == "vae":
        channels = config.get("block_out_channels", (128, 256))
        return _VAE_TENSORS * int(max(channels[:2])) * width * height * 2
    if name == "transformer":
        heads = int(config.get("num_attention_heads", 24))
        inner = heads * int(config.get("attention_head_dim", 128))
        tokens = (width // 16) * (height // 16) + 512
        return _BLOCK_WIDTHS * inner * tokens * 2
    return 0
