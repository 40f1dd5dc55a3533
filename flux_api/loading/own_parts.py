"""The components that a set takes from files and folders of its own."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from flux_api.loading.checkpoint_names import unused_names
from flux_api.loading.footprint import describe
from flux_api.loading.packed import is_packed
from flux_api.loading.placement import Placement
from flux_api.loading.quantization import QUANTIZED, SMALL, quantize
from flux_api.loading.single_files import load_component
from flux_api.models.checkpoints import CheckpointFacts, identify_file
from flux_api.models.file_sets import FILE_SETS
from flux_api.models.headers import BadFile
from flux_api.models.hub import ModelMissing, Report, fetch_file, fetch_files
from flux_api.models.info import ModelInfo
from flux_api.models.sources import File, Folder

logger = logging.getLogger(__name__)

_FAMILIES = {"FluxTransformer2DModel": "FLUX.1", "Flux2Transformer2DModel": "FLUX.2"}


@dataclass(frozen=True, slots=True)
class FilePart:
    """A component in a file: the tensors whose names begin with ``prefix``."""

    facts: CheckpointFacts
    prefix: str


def own_parts(info: ModelInfo, report: Report) -> dict[str, FilePart | Path]:
    """What the set ``info`` has of its own, by component: of an all-in-one file every
    component that nothing else is named for. ModelMissing says what a file is where it
    is not what it should be."""
    found: dict[str, FilePart | Path] = {}
    for name, source in info.components.items():
        if not isinstance(source, File):
            found[name] = fetch_files(source, ["*.json", "*.safetensors"], report)
            continue
        # A folder of this machine is nobody's business.
        local = isinstance(source.source, Folder)
        label = source.name if local else str(source)
        facts = identified(fetch_file(source, report), label)
        if name not in facts.components:
            raise ModelMissing(f"{label} is {facts}, and no {name}")
        for part, prefix in facts.parts_for(name, info.components):
            found[part] = FilePart(facts, prefix)
        logger.info("%s: %s is %s%s", name, label, facts, _because(facts))
        if left := unused_names(facts):
            logger.warning("%s: %d tensors are not used: %s", label, len(left), left[0])
    return found


def identified(path: Path, name: str) -> CheckpointFacts:
    """What the file is; ModelMissing, without its path, where it cannot be used."""
    try:
        stat = path.stat()
        return _identified(path, stat.st_mtime_ns, stat.st_size)
    except (BadFile, OSError) as why:
        text = str(why) if isinstance(why, BadFile) else "cannot be read"
        raise ModelMissing(f"{name} {text}") from None


@lru_cache(maxsize=64)
def _identified(path: Path, _modified: int, _size: int) -> CheckpointFacts:
    return identify_file(path)


def load_part(
    kind: Any,
    name: str,
    part: FilePart,
    config: Mapping[str, Any],
    dtype: torch.dtype,
    placement: Placement,
) -> torch.nn.Module:
    """The component ``name``, a ``kind``, out of its file. What the file has packed
    already is not quantized once more."""
    facts = part.facts
    expected = _FAMILIES.get(kind.__name__)
    if name == "transformer" and expected is not None and expected != facts.family:
        raise ModelMissing(f"the file is {facts}; this model takes one of {expected}")
    try:
        module = load_component(kind, config, facts, part.prefix, dtype)
    except ModelMissing as missing:
        raise ModelMissing(f"the file, {facts}: {missing.message}") from None
    wanted = placement.load_quantization(name)
    if wanted != "none" and name in QUANTIZED and kind.__name__ not in SMALL:
        if is_packed(module):
            logger.info("%s: %s is kept as it is", name, facts.dtype)
        else:
            quantize(module, wanted, placement.device)
    return module


def config_of(name: str, part: FilePart, folder: Path) -> dict[str, Any]:
    """The configuration of the component ``name`` in a file: that in the base's
    ``folder``, else that of its family, with what the file's shapes say."""
    file = folder / name / "config.json"
    if file.is_file():
        config: dict[str, Any] = json.loads(file.read_text("utf-8"))
    else:
        like = FILE_SETS.get(part.facts.variant)
        known = describe(like.base_model) if like else None
        if not known or name not in known:
            raise ModelMissing(f"there is no config.json of the {name}")
        config = dict(known[name][1])
    return config | dict(part.facts.config if name == "transformer" else {})


def scheduler_for(part: FilePart, scheduler: Any) -> Any:
    """``scheduler`` as the file's variant wants it: FLUX.1 with guidance shifts by the
    picture's size, schnell never does."""
    guided = part.facts.config.get("guidance_embeds")
    if guided is None or guided == scheduler.config.use_dynamic_shifting:
        return scheduler
    changes = {"use_dynamic_shifting": guided, "shift": 3.0 if guided else 1.0}
    return type(scheduler).from_config(scheduler.config, **changes)


def _because(facts: CheckpointFacts) -> str:
    return f" ({facts.why})" if facts.why else ""
