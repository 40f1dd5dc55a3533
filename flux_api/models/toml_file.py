"""The file of the variable MODEL_INFO: model sets in TOML, over the shipped ones.

A table is a set. The name of a shipped one changes what it says; a new name starts
from the set called ``like``, or from nothing:

    [klein-4b]
    base_model = "/models/FLUX.2-klein-4B"

    [sketches]
    like = "klein-4b"
    loras.pencil = { source = "/models/loras", weight_name = "pencil.safetensors" }
    tasks.generate = { num_inference_steps = 6, loras = { pencil = 0.8 } }
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from flux_api.errors import BadSetting
from flux_api.core import Lora
from flux_api.models.info import (
    PIPELINES,
    LoraFile,
    ModelInfo,
    SizeRules,
    TaskName,
    TaskDefaults,
)
from flux_api.models.toml_values import (
    NAME,
    Check,
    Wrong,
    as_scalar,
    as_size,
    as_switch,
    as_table,
    as_text,
    as_texts,
    by_name,
    check_table,
    number,
    one_of,
    whole,
)

_DTYPES = ("bfloat16", "float16", "float32")


def load_models(
    path: Path | None, shipped: Mapping[str, ModelInfo]
) -> dict[str, ModelInfo]:
    """The ``shipped`` sets with those of the TOML file ``path`` over them; BadSetting
    names the key that is wrong."""
    models = dict(shipped)
    if path is None:
        return models
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadSetting(f"MODEL_INFO={str(path)!r}: {error}") from None
    for name, rows in table.items():
        try:
            models[name] = _model(name, rows, models)
        except Wrong as wrong:
            keys = ".".join([name, *reversed(wrong.keys)])
            raise BadSetting(f"MODEL_INFO={str(path)!r}: {keys}: {wrong}") from None
    return models


def _model(name: str, rows: Any, models: Mapping[str, ModelInfo]) -> ModelInfo:
    if not NAME.fullmatch(name):
        raise Wrong("expected a name of A-Z, a-z, 0-9, '.', '_' and '-'")
    rows = dict(as_table(rows))
    start = models.get(name)
    if "like" in rows:
        like = as_text(rows.pop("like"))
        if like not in models:
            raise Wrong(f"expected one of {', '.join(models)}", "like")
        start = models[like]
    changes = check_table(rows, _MODEL_KEYS)
    tasks = dict(start.tasks) if start else {}
    for task, row in changes.pop("tasks", {}).items():
        try:
            tasks[task] = _task(tasks.get(task), row)
        except Wrong as wrong:
            wrong.keys += [task, "tasks"]
            raise
    if start is None:
        if "base_model" not in changes:
            raise Wrong("missing", "base_model")
        if not tasks:
            raise Wrong("missing", "tasks")
        return ModelInfo(tasks=tasks, **_over(None, changes))
    return dataclasses.replace(start, tasks=tasks, **_over(start, changes))


def _over(start: ModelInfo | None, changes: dict[str, Any]) -> dict[str, Any]:
    """``changes`` with the tables among them laid over those of ``start``."""
    if "loras" in changes:
        changes["lora_files"] = {
            **(start.lora_files if start else {}),
            **changes.pop("loras"),
        }
    if "sizes" in changes:
        sizes = start.sizes if start else SizeRules()
        changes["sizes"] = dataclasses.replace(sizes, **changes["sizes"])
    return changes


def _task(start: TaskDefaults | None, row: dict[str, Any]) -> TaskDefaults:
    if start is not None:
        return dataclasses.replace(start, **row)
    for key in ("pipeline", "num_inference_steps"):
        if key not in row:
            raise Wrong("missing", key)
    return TaskDefaults(**row)


def _loras(value: Any) -> tuple[Lora, ...]:
    weights = by_name(number(-10, 10))(value)
    return tuple(Lora(name, weight) for name, weight in weights.items())


def _lora_file(value: Any) -> LoraFile:
    keys = {"source": as_text, "weight_name": as_text}
    found = check_table(as_table(value), keys)
    for key in keys:
        if key not in found:
            raise Wrong("missing", key)
    if not found["weight_name"].endswith(".safetensors"):
        raise Wrong("expected a .safetensors file", "weight_name")
    return LoraFile(**found)


_SIZE_KEYS: dict[str, Check] = {
    "multiple": whole(1, 512),
    "minimum": whole(16, 8192),
    "maximum": whole(16, 8192),
    "default": as_size,
    "max_pixels": whole(256, 2**26),
}
_TASK_KEYS: dict[str, Check] = {
    "pipeline": one_of(tuple(sorted(PIPELINES))),
    "num_inference_steps": whole(1, 200),
    "base_model": as_text,
    "prior": as_text,
    "guidance_scale": number(0, 100),
    "guidance_parameter": one_of(("guidance_scale", "true_cfg_scale")),
    "negative_prompt": as_switch,
    "strength": number(0, 1),
    "max_images": whole(1, 16),
    "max_sequence_length": whole(1, 8192),
    "prompt": as_text,
    "loras": _loras,
    "arguments": by_name(as_scalar),
}
_MODEL_KEYS: dict[str, Check] = {
    "base_model": as_text,
    "description": as_text,
    "licence": as_text,
    "native_size": whole(16, 8192),
    "shared_components": as_texts,
    "skip_blocks": as_texts,
    "dtype": by_name(one_of(_DTYPES)),
    "sizes": lambda value: check_table(as_table(value), _SIZE_KEYS),
    "loras": by_name(_lora_file),
    "tasks": by_name(
        lambda value: check_table(as_table(value), _TASK_KEYS), get_args(TaskName)
    ),
}
