"""A picture's request in a pipeline's words, and the picture on its way back."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Collection
from typing import Any

import torch
from PIL import Image

from flux_api.core import ImageRequest, ImageResult, Preview
from flux_api.engine.inputs import Inputs, fit_inputs
from flux_api.images.fitting import Fit, composite, contain
from flux_api.loading.placement import is_modular
from flux_api.models.info import ModelInfo, TaskDefaults
from flux_api.queue.tasks import Callbacks

PREVIEW_SIDE = 256


class PipelineCall:
    """One picture of a request in a pipeline's words, and its way back: the place
    where native and asked-for sizes meet. ``inputs`` are the request's pictures at
    their sizes; without them they are made here."""

    def __init__(
        self,
        request: ImageRequest,
        info: ModelInfo,
        defaults: TaskDefaults,
        seed: int,
        *,
        inputs: Inputs | None = None,
    ) -> None:
        self._request, self._defaults, self._seed = request, defaults, seed
        self._inputs = inputs or fit_inputs(request, info, defaults)
        self._side = info.native_size
        self.base_model = info.base_of(defaults)

    def check_of(self, pipeline: Any, callbacks: Callbacks) -> Callable[[], None]:
        """What to call before each forward: it raises when nobody waits any more, and
        counts the steps of a modular pipeline, which has no callback for them."""
        if not is_modular(pipeline):
            return callbacks.check
        forwards = itertools.count()
        total = self._request.num_inference_steps

        def check() -> None:
            if done := next(forwards):
                callbacks.on_step(done, total)
            else:
                callbacks.check()

        return check

    def prepare(self, pipeline: Any, prior: Any = None) -> dict[str, Any]:
        """The arguments of ``pipeline.__call__``, with a fresh generator. A ``prior``
        makes the prompt's embeddings out of the input picture."""
        request, defaults = self._request, self._defaults
        width, height = self._size
        kwargs: dict[str, Any] = {
            "prompt": request.prompt or defaults.prompt,
            "num_inference_steps": request.num_inference_steps,
            "width": width,
            "height": height,
            # On the CPU a seed gives the same noise whatever the device is.
            "generator": torch.Generator("cpu").manual_seed(self._seed),
            "max_sequence_length": text_length(pipeline, defaults),
        }
        accepted = parameters_of(pipeline)
        if defaults.guidance_parameter is not None:
            kwargs[defaults.guidance_parameter] = request.guidance_scale
        elif "guidance_scale" in accepted and defaults.guidance_scale is not None:
            # The pipelines' own defaults are those of undistilled models.
            kwargs["guidance_scale"] = defaults.guidance_scale
        if defaults.negative_prompt:
            kwargs["negative_prompt"] = request.negative_prompt or ""
        if request.strength is not None and "strength" in accepted:
            kwargs["strength"] = request.strength
        kwargs |= self._picture_kwargs(pipeline, prior, kwargs)
        if prior is not None:
            # Its embeddings are among the prior's.
            del kwargs["prompt"]
        return kwargs | dict(defaults.arguments)

    @property
    def _size(self) -> tuple[int, int]:
        """(width, height) in pixels that the pipeline works at."""
        if self._side:
            return self._side, self._side
        return self._request.width, self._request.height

    def _picture_kwargs(
        self, pipeline: Any, prior: Any, kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        inputs = self._inputs
        if not inputs.images:
            return {}
        first = inputs.images[0]
        if prior is not None:
            return dict(prior(image=first, prompt=kwargs["prompt"]))
        if inputs.mask is not None:
            return {"image": first, "mask_image": inputs.mask}
        found: dict[str, Any] = {}
        found["image"] = list(inputs.images) if len(inputs.images) > 1 else first
        if type(pipeline).__name__ == "FluxKontextPipeline":
            # It would otherwise scale both input and output to a megapixel.
            area = self._size[0] * self._size[1]
            found |= {"max_area": area, "_auto_resize": False}
        return found

    def deliver(self, image: Image.Image, seed: int) -> ImageResult:
        """``image`` at the size asked for; outside a mask, the input's own pixels."""
        request = self._request
        target = request.width, request.height
        native = image.size if self._side else None
        if self._inputs.fit is not None:
            image = self._inputs.fit.from_square(image, target)
        elif image.size != target:
            image = contain(image, target)
        if self._inputs.kept is not None:
            image = composite(image, *self._inputs.kept)
        return ImageResult(image, seed, native)

    @property
    def token_grid(self) -> tuple[int, int]:
        """The picture's (width, height) in tokens of 16x16 pixels."""
        request = self._request
        width, height = self._side or request.width, self._side or request.height
        return width // 16, height // 16

    def preview(self, image: Image.Image) -> Preview:
        """``image``, drawn of the whole native picture, in the shape asked for, at most
        ``PREVIEW_SIDE`` pixels on its longer side."""
        request = self._request
        scale = min(1.0, PREVIEW_SIDE / max(request.width, request.height))
        target = (
            max(1, round(request.width * scale)),
            max(1, round(request.height * scale)),
        )
        fit = self._inputs.fit
        box = None if fit is None else Fit(image.width, fit.size).box
        return Preview(image, box, target)


def parameters_of(pipeline: Any) -> Collection[str]:
    """The names of what ``pipeline.__call__`` takes."""
    if is_modular(pipeline):
        return [parameter.name for parameter in pipeline.blocks.inputs]
    call: Callable[..., Any] = type(pipeline).__call__
    return _parameters_of(call)


@functools.cache
def _parameters_of(call: Callable[..., Any]) -> Collection[str]:
    return inspect.signature(call).parameters


def text_length(pipeline: Any, defaults: TaskDefaults) -> int:
    """How many tokens of the prompt are read: of FLUX.1's two tokenizers the second
    counts, the first is cut at 77 anyway."""
    tokenizer = getattr(pipeline, "tokenizer_2", None) or pipeline.tokenizer
    longest = getattr(tokenizer, "model_max_length", defaults.max_sequence_length)
    return int(min(longest, defaults.max_sequence_length))
