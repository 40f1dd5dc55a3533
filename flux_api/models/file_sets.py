"""A model set over one file of weights, or one folder: FLUX_MODEL=/path."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from flux_api.errors import BadSetting
from flux_api.models.catalog import MODEL_INFO
from flux_api.models.checkpoints import identify_file
from flux_api.models.checks import check_model
from flux_api.models.headers import SUFFIXES, BadFile
from flux_api.models.info import ModelInfo, TaskName
from flux_api.models.sources import File, Folder, Repository, Source

_NOT_STATED = "not stated, see where the file is from"


def _dev(repository: str, guidance: float) -> ModelInfo:
    """FLUX.1 with guidance: what schnell does, in more steps."""
    schnell = MODEL_INFO["schnell"]
    tasks = {
        task: replace(
            defaults,
            num_inference_steps=28,
            guidance_scale=guidance,
            guidance_parameter="guidance_scale",
            max_sequence_length=512,
        )
        for task, defaults in schnell.tasks.items()
    }
    return replace(schnell, base_model=Repository(repository), tasks=tasks)


def _only(task: TaskName) -> ModelInfo:
    """FLUX.1's transformer that ``task`` has of its own."""
    flux1 = MODEL_INFO["flux1"]
    defaults = flux1.tasks[task]
    return replace(
        flux1,
        base_model=flux1.base_of(defaults),
        tasks={task: replace(defaults, base_model=None)},
        shared_components=(),
        lora_files={},
    )


FILE_SETS: dict[str, ModelInfo] = {
    "dev": _dev("black-forest-labs/FLUX.1-dev", 3.5),
    "krea": _dev("black-forest-labs/FLUX.1-Krea-dev", 4.5),
    "kontext": _only("edit"),
    "fill": _only("inpaint"),
    "schnell": MODEL_INFO["schnell"],
    "klein-4b": MODEL_INFO["klein-4b"],
    "klein-9b": MODEL_INFO["klein-9b"],
    "klein-9b-kv": MODEL_INFO["klein-9b-kv"],
    "klein-base-4b": MODEL_INFO["klein-base-4b"],
    "klein-base-9b": replace(
        MODEL_INFO["klein-base-4b"],
        base_model=Repository("black-forest-labs/FLUX.2-klein-base-9B"),
    ),
    "flux2-dev": MODEL_INFO["flux2-dev"],
}
"""What one transformer can be, by variant, with where the rest of it comes from."""


def is_path(text: str) -> bool:
    """Whether ``text`` names a file or folder, and no set."""
    return text.startswith(("/", "./", "../", "~")) or text.lower().endswith(SUFFIXES)


def name_of(path: Path) -> str:
    """What requests call the set over ``path``: nothing but its last part shows."""
    stem = path.stem if path.suffix.lower() in SUFFIXES else path.name
    name = re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._")
    return name[:64] or "model"


def set_of_path(
    text: str, like: str | None, components: Path | None
) -> tuple[str, ModelInfo]:
    """The set over the file or folder ``text``, with its name. ``like`` is the variant
    that it is where that is known better than the file says; ``components`` a folder in
    diffusers' layout for what is not in it. BadSetting says what is wrong."""
    try:
        path = Path(text).expanduser().absolute()
        if path.is_dir():
            return name_of(path), _of_folder(path, like)
        if not (path.exists() or path.is_symlink()):
            raise BadFile("is not there")
        facts = identify_file(path)
    except (BadFile, OSError, RuntimeError) as error:
        raise BadSetting(f"FLUX_MODEL={text!r}: it {error}") from None
    if "transformer" not in facts.components:
        raise BadSetting(f"FLUX_MODEL={text!r}: the file is {facts}, not a transformer")
    # Trainers often say nothing of what they started from: who has the file knows best.
    variant, why = (like, "FLUX_MODEL_LIKE") if like else (facts.variant, facts.why)
    info = _like(variant)
    base: Source = Folder(components) if components else info.base_model
    made = replace(
        info,
        base_model=base,
        components={"transformer": File(Folder(path.parent), path.name)},
        description=f"{path.name}: {facts.kind} {variant} ({why}), {facts.dtype}",
        licence=_NOT_STATED,
    )
    for mistake in check_model(made):
        raise BadSetting(f"FLUX_MODEL={text!r}: {mistake.lstrip('.')}")
    return name_of(path), made


def with_path(
    models: Mapping[str, ModelInfo],
    text: str,
    like: str | None,
    components: Path | None,
) -> tuple[str, dict[str, ModelInfo]]:
    """``models`` and the name among them that ``text`` means, a set's or a path; the
    set over a path is added to them."""
    if like is not None:
        _like(like)
    if not is_path(text):
        return text, dict(models)
    name, info = set_of_path(text, like, components)
    return name, {**models, name: info}


def _like(name: str) -> ModelInfo:
    name = "dev" if name == "flux1" else name
    if name not in FILE_SETS:
        known = ", ".join(FILE_SETS)
        raise BadSetting(f"FLUX_MODEL_LIKE={name!r}: one of {known}")
    return FILE_SETS[name]


def _of_folder(path: Path, like: str | None) -> ModelInfo:
    """A whole checkpoint in diffusers' layout."""
    index = _json(path / "model_index.json")
    if not index:
        raise BadFile("is a folder without model_index.json, diffusers' layout")
    variant, why = (like, "FLUX_MODEL_LIKE") if like else _variant_of(path, index)
    return replace(
        _like(variant),
        base_model=Folder(path),
        description=f"{path.name}: {variant} ({why}), a folder",
        licence=_NOT_STATED,
    )


def _variant_of(path: Path, index: Mapping[str, object]) -> tuple[str, str]:
    pipeline = str(index.get("_class_name"))
    config = _json(path / "transformer" / "config.json")
    heads = config.get("num_attention_heads")
    if pipeline == "Flux2KleinPipeline":
        size = "klein-9b" if heads == 32 else "klein-4b"
        if index.get("is_distilled") is False:
            size = size.replace("klein", "klein-base")
        return size, "its model_index.json"
    if pipeline == "FluxPipeline" and config.get("guidance_embeds") is False:
        return "schnell", "it has no guidance"
    found = {
        "Flux2KleinKVPipeline": "klein-9b-kv",
        "Flux2Pipeline": "flux2-dev",
        "FluxKontextPipeline": "kontext",
        "FluxFillPipeline": "fill",
        "FluxPipeline": "krea" if "krea" in path.name.lower() else "dev",
    }
    if pipeline not in found:
        raise BadFile(f"holds a {pipeline}, which is not supported")
    return found[pipeline], "its model_index.json"


def _json(file: Path) -> dict[str, object]:
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
