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

from flux_api.loading.activations import TEXT_PARTS, Working, working_of
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
# A LoRA of rank 64 on every layer of FLUX.1; of the files only the names are known.
_LORA = 700 << 20
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Footprint:
    """The components of a set by checkpoint and name, and the bytes that making one
    picture takes beside them. ``own`` names those that are in files of the set's,
    ``bases`` the checkpoints that have a transformer, ``shared`` what all of those have
    in common. ``streams`` says that text encoders can be read layer by layer."""

    parts: Mapping[tuple[Source, str], Weights]
    working: Working
    own: frozenset[str] = frozenset()
    bases: tuple[Source, ...] = ()
    shared: frozenset[str] = frozenset()
    loras: int = 0
    streams: bool = True

    def total(self, quantization: Quantization, width: int = 2) -> int:
        """The bytes of all weights."""
        return sum(p.bytes_in(quantization, width) for p in self.parts.values())

    def largest(self, quantization: Quantization, width: int) -> int:
        """The bytes of the largest component."""
        return max(p.bytes_in(quantization, width) for p in self.parts.values())

    def named(self, name: str, quantization: Quantization, width: int = 2) -> int:
        """The bytes of the components called ``name``."""
        return sum(self.named_each(name, width, quantization))

    def named_each(
        self, name: str, width: int, quantization: Quantization = "none"
    ) -> list[int]:
        """The bytes of each of the components called ``name``."""
        return [
            part.bytes_in(quantization, width)
            for (_, own), part in self.parts.items()
            if own == name
        ]

    def largest_layer(self, width: int) -> int:
        """The bytes of the largest single layer."""
        return max(part.largest for part in self.parts.values()) * width

    def of_bases(self, quantization: Quantization, width: int = 2) -> list[int]:
        """The bytes of what each checkpoint has for itself, the largest first."""
        sums = dict.fromkeys(self.bases, 0)
        for (source, name), part in self.parts.items():
            if source in sums and name not in self.shared | set(TEXT_PARTS):
                sums[source] += part.bytes_in(quantization, width)
        return sorted(sums.values(), reverse=True)

    def of_texts(self, quantization: Quantization, width: int = 2) -> list[int]:
        """The bytes of each text encoder."""
        return [
            size
            for name in TEXT_PARTS
            for size in self.named_each(name, width, quantization)
        ]

    def largest_text_layer(self, width: int) -> int:
        """The bytes of the largest layer of a text encoder."""
        parts = self.parts.items()
        found = (part.largest for (_, name), part in parts if name in TEXT_PARTS)
        return max(found, default=0) * width

    def of_priors(self, width: int = 2) -> int:
        """The bytes of what stands in front of a pipeline and is never moved."""
        return sum(
            part.bytes_in("none", width)
            for (source, _), part in self.parts.items()
            if source not in self.bases
        )


def footprint_of(info: ModelInfo) -> Footprint | None:
    """What ``info`` takes; None where a checkpoint is not here and not known."""
    parts: dict[tuple[Source, str], Weights] = {}
    configs: dict[str, tuple[str, Mapping[str, Any]]] = {}
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
            configs[name] = kind, config
    for name, (facts, prefix) in files.items():
        parts[info.base_model, name] = weigh_file(name, facts, prefix)
        kind = "Flux2Transformer2DModel" if facts.family == "FLUX.2" else ""
        configs[name] = kind, config_of_file(name, facts, prefix)
    return Footprint(
        parts,
        working_of(configs, info),
        frozenset(files),
        tuple(info.bases),
        frozenset(info.shared_components) if len(info.bases) > 1 else frozenset(),
        len(info.lora_files) * _LORA,
        not any("Modular" in defaults.pipeline for defaults in info.tasks.values()),
    )


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
    # The libraries' loaders leave these whole: T5's last matrix of each block.
    whole = set(getattr(module, "_keep_in_fp32_modules", None) or ())
    for path, layer in module.named_modules():
        own = sum(p.numel() for p in layer.parameters(recurse=False))
        largest = max(largest, own)
        if is_quantized_layer(path, layer) and whole.isdisjoint(path.split(".")):
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
