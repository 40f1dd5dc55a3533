"""A model set's row to ready diffusers pipelines over one set of components."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable
from typing import Any

import diffusers
import torch
import transformers

from flux_api.errors import FluxError
from flux_api.models import ModelInfo, Task

logger = logging.getLogger(__name__)


class ModelMissing(FluxError):
    """The weights are not where the set says; the message names the set's source."""


def quiet_libraries() -> None:
    """No progress bars and no warnings out of diffusers and transformers: some of them
    quote the prompt."""
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def choose_device() -> torch.device:
    """The accelerator that torch sees, else the CPU."""
    accelerator = torch.accelerator.current_accelerator()
    return accelerator if accelerator is not None else torch.device("cpu")


def load_pipelines(
    info: ModelInfo, device: torch.device, say: Callable[[str], None]
) -> dict[Task, Any]:
    """One pipeline for each task of ``info``, on ``device``; the tasks share every
    component (and so the memory). ModelMissing when there are no weights."""
    os.environ.setdefault("DIFFUSERS_DISABLE_REMOTE_CODE", "1")
    quiet_libraries()
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    pipelines: dict[Task, Any] = {}
    for task, row in info.tasks.items():
        pipeline_class = getattr(diffusers, row.pipeline)
        if pipelines:
            first = next(iter(pipelines.values()))
            pipelines[task] = share_components(first, pipeline_class)
            continue
        say(f"loading {info.base_model.rsplit('/', 1)[-1]} on {device.type}")
        try:
            pipeline = pipeline_class.from_pretrained(
                info.base_model, dtype=dtype, use_safetensors=True
            )
        except OSError as error:
            logger.debug("no weights", exc_info=error)
            raise ModelMissing("the weights are missing or damaged") from error
        pipelines[task] = pipeline.to(device)
    for pipeline in pipelines.values():
        pipeline.set_progress_bar_config(disable=True)
    return pipelines


def share_components(pipeline: Any, pipeline_class: Any) -> Any:
    """``pipeline_class`` over the very components of ``pipeline``; not ``from_pipe``,
    which casts them to float32 in place."""
    if type(pipeline) is pipeline_class:
        return pipeline
    taken = inspect.signature(pipeline_class.__init__).parameters
    return pipeline_class(
        **{name: part for name, part in pipeline.components.items() if name in taken}
    )
