"""Pictures out of diffusers pipelines: the backend that the manager drives."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from flux_api.core import ImageRequest, ImageResult
from flux_api.errors import InsufficientStorage, PipelineFailed
from flux_api.gate import Gate, Turn
from flux_api.jobs import ImageTask
from flux_api.loading import choose_device, load_pipelines
from flux_api.manager import BackendBroken
from flux_api.models import ModelInfo, Task
from flux_api.pipeline_call import PipelineCall

logger = logging.getLogger(__name__)


class DiffusersBackend:
    """The sets of ``models`` through stock diffusers pipelines; ``default`` is loaded
    at the start."""

    slots = 1

    def __init__(self, models: Mapping[str, ModelInfo], default: str) -> None:
        self._models = models
        self._default = default
        self._device = choose_device()
        self._turn = Turn(share=False)
        self._loaded: dict[str, dict[Task, Any]] = {}

    def load(self, say: Callable[[str], None]) -> None:
        """Load the default set; raises when it cannot."""
        self._pipelines(self._default, say)

    def admits(self, request: ImageRequest, running: Sequence[ImageRequest]) -> bool:
        """One picture at a time."""
        return not running

    def run(self, task: ImageTask) -> ImageResult:
        """One picture of ``task``: PipelineFailed when it is not fit to deliver,
        InsufficientStorage when the device's memory is too small."""
        request = task.job.request
        info = self._models[request.model]
        row = info.task(request.mode, masked=request.mask_image is not None)
        name: Task = "inpaint" if request.mask_image is not None else request.mode
        call = PipelineCall(request, info, row, request.seed_of(task.index))
        with self._turn.taken():
            pipeline = self._pipelines(request.model, logger.info)[name]
            kwargs = call.kwargs(pipeline)
            for attempt in (1, 2):
                pixels = self._call(pipeline, task, kwargs)
                if pixels is not None:
                    break
                logger.warning("job %s: no usable picture (%d)", task.job.id, attempt)
                kwargs = call.kwargs(pipeline)
        if pixels is None:
            raise PipelineFailed("The model made no usable picture.")
        return call.deliver(Image.fromarray(pixels), request.seed_of(task.index))

    def _pipelines(self, name: str, say: Callable[[str], None]) -> dict[Task, Any]:
        if name not in self._loaded:
            self._loaded[name] = load_pipelines(self._models[name], self._device, say)
        return self._loaded[name]

    def _call(
        self, pipeline: Any, task: ImageTask, kwargs: dict[str, Any]
    ) -> np.ndarray[Any, Any] | None:
        """The picture as uint8 (height, width, 3); None when it is NaN or all black."""

        def on_step_end(
            pipe: Any, step: int, _time: Any, tensors: dict[str, Any]
        ) -> dict[str, Any]:
            task.on_step(step + 1, pipe.num_timesteps)
            return tensors

        view = pipeline_view(pipeline, self._turn, task.check)
        failure: Exception | None = None
        try:
            output = view(
                **kwargs, output_type="pt", callback_on_step_end=on_step_end
            ).images
        except torch.OutOfMemoryError as error:
            failure = error.with_traceback(None)
        except torch.AcceleratorError as error:
            raise BackendBroken(type(error).__name__) from error
        finally:
            pipeline.maybe_free_model_hooks()
        if failure is not None:
            raise InsufficientStorage("This picture is too large for the memory.")
        return to_pixels(output[0])


def pipeline_view(pipeline: Any, turn: Turn, check: Callable[[], None]) -> Any:
    """``pipeline`` for one picture: the same components, a scheduler of its own, and a
    gate where its transformer stands."""
    view = copy.copy(pipeline)
    view.__dict__ = dict(pipeline.__dict__)
    view.scheduler = copy.deepcopy(pipeline.scheduler)
    object.__setattr__(view, "transformer", Gate(pipeline.transformer, turn, check))
    return view


def to_pixels(tensor: torch.Tensor) -> np.ndarray[Any, Any] | None:
    """uint8 (height, width, 3) of a (3, height, width) tensor in 0..1; None when it is
    not finite or nowhere above black."""
    tensor = tensor.float()
    if not bool(torch.isfinite(tensor).all()):
        return None
    pixels = (tensor * 255).round().clamp(0, 255).to(torch.uint8)
    if int(pixels.max()) == 0:
        return None
    array: np.ndarray[Any, Any] = pixels.permute(1, 2, 0).cpu().contiguous().numpy()
    return array
