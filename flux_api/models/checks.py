"""What can be known to be wrong with a model set before anything is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from flux_api.models.checkpoints import identify_file
from flux_api.models.headers import BadFile
from flux_api.models.info import ModelInfo
from flux_api.models.sizes import SizeRules
from flux_api.models.sources import INDEXES, File, Folder

# The longest that fits counts: pipelines of a family take each other's checkpoints.
_FAMILIES = ("Flux3", "Flux2Klein", "Flux2", "FluxFill", "FluxPriorRedux", "Flux")
_PRIOR = "FluxPriorReduxPipeline"


def check_model(info: ModelInfo) -> Iterator[str]:
    """Each mistake as ``.key: what is wrong``."""
    yield from _check_sizes(info.sizes)
    for name, file in info.lora_files.items():
        yield from _check_file(f".loras.{name}", file)
    for name, part in info.components.items():
        if isinstance(part, File) and isinstance(part.source, Folder):
            yield from _check_component(name, part.source.path / part.name, info)
    if info.shared_components and info.base_model not in info.bases:
        yield (
            ".base_model: no task works with it, but all take components from it: give "
            "it here instead of for each task"
        )
    for task, defaults in info.tasks.items():
        source = info.base_of(defaults)
        key = f".tasks.{task}.base_model" if defaults.base_model else ".base_model"
        if isinstance(source, Folder):
            whole = info.takes_whole(source)
            yield from _check_family(key, source.path, defaults.pipeline, whole)
        if isinstance(defaults.prior, Folder):
            key = f".tasks.{task}.prior"
            yield from _check_family(key, defaults.prior.path, _PRIOR, True)


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


def _check_component(name: str, path: Path, info: ModelInfo) -> Iterator[str]:
    """Whether the file is what it is named for, by its header."""
    try:
        facts = identify_file(path)
    except BadFile as why:
        yield f".{name}: {str(path)!r} {why}"
        return
    if name not in facts.components:
        yield f".{name}: {str(path)!r} is {facts}, not a {name}"
        return
    for task in info.tasks.values():
        own = info.base_of(task) == info.base_model and name == "transformer"
        family = "FLUX.2" if task.pipeline.startswith("Flux2") else "FLUX.1"
        if own and facts.family != family:
            yield f".{name}: {str(path)!r} is {facts}; {task.pipeline} takes {family}"
            return


def _check_family(key: str, folder: Path, pipeline: str, whole: bool) -> Iterator[str]:
    """Whether the folder is for ``pipeline``; where the transformer comes from
    elsewhere it need not be ``whole``, and another of the same family does."""
    indexes = [folder / name for name in INDEXES if (folder / name).is_file()]
    if not indexes:
        yield f"{key}: there is no {INDEXES[0]} in {str(folder)!r}"
        return
    try:
        index = json.loads(indexes[0].read_text(encoding="utf-8"))
        saved = index.get("_class_name", pipeline)
        other = not is_of_family(saved, pipeline, whole=whole)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        yield f"{key}: {indexes[0].name} in {str(folder)!r} is not readable"
        return
    if other:
        yield (
            f"{key}: {str(folder)!r} holds a {saved}, which is of another family than "
            f"{pipeline}"
        )


def is_of_family(saved: str, pipeline: str, *, whole: bool) -> bool:
    """Whether a checkpoint ``saved`` by one pipeline is for another: of the same family
    where it is taken ``whole``, else of the same generation."""
    one, two = _family(saved), _family(pipeline)
    return one == two if whole else _generation(one) == _generation(two)


def _family(pipeline: str) -> str:
    return next((name for name in _FAMILIES if pipeline.startswith(name)), pipeline)


def _generation(family: str) -> str:
    return family[:5] if family[4:5].isdigit() else family[:4]
