"""What a folder is: a whole checkpoint, one component of it, or files of weights."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

from flux_api.commands.model_table import table
from flux_api.errors import BadSetting
from flux_api.loading.beforehand import check_files
from flux_api.models.checkpoints import identify_file
from flux_api.models.file_sets import set_of_path
from flux_api.models.headers import SUFFIXES, BadFile
from flux_api.models.hub import CLASSIC_INDEX, MODULAR_INDEX, ModelMissing
from flux_api.models.info import ModelInfo

# A folder of downloads may hold hundreds, and each header is read.
_MOST_FILES = 50
# The class that a component was saved by -> what models call it, and one that has it.
_CLASSES = {
    "FluxTransformer2DModel": ("transformer", "dev"),
    "Flux2Transformer2DModel": ("transformer", "klein-4b"),
    "AutoencoderKL": ("vae", "flux1"),
    "AutoencoderKLFlux2": ("vae", "klein-4b"),
    "CLIPTextModel": ("text_encoder", "flux1"),
    "T5EncoderModel": ("text_encoder_2", "flux1"),
    "Qwen3ForCausalLM": ("text_encoder", "klein-4b"),
}


def examine_folder(path: Path, like: str | None) -> tuple[str, ModelInfo | None]:
    """A report on the folder at ``path``, and the model that it makes by itself, if
    any; BadSetting where nothing of it is known."""
    path = _snapshot(path)
    if (path / CLASSIC_INDEX).is_file():
        name, info = set_of_path(str(path), like, None)
        return "\n".join(_checkpoint_lines(path, name, info)), info
    if (path / MODULAR_INDEX).is_file():
        lines = [f"{path.name}: a modular pipeline, a folder"]
        return "\n".join([*lines, *table(path, "flux3-klein", "base_model")]), None
    found = [*_component_lines(path)] or [*_file_lines(path)]
    if not found:
        listed = f"no {CLASSIC_INDEX}, no component, no {' or '.join(SUFFIXES)} file"
        raise BadSetting(f"{path.name} holds no model: {listed}")
    return "\n".join(found), None


def _snapshot(path: Path) -> Path:
    """The newest snapshot where ``path`` is a repository in the Hub's cache."""
    snapshots = [p for p in (path / "snapshots").glob("*") if p.is_dir()]
    # Those of earlier commits stay in the cache.
    return max(snapshots, key=lambda p: p.stat().st_mtime, default=path)


def _checkpoint_lines(path: Path, name: str, info: ModelInfo) -> Iterator[str]:
    yield info.description
    yield (
        f"  FLUX_MODEL={shlex.quote(str(path.absolute()))} serves it as {name}: "
        f"{', '.join(info.tasks)}"
    )
    try:
        check_files(info, next(iter(info.tasks)), lambda _: None)
    except ModelMissing as missing:
        yield f"  it cannot be loaded: {missing.message}"


def _component_lines(path: Path) -> Iterator[str]:
    try:
        config = json.loads((path / "config.json").read_text("utf-8"))
        kind = config.get("_class_name") or config["architectures"][0]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return
    if kind in _CLASSES:
        name, like = _CLASSES[kind]
        yield f"{path.name}: a {kind}, one component of a model"
        yield from table(path, like, name)


def _file_lines(path: Path) -> Iterator[str]:
    """A line for each file of weights; doctor tells more of a single one."""
    files = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
    if files:
        yield f"{path.name}: a folder with {len(files)} files of weights"
    for file in files[:_MOST_FILES]:
        try:
            yield f"  {file.name}: {identify_file(file)}"
        except BadFile as why:
            yield f"  {file.name} {why}"
    if len(files) > _MOST_FILES:
        yield f"  and {len(files) - _MOST_FILES} more"
    if files:
        yield "  'flux-api doctor FILE' tells which model takes one of them"
