"""A picture's request in a pipeline's words, and the picture on its way back."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from flux_api.core import ImageRequest, ImageResult
from flux_api.fitting import Fit, composite, contain
from flux_api.models import ModelInfo, TaskInfo

PREVIEW_SIDE = 256


class PipelineCall:
    """One picture of a request in a pipeline's words, and its way back: the place
    where native and asked-for sizes meet."""

    def __init__(
        self, request: ImageRequest, info: ModelInfo, row: TaskInfo, seed: int
    ) -> None:
        self._request, self._row, self._seed = request, row, seed
        self._side = info.native_size
        self._fit: Fit | None = None
        if self._side and request.images:
            self._fit = Fit(self._side, request.images[0].size)

    def kwargs(self, pipeline: Any) -> dict[str, Any]:
        """The arguments of ``pipeline.__call__``, with a fresh generator."""
        request, row = self._request, self._row
        size = (self._side, self._side) if self._side else None
        width, height = size or (request.width, request.height)
        kwargs: dict[str, Any] = {
            "prompt": request.prompt,
            "num_inference_steps": request.num_inference_steps,
            "width": width,
            "height": height,
            "generator": torch.Generator("cpu").manual_seed(self._seed),
        }
        if row.guidance_parameter is not None:
            kwargs[row.guidance_parameter] = request.guidance_scale
        if row.negative_prompt:
            kwargs["negative_prompt"] = request.negative_prompt or ""
        if request.strength is not None:
            kwargs["strength"] = request.strength
        if request.images:
            kwargs["image"] = self._fitted(request.images[0])
        if request.mask_image is not None:
            kwargs["mask_image"] = self._fitted(request.mask_image)
        if type(pipeline).__name__ == "FluxKontextPipeline":
            # It would otherwise scale both input and output to a megapixel.
            kwargs |= {"max_area": width * height, "_auto_resize": False}
        longest = getattr(pipeline.tokenizer, "model_max_length", 512)
        kwargs["max_sequence_length"] = min(longest, 512)
        return kwargs

    def deliver(self, image: Image.Image, seed: int) -> ImageResult:
        """``image`` at the size asked for; outside a mask, the input's own pixels."""
        request = self._request
        target = request.width, request.height
        native = image.size if self._side else None
        if self._fit is not None:
            image = self._fit.from_square(image, target)
        elif image.size != target:
            image = contain(image, target)
        if request.mask_image is not None:
            image = composite(
                image,
                contain(request.images[0], target),
                contain(request.mask_image, target),
            )
        return ImageResult(image, seed, native)

    @property
    def token_grid(self) -> tuple[int, int]:
        """The picture's (width, height) in tokens of 16x16 pixels."""
        request = self._request
        width, height = self._side or request.width, self._side or request.height
        return width // 16, height // 16

    def deliver_preview(self, image: Image.Image) -> Image.Image:
        """``image``, a preview of the whole native picture, in the shape asked for, at
        most ``PREVIEW_SIDE`` pixels on its longer side."""
        request = self._request
        scale = min(1.0, PREVIEW_SIDE / max(request.width, request.height))
        target = (
            max(1, round(request.width * scale)),
            max(1, round(request.height * scale)),
        )
        if self._fit is not None:
            return Fit(image.width, self._fit.size).from_square(image, target)
        return contain(image, target)

    def _fitted(self, image: Image.Image) -> Image.Image:
        return image if self._fit is None else self._fit.onto_square(image)
