"""A LoRA's file to changes of layers: every tensor of it is used, or it is refused."""

from __future__ import annotations

import json
import logging
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open

from flux_api.loading.lora_layers import known_layers, known_norms
from flux_api.loading.lora_module import (
    LayerChange,
    LoraModule,
    Tensors,
    norm_change,
)
from flux_api.models.lora_files import refusal
from flux_api.models.lora_keys import KeyRefused, find_layer, parse_key

logger = logging.getLogger(__name__)

# A whole difference of the largest layer that there is, FLUX.2 dev's, has 0.34e9.
_MOST_NUMBERS = 2**29
_MOST_CONFIG = 2**20
# With all layers of the transformer and of both text encoders a file has 4,000.
_MOST_TENSORS = 20_000
# Each is compared with each layer, of which no transformer has a thousand.
_MOST_PATTERNS = 2000
# What PEFT calls the alphas of the adapters that are read.
_TYPES = {"LORA": "lora_alpha", "LOHA": "alpha", "LOKR": "alpha"}
# Ways to begin a training at which PEFT changes the base, too.
_OTHER_BASE = ("pissa", "corda", "olora", "loftq", "lora_ga")
# Nothing of the pictures depends on these layers.
_WITHOUT_EFFECT = ("text_projection",)


def read_lora(
    path: Path, name: str, components: Mapping[str, torch.nn.Module]
) -> list[LayerChange]:
    """The changes that the file makes to layers of ``components``. InvalidRequest names
    the first layer or format that cannot be applied: nothing is left out in silence."""
    try:
        with safe_open(path, framework="pt") as file:
            keys = file.keys()
            if len(keys) > _MOST_TENSORS:
                raise KeyRefused(f"has {len(keys)} tensors, more than any LoRA")
            modules, embeddings = _group(keys)
            reader = _Reader(components, _Alphas(file, path))
            for (component, layer), parts in modules.items():
                read = {part: _read(file, key, part) for part, key in parts.items()}
                reader.add(component, layer, read, next(iter(parts.values())))
    except KeyRefused as why:
        raise refusal(name, str(why)) from None
    unused, changes = reader.unused, reader.changes
    if embeddings:
        logger.warning("LoRA %s: its embeddings are not used: %s", name, embeddings[0])
    if unused:
        logger.warning("LoRA %s: %d layers have no effect", name, len(unused))
    if not changes:
        raise refusal(name, "holds no LoRA weights")
    logger.info(
        "LoRA %s: %d layers in the file, %d of the model changed",
        *(name, len(modules), len(changes)),
    )
    return changes


def _group(
    keys: Iterable[str],
) -> tuple[dict[tuple[str, str], dict[str, str]], list[str]]:
    """Component and layer to the layer's tensors by kind, each with its key; and the
    keys of embeddings."""
    modules: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    embeddings = []
    for key in keys:
        parsed = parse_key(key)
        if parsed is None:
            embeddings.append(key)
            continue
        parts = modules[parsed.component, parsed.layer]
        if parsed.part in parts:
            raise KeyRefused(f"holds both {parts[parsed.part]!r} and {key!r}")
        parts[parsed.part] = key
    return modules, embeddings


def _read(file: Any, key: str, part: str) -> torch.Tensor:
    numbers = math.prod(file.get_slice(key).get_shape())
    if numbers > _MOST_NUMBERS:
        raise KeyRefused(f"does not fit this model: {numbers} numbers in {key!r}")
    tensor: torch.Tensor = file.get_tensor(key)
    if part in ("alpha", "scalar"):
        # Some tools write the rank's own number.
        tensor = tensor.float()
    if not tensor.is_floating_point():
        raise KeyRefused(f"has whole numbers where weights belong, in {key!r}")
    # A copy, as the file may be written over; and 8 bits are for storage alone.
    wide = torch.bfloat16 if tensor.element_size() == 1 else tensor.dtype
    copy = tensor.to(wide, copy=True)
    # A sum is not finite where a number is not.
    if not bool(torch.isfinite(copy.sum(dtype=torch.float32))):
        what = "an alpha that is not above 0" if part == "alpha" else "NaN"
        raise KeyRefused(f"has {what}, in {key!r}")
    # A convolution of one pixel is a matrix.
    while copy.dim() > 2 and copy.shape[-1] == 1:
        copy = copy.squeeze(-1)
    return copy


def _check_without_effect(
    read: Tensors, key: str, component: str, components: Mapping[str, torch.nn.Module]
) -> None:
    """KeyRefused unless the layer, which the model lacks, would change nothing: tools
    write zeros for what was not trained."""
    encoded = component != "transformer" and component in components
    if encoded and any(word in key for word in _WITHOUT_EFFECT):
        return
    last = [part for part in ("up", "lokr_w2", "diff", "diff_b") if part in read]
    if last and not any(bool(read[part].any()) for part in last):
        return
    if component not in components:
        raise KeyRefused(f"does not fit this model: it has no {component} for {key!r}")
    raise KeyRefused(f"does not fit this model: it has no layer for {key!r}")


class _Reader:
    """Gathers the ``changes`` to layers of ``components``, and the keys of layers that
    are ``unused``."""

    def __init__(
        self, components: Mapping[str, torch.nn.Module], alphas: _Alphas
    ) -> None:
        self.changes: list[LayerChange] = []
        self.unused: list[str] = []
        self._components, self._alphas = components, alphas
        self._layers = {part: known_layers(one) for part, one in components.items()}
        self._norms = {part: known_norms(one) for part, one in components.items()}
        self._seen: set[tuple[str, str]] = set()

    def add(self, component: str, layer: str, read: Tensors, key: str) -> None:
        """What the tensors ``read``, of ``key`` and its like, change in the layer that
        is written ``layer``."""
        if found := find_layer(layer, self._layers.get(component, {})):
            targets = self._layers[component][found]
            parsed = LoraModule(key, read, targets, self._components[component])
            self._alphas.apply(component, parsed, key)
            for target in targets:
                self._note(component, target.path, key)
            self.changes += parsed.changes()
        elif found := find_layer(layer, self._norms.get(component, {})):
            path = self._norms[component][found]
            self._note(component, path, key)
            norm = self._components[component].get_submodule(path)
            self.changes.append(norm_change(key, read, cast(torch.nn.RMSNorm, norm)))
        else:
            _check_without_effect(read, key, component, self._components)
            self.unused.append(key)

    def _note(self, component: str, path: str, key: str) -> None:
        if (component, path) in self._seen:
            raise KeyRefused(f"names {path} twice, also in {key!r}")
        self._seen.add((component, path))


class _Alphas:
    """What PEFT says of the layers' scales: in the metadata of the ``opened`` file, or,
    where it saved a folder, in the file beside ``path``."""

    def __init__(self, opened: Any, path: Path) -> None:
        beside = path.with_name("adapter_config.json")
        # Such a folder is that of one component.
        self._alone = path.name == "adapter_model.safetensors" and beside.is_file()
        if self._alone:
            with beside.open("rb") as file:
                self._config = _config_of(file.read(_MOST_CONFIG), beside.name)
        else:
            text = (opened.metadata() or {}).get("lora_adapter_metadata", "{}")
            self._config = _config_of(text, "lora_adapter_metadata")
        # Once: they may be long, and are compared with each layer.
        self._patterns = {
            key: _endings(patterns or {})
            for key, patterns in self._config.items()
            if key.endswith("alpha_pattern")
        }

    def apply(self, component: str, module: LoraModule, key: str) -> None:
        """Give ``module``, the layer of ``key``, the alpha and the rule that are said
        for it."""
        names = (module.targets[0].path, key.rpartition(".lora_")[0])
        prefix = "" if self._alone else f"{component}."
        kind = str(self._config.get(f"{prefix}peft_type", "LORA"))
        if kind not in _TYPES:
            raise KeyRefused(f"is a PEFT adapter of the type {kind[:20]!r}")
        own = self._patterns.get(f"{prefix}alpha_pattern", {}).items()
        fitting = (
            alpha
            for ending, alpha in own
            if any(f".{name}".endswith(ending) for name in names)
        )
        alpha = next(fitting, self._config.get(f"{prefix}{_TYPES[kind]}"))
        begun = str(self._config.get(f"{prefix}init_lora_weights")).lower()
        if begun.startswith(_OTHER_BASE):
            raise KeyRefused(
                f"was trained over a base that PEFT's {begun[:20]!r} had changed; let "
                "PEFT convert it (path_initial_model_for_weight_conversion)"
            )
        module.stabilized = self._config.get(f"{prefix}use_rslora") is True
        if module.alpha is None and alpha is not None:
            if not isinstance(alpha, float):
                raise KeyRefused(f"has an alpha that is no number, for {key!r}")
            module.alpha = alpha
        if kind == "LOKR":
            module.rank = self._rank(prefix)

    def _rank(self, prefix: str) -> float:
        """That of all layers, which whole factors do not show."""
        rank = self._config.get(f"{prefix}r")
        own = self._config.get(f"{prefix}rank_pattern")
        if own or not isinstance(rank, float) or not rank > 0:
            raise KeyRefused("is a LoKr of PEFT without one rank for all layers")
        return rank


def _endings(patterns: Mapping[str, Any]) -> dict[str, Any]:
    """The alphas of ``patterns`` by how the names of their layers end."""
    if len(patterns) > _MOST_PATTERNS:
        raise KeyRefused(f"has {len(patterns)} alphas for layers of its own")
    found: dict[str, Any] = {}
    for pattern, alpha in patterns.items():
        # Of a regular expression no more than these is read.
        plain = pattern.replace("\\.", ".").lstrip("^").rstrip("$")
        if not re.fullmatch(r"[\w.]+", plain):
            raise KeyRefused(f"has an alpha for layers like {pattern[:100]!r}")
        found.setdefault(f".{plain}", alpha)
    return found


def _config_of(text: str | bytes, where: str) -> dict[str, Any]:
    try:
        # As floats, whatever their length.
        found = json.loads(text, parse_int=float)
        patterns = [v for k, v in found.items() if k.endswith("alpha_pattern")]
        if all(isinstance(one, dict | None) for one in patterns):
            return dict(found)
    except (ValueError, RecursionError, AttributeError):
        pass
    raise KeyRefused(f"has a configuration that cannot be read, {where}")
