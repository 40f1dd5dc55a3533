"""What can be known to be wrong with a model set before anything is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from flux_api.models.info import ModelInfo, SizeRules
from flux_api.models.sources import File, Folder

INDEXES = ("model_index.json", "modular_model_index.json")
# The longest that fits counts: pipelines of a family take each other's checkpoints.
_FAMILIES = ("Flux3", "Flux2Klein", "Flux2", "FluxFill", "FluxPriorRedux", "Flux")
_PRIOR = "FluxPriorReduxPipeline"


def check_model(info: ModelInfo) -> Iterator[str]:
    """Each mistake as ``.key: what is wrong``."""
    yield from _check_sizes(info.sizes)
    for name, file in info.lora_files.items():
        yield from _check_file(f".loras.{name}", file)
    for task, defaults in info.tasks.items():
        source = info.base_of(defaults)
        key = f".tasks.{task}.base_model" if defaults.base_model else ".base_model"
        if isinstance(source, Folder):
            yield from _check_family(key, source.path, defaults.pipeline)
        if isinstance(defaults.prior, Folder):
            key = f".tasks.{task}.prior"
            yield from _check_family(key, defaults.prior.path, _PRIOR)


def _check_sizes(sizes: SizeRules) -> Iterator[str]:
    for name in ("minimum", "maximum"):
        if getattr(sizes, name) % sizes.multiple:
            yield f".sizes.{name}: expected a multiple of {sizes.multiple}"
    width, height = sizes.default
    if not (sizes.allows(width) and sizes.allows(height)):
        yield f".sizes.default: {width}x{height} is not among {sizes}"
    elif width * height > sizes.max_pixels:
        yield f".sizes.default: {width}x{height} is more than max_pixels"


def _check_file(key: str, file: File) -> Iterator[str]:
    if isinstance(file.source, Folder) and not (file.source.path / file.name).is_file():
        where = str(file.source.path)
        yield f"{key}.weight_name: there is no {file.name!r} in {where!r}"


def _check_family(key: str, folder: Path, pipeline: str) -> Iterator[str]:
    indexes = [folder / name for name in INDEXES if (folder / name).is_file()]
    if not indexes:
        yield f"{key}: there is no {INDEXES[0]} in {str(folder)!r}"
        return
    try:
        index = json.loads(indexes[0].read_text(encoding="utf-8"))
        saved = index.get("_class_name", pipeline)
        other = _family(saved) != _family(pipeline)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        yield f"{key}: {indexes[0].name} in {str(folder)!r} is not readable"
        return
    if other:
        yield (
            f"{key}: {str(folder)!r} holds a {saved}, which is of another family than "
            f"{pipeline}"
        )


def _family(pipeline: str) -> str:
    return next((name for name in _FAMILIES if pipeline.startswith(name)), pipeline)
