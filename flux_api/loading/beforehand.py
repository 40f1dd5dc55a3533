"""What can be known of a set before another one is unloaded for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from flux_api.loading.components import module_classes
from flux_api.loading.device import bytes_of
from flux_api.loading.folder_parts import check_weights
from flux_api.loading.footprint import GIB, footprint_of
from flux_api.loading.host_memory import all_host_bytes
from flux_api.loading.own_parts import own_parts
from flux_api.loading.placement import Placement
from flux_api.models.checks import is_of_family
from flux_api.models.headers import BadFile, read_header
from flux_api.models.hub import (
    CLASSIC_INDEX,
    MODULAR_INDEX,
    ModelMissing,
    Report,
    fetch_base,
    fetch_modular,
    read_index,
)
from flux_api.models.info import ModelInfo, TaskName
from flux_api.models.sources import Folder, Source
from flux_api.settings import Settings

# What a prior takes from the pipeline that it is for.
_TEXTS = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")


def check_files(info: ModelInfo, task: TaskName, report: Report) -> None:
    """Have all files of ``task`` on this machine, downloaded where they are not, and
    look at them without loading any. ModelMissing says what is missing or damaged, or
    that they are of another family."""
    defaults = info.tasks[task]
    source = info.base_of(defaults)
    if defaults.pipeline.endswith("ModularPipeline"):
        _, index = read_index(source, MODULAR_INDEX, report)
        places = fetch_modular(source, set(index) - set(info.skip_blocks), report)
        names = [name for name in module_classes(index) if name in places]
        parts = [(name, *places[name]) for name in names]
        _check_weights(source, {name: root / below for name, root, below in parts})
    else:
        own_base = source == info.base_model
        shared = () if own_base else info.shared_components
        index = _check_classic(info, source, shared, report)
        if shared:
            # These come from the set's own, for all its bases.
            without = [n for n in ("transformer", "scheduler") if n not in shared]
            _check_classic(info, info.base_model, without, report)
        if defaults.prior is not None:
            _check_classic(info, defaults.prior, _TEXTS, report)
    saved = str(index.get("_class_name", defaults.pipeline))
    if not is_of_family(saved, defaults.pipeline, whole=info.takes_whole(source)):
        message = f"{source} holds a {saved}, of another family than it should"
        raise ModelMissing(message)


def _check_classic(
    info: ModelInfo, source: Source, without: Collection[str], report: Report
) -> dict[str, Any]:
    """The index of ``source``, whose components but ``without`` are looked at."""
    own = own_parts(info, report) if source == info.base_model else {}
    own = {name: part for name, part in own.items() if name not in without}
    root = fetch_base(source, without, report, described=own)
    _, index = read_index(Folder(root), CLASSIC_INDEX, report)
    names = [name for name in module_classes(index) if name not in (*own, *without)]
    folders = {name: root / name for name in names}
    folders |= {name: part for name, part in own.items() if isinstance(part, Path)}
    _check_weights(source, folders)
    return index


def _check_weights(source: Source, folders: Mapping[str, Path]) -> None:
    """Whether the components of ``source`` in ``folders`` have files that are whole."""
    for name, folder in folders.items():
        try:
            for file in check_weights(folder, name):
                read_header(folder / file)
        except ModelMissing as missing:
            raise ModelMissing(f"{source}: {missing.message}") from None
        except BadFile as why:
            raise ModelMissing(f"{source}: {file} of the {name} {why}") from None


def check_memory(
    name: str, info: ModelInfo, task: TaskName, settings: Settings, device: torch.device
) -> None:
    """ModelMissing where all memory of this machine would not hold the weights of
    ``task``, whatever else is unloaded."""
    defaults = info.tasks[task]
    needed = footprint_of(replace(info, tasks={task: defaults}))
    if needed is None:
        return
    quantization = info.quantization or settings.quantization
    if quantization is None:
        # What is chosen by the free memory may be as small as this.
        chosen = device.type == "cuda" and settings.memory == "auto"
        quantization = "nf4" if chosen else "none"
    width = Placement(device, quantization).dtype.itemsize
    weights, there = needed.total(quantization, width), all_host_bytes()
    if device.type == "cuda":
        there += bytes_of(device)[1]
    if weights > there:
        raise ModelMissing(
            f"{name} has {weights / GIB:.1f} GiB of weights, and this machine "
            f"{there / GIB:.1f} GiB of memory; 'flux-api doctor' says what fits"
        )
