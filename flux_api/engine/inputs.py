"""A request's pictures at the sizes at which they are worked with."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from PIL import Image

from flux_api.core import ImageRequest
from flux_api.images.fitting import Fit, contain, contain_mask, pad
from flux_api.models.info import ModelInfo, TaskDefaults

REFERENCE_SIDE = 64
REFERENCE_RATIO = 8
REFERENCE_PIXELS = 2048 * 2048
# What Kontext was trained with, and what FLUX.2's pipelines shrink references to.
MEGAPIXEL = 1024 * 1024
_OF_A_MEGAPIXEL = ("Flux2Pipeline", "Flux2KleinPipeline", "Flux2KleinKVPipeline")


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """``images`` and ``mask`` as the pipeline takes them; ``kept`` are the picture and
    the mask at the size delivered, where a mask keeps a part of it; ``fit`` is how the
    picture lies in the square that a model works at."""

    images: tuple[Image.Image, ...] = ()
    mask: Image.Image | None = None
    kept: tuple[Image.Image, Image.Image] | None = None
    fit: Fit | None = None


class InputCache:
    """The inputs of each request, made once for its n pictures, and gone with the
    request. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: WeakKeyDictionary[ImageRequest, Inputs] = WeakKeyDictionary()

    def get(self, request: ImageRequest, fit: Callable[[], Inputs]) -> Inputs:
        """The inputs of ``request``, made by ``fit`` where there are none yet."""
        with self._lock:
            found = self._made.get(request)
        if found is None:
            # Twice, where two threads ask at once for the first time: never so long a
            # wait for the pictures of another request.
            found = fit()
            with self._lock:
                self._made[request] = found
        return found


def fit_inputs(request: ImageRequest, info: ModelInfo, task: TaskDefaults) -> Inputs:
    """The inputs of ``request`` for ``task``: hundreds of milliseconds for a large
    photo, so not to be called by who holds the device."""
    if not request.images:
        return Inputs()
    first, mask, side = request.images[0], request.mask_image, info.native_size
    target = request.width, request.height
    fit = Fit(side, first.size) if side else None

    def fitted(image: Image.Image) -> Image.Image:
        """``image`` at the very size that is drawn, whole and in its own shape."""
        return contain(image, target) if fit is None else fit.onto_square(image)

    if mask is not None:
        kept = contain(first, target), contain_mask(mask, target)
        return Inputs((fitted(first),), fitted(mask), kept, fit)
    if task.prior is not None:
        # The prior has sizes of its own.
        return Inputs((first,), fit=fit)
    if task.strength is not None or side:
        return Inputs((fitted(first),), fit=fit)
    return Inputs(tuple(_as_reference(i, task.pipeline) for i in request.images))


def _as_reference(image: Image.Image, pipeline: str) -> Image.Image:
    """``image`` as ``pipeline``, the name of its class, would make it by itself, but
    in one go."""
    if pipeline == "FluxKontextPipeline":
        return as_reference(image, MEGAPIXEL)
    if pipeline not in _OF_A_MEGAPIXEL:
        return as_reference(image, REFERENCE_PIXELS)
    long, short = max(image.size), min(image.size)
    if short < REFERENCE_SIDE or long > REFERENCE_RATIO * short:
        image = as_reference(image, REFERENCE_PIXELS)
    return _within_megapixel(image)


def _within_megapixel(image: Image.Image) -> Image.Image:
    """As diffusers' Flux2ImageProcessor shrinks it: bit for bit, so that it finds
    nothing left to do."""
    width, height = image.size
    if width * height <= MEGAPIXEL:
        return image
    scale = math.sqrt(MEGAPIXEL / (width * height))
    size = int(width * scale), int(height * scale)
    return image.resize(size, Image.Resampling.LANCZOS)


def as_reference(image: Image.Image, most: int) -> Image.Image:
    """``image`` as pipelines take references: at most about ``most`` pixels, no side
    below 64 of them, no shape longer than 8:1 (padded)."""
    width, height = image.size
    long, short = max(width, height), min(width, height)
    # With its padding: of a line of a hundred bytes that would else be gigabytes.
    area = long * max(short, long / REFERENCE_RATIO)
    scale = max(1.0, REFERENCE_SIDE / short)
    scale = min(scale, math.sqrt(most / area))
    if scale != 1.0:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = image.resize(size, Image.Resampling.LANCZOS)
        long, short = max(size), min(size)
    least = max(REFERENCE_SIDE, math.ceil(long / REFERENCE_RATIO))
    if short >= least:
        return image
    target = max(image.width, least), max(image.height, least)
    offset = (target[0] - image.width) // 2, (target[1] - image.height) // 2
    return pad(image, target, offset)
