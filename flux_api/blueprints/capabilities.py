"""What this server can do, and how it is doing: facts that no key is needed for."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from flux_api.core import LoadingProgress
from flux_api.errors import Unavailable
from flux_api.http.context import Context
from flux_api.http.lora_values import MAX_LORAS, MAX_WEIGHT
from flux_api.http.parameters import (
    FORMATS,
    MAX_PARTIAL_IMAGES,
    MAX_PROMPT_CHARACTERS,
    MAX_STEPS,
    MOST_IMAGES,
)
from flux_api.http.upscaling import MOST_SIDE
from flux_api.models.info import ModelInfo, TaskDefaults
from flux_api.models.known_words import known_words


def describe_capabilities(context: Context) -> dict[str, Any]:
    """The models with their tasks and sizes, LoRAs, formats and limits."""
    settings = context.settings
    return {
        "object": "capabilities",
        "default_model": settings.model,
        "auth": "key" if settings.api_keys else "none",
        "models": [_model(name, info) for name, info in context.models.items()],
        "loras": list_lora_names(context),
        "formats": list(FORMATS),
        "limits": {
            "max_images": MOST_IMAGES,
            "max_upload_bytes": settings.max_upload_bytes,
            "max_prompt_characters": MAX_PROMPT_CHARACTERS,
            "max_steps": MAX_STEPS,
            "max_loras": MAX_LORAS,
            "max_lora_weight": MAX_WEIGHT,
            "max_partial_images": MAX_PARTIAL_IMAGES,
            "max_upscaled_side": MOST_SIDE,
            "max_waiting": settings.max_queue,
            "keeps_results": settings.results_mb > 0,
        },
    }


def list_lora_names(context: Context) -> list[dict[str, str | None]]:
    """The LoRAs that a request may name; ``model`` says whose own it is, if any's."""
    own: list[dict[str, str | None]] = [
        {"id": name, "model": model}
        for model, info in context.models.items()
        for name in info.lora_files
    ]
    names: list[str] = []
    # A folder that is away for a moment hides its LoRAs, not all the rest.
    with suppress(Unavailable):
        names = sorted(context.lora_files)
    return own + [{"id": name, "model": None} for name in names]


def describe_status(context: Context) -> dict[str, Any]:
    """Whether requests are taken, and if not, why; how much is going on."""
    manager = context.manager
    reason = manager.not_ready
    return {
        "status": manager.state,
        "asleep": manager.asleep is not None,
        "weights": manager.asleep or "device",
        "reason": reason,
        "progress": _progress(reason),
        "model": context.settings.model,
        "running": manager.running,
        "waiting": manager.queue_depth,
        "memory": manager.memory,
    }


def _progress(reason: str | None) -> dict[str, Any] | None:
    """How far loading is, where it says so."""
    if not isinstance(reason, LoadingProgress):
        return None
    return {"done": reason.done, "total": reason.total, "unit": reason.unit}


def _model(name: str, info: ModelInfo) -> dict[str, Any]:
    sizes, words = info.sizes, known_words(info.base_model)
    about: dict[str, Any] = {
        "id": name,
        "description": info.description,
        "licence": info.licence,
        "demo": words is not None,
        "native_size": info.native_size,
        "sizes": {
            "multiple": sizes.multiple,
            "minimum": sizes.minimum,
            "maximum": sizes.maximum,
            "max_pixels": sizes.max_pixels,
            "default": list(sizes.default),
        },
        "tasks": {task: _task(defaults) for task, defaults in info.tasks.items()},
    }
    if words:
        about["examples"] = {lang: said["examples"] for lang, said in words.items()}
    return about


def _task(task: TaskDefaults) -> dict[str, Any]:
    honours = task.guidance_parameter is not None
    return {
        "num_inference_steps": task.num_inference_steps,
        "guidance_scale": task.guidance_scale if honours else None,
        "negative_prompt": task.negative_prompt,
        "max_input_images": task.max_images,
    }
