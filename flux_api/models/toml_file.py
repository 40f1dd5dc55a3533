"""The file of the variable MODEL_INFO: model sets in TOML, over the shipped ones.

A table is a set. The name of a shipped one changes what it says; a new name starts
from the set called ``like``, or from nothing:

    [klein-4b]
    base_model = "~/models/FLUX.2-klein-4B"

    [sketches]
    like = "klein-4b"
    loras.pencil = { source = "./loras", weight_name = "pencil.safetensors" }
    tasks.generate = { num_inference_steps = 6, loras = { pencil = 0.8 } }
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from flux_api.core import Lora
from flux_api.errors import BadSetting
from flux_api.models.checks import check_model
from flux_api.models.file_sets import FILE_SETS, set_of_path
from flux_api.models.info import COMPONENTS, ModelInfo, TaskDefaults
from flux_api.models.near_names import did_you_mean
from flux_api.models.sizes import SizeRules
from flux_api.models.sources import File, Folder, Repository, Source, parse_source
from flux_api.models.toml_tables import (
    NAME,
    LoraTable,
    ModelTable,
    SizesTable,
    TaskTable,
)

logger = logging.getLogger(__name__)

NOT_STATED = "not stated, see the model's page"

_LONGEST_SHOWN = 200
_NAMES = "expected a name of A-Z, a-z, 0-9, '.', '_' and '-'"
# A table whose name would have to be in quotes for TOML, and is refused with them.
_ODD_TABLE = re.compile(r"^[ \t]*\[[^\]\"'\n]*[^\x00-\x7f]", re.MULTILINE)


def load_models(
    path: Path | None, shipped: Mapping[str, ModelInfo]
) -> dict[str, ModelInfo]:
    """The ``shipped`` sets with those of the TOML file ``path`` over them; BadSetting
    names the key that is wrong."""
    models = dict(shipped)
    if path is None:
        return models
    try:
        # Windows' editors begin a file with a byte order mark.
        text = path.read_text(encoding="utf-8-sig")
        tables = tomllib.loads(text)
    except OSError as error:
        raise BadSetting(f"MODEL_INFO={str(path)!r}: {error}") from None
    except UnicodeDecodeError:
        message = "it is not in UTF-8: save it as UTF-8"
        raise BadSetting(f"MODEL_INFO={str(path)!r}: {message}") from None
    # Tables in tables without end are a RecursionError.
    except (ValueError, RecursionError) as error:
        # The parser says that a bracket lacks, or which byte is none of a name's.
        why = f"{error}; {_NAMES}" if _ODD_TABLE.search(text) else error
        raise BadSetting(f"MODEL_INFO={str(path)!r}: no TOML: {why}") from None
    # Paths are relative to the file, wherever the server was started.
    beside = path.resolve().parent
    for name, table in tables.items():
        try:
            models[name] = _model(name, table, models, beside)
        except ValidationError as error:
            why = _describe(name, error.errors(include_url=False)[0])
        except ValueError as error:
            why = f"{name}{error}"
        else:
            continue
        raise BadSetting(f"MODEL_INFO={str(path)!r}: {why}")
    return models


def _model(
    name: str, table: Any, models: Mapping[str, ModelInfo], beside: Path
) -> ModelInfo:
    """ValueError where what is right in itself does not go together."""
    if not NAME.fullmatch(name):
        raise ValueError(f": {_NAMES}")
    # What the table does not set stays as it was, whatever the defaults here are.
    changes = ModelTable.model_validate(table).model_dump(exclude_unset=True)
    like = changes.pop("like", name)
    if "transformer" in changes and like != name:
        # What the file is, where it does not say so itself.
        models = {**FILE_SETS, **models}
    if like != name and like not in models:
        meant = did_you_mean(like, models)
        raise ValueError(f".like: expected one of {', '.join(models)}.{meant}")
    start = models.get(like)
    if start is None and "transformer" in changes:
        start = _of_file(changes, beside)
    tasks = dict(start.tasks) if start else {}
    for task, task_table in changes.pop("tasks", {}).items():
        tasks[task] = _task(task, tasks.get(task), task_table, beside)
    changes = _over(start, changes, beside)
    if start is not None:
        made = dataclasses.replace(start, tasks=tasks, **changes)
        if "licence" not in changes and _has_others(made, start):
            made = dataclasses.replace(made, licence=NOT_STATED)
    elif "base_model" not in changes:
        raise ValueError(".base_model: missing, or 'like' with the set that it is like")
    elif not tasks:
        raise ValueError(".tasks: missing")
    else:
        made = ModelInfo(tasks=tasks, **{"licence": NOT_STATED} | changes)
    for mistake in check_model(made):
        raise ValueError(mistake)
    return made


def _of_file(changes: Mapping[str, Any], beside: Path) -> ModelInfo | None:
    """What the transformer's file says that it is, where the table is like none; None
    where there is no such file here, and the table needs none."""
    found = _component("transformer", changes["transformer"], beside)
    if not isinstance(found, File) or not isinstance(found.source, Folder):
        if {"base_model", "tasks"} <= changes.keys():
            return None
        raise ValueError(
            ".like: missing; no file on this machine says what the transformer is"
        )
    try:
        return set_of_path(str(found.source.path / found.name), None, None)[1]
    except BadSetting as error:
        raise ValueError(f".transformer: {error.args[0].partition(': ')[2]}") from None


def _has_others(made: ModelInfo, start: ModelInfo) -> bool:
    """Whether one of its checkpoints is not of ``start``, nor a local copy by that
    name: the licence of ``start`` says nothing of it."""
    if made.components != start.components:
        return True
    known = {start.base_model, *start.sources}
    names = {str(source).rpartition("/")[2] for source in known}
    return any(
        source not in known
        and not (isinstance(source, Folder) and source.path.name in names)
        for source in (made.base_model, *made.sources)
    )


def _source(key: str, text: str, beside: Path) -> Source:
    try:
        source = parse_source(text, beside)
    except ValueError as error:
        raise ValueError(f".{key}: {error}, got {text!r}") from None
    if isinstance(source, File):
        raise ValueError(
            f".{key}: expected a folder or a Hub id in diffusers' layout, not the file "
            f"{text!r}"
        )
    kind = "folder" if isinstance(source, Folder) else "Hub repository"
    logger.info("MODEL_INFO: %s is the %s %s", key, kind, source)
    return source


def _component(key: str, text: str, beside: Path) -> Source | File:
    try:
        return parse_source(text, beside)
    except ValueError as error:
        more = ", or a file in one" if "expected" in str(error) else ""
        raise ValueError(f".{key}: {error}{more}, got {text!r}") from None


def _over(
    start: ModelInfo | None, changes: dict[str, Any], beside: Path
) -> dict[str, Any]:
    """``changes`` with the tables among them laid over those of ``start``."""
    if "base_model" in changes:
        changes["base_model"] = _source("base_model", changes["base_model"], beside)
    if "revision" in changes:
        base = changes.get("base_model", start and start.base_model)
        if not isinstance(base, Repository):
            raise ValueError(".revision: the base_model is not a Hub id")
        revision = changes.pop("revision")
        changes["base_model"] = dataclasses.replace(base, revision=revision)
    named = {name: changes.pop(name) for name in COMPONENTS if name in changes}
    if named:
        parts = {name: _component(name, text, beside) for name, text in named.items()}
        changes["components"] = {**(start.components if start else {}), **parts}
    if "loras" in changes:
        files = {
            name: File(
                _source(f"loras.{name}.source", file["source"], beside),
                file["weight_name"],
            )
            for name, file in changes.pop("loras").items()
        }
        changes["lora_files"] = {**(start.lora_files if start else {}), **files}
    if "sizes" in changes:
        sizes = changes["sizes"]
        if "default" in sizes:
            sizes["default"] = tuple(sizes["default"])
        own = start.sizes if start else SizeRules()
        changes["sizes"] = dataclasses.replace(own, **sizes)
    for key in changes.keys() & {"shared_components", "skip_blocks"}:
        changes[key] = tuple(changes[key])
    return changes


def _task(
    name: str, start: TaskDefaults | None, changes: dict[str, Any], beside: Path
) -> TaskDefaults:
    for key in changes.keys() & {"base_model", "prior"}:
        changes[key] = _source(f"tasks.{name}.{key}", changes[key], beside)
    takes = changes.get("guidance_parameter", start and start.guidance_parameter)
    if "guidance_scale" in changes and takes is None:
        raise ValueError(
            f".tasks.{name}.guidance_scale: guidance plays no part in this model; set "
            "guidance_parameter too where it does"
        )
    if "loras" in changes:
        weights = changes["loras"].items()
        changes["loras"] = tuple(Lora(lora, weight) for lora, weight in weights)
    if start is not None:
        return dataclasses.replace(start, **changes)
    for key in ("pipeline", "num_inference_steps"):
        if key not in changes:
            raise ValueError(f".tasks.{name}.{key}: missing")
    return TaskDefaults(**changes)


def _nearest(error: ErrorDetails) -> str:
    """The key that was meant instead, where one is near or has it as a part."""
    *path, key = map(str, error["loc"])
    tables: dict[str, type[BaseModel]] = {
        "sizes": SizesTable,
        "tasks": TaskTable,
        "loras": LoraTable,
    }
    table = tables[path[0]] if path else ModelTable
    near = difflib.get_close_matches(key, table.model_fields, n=1)
    near = near or [known for known in table.model_fields if key in known]
    return f"; did you mean {near[0]!r}?" if near else ";"


def _describe(name: str, error: ErrorDetails) -> str:
    """Where the first mistake is, and what would be right."""
    keys = ".".join([name, *(str(key) for key in error["loc"] if key != "[key]")])
    given = f", got {repr(error['input'])[:_LONGEST_SHOWN]}"
    match error["type"]:
        case "missing":
            return f"{keys}: missing"
        case "extra_forbidden":
            near = _nearest(error)
            return f"{keys}: unknown{near} docs/models.md lists what can be set"
        case "literal_error" if error["loc"][-1] == "[key]":
            return f"{keys}: unknown; expected one of {error['ctx']['expected']}"
        case "model_type":
            return f"{keys}: expected a table{given}"
        case "wrong":
            return f"{keys}: {error['msg']}{given}"
    return f"{keys}: {error['msg'].replace('Input should be', 'expected')}{given}"
