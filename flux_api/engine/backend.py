"""Pictures out of diffusers pipelines: the backend that the manager drives."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from flux_api.core import SEED_MODULUS, ImageRequest, ImageResult, Performance
from flux_api.engine.inputs import InputCache, Inputs, fit_inputs
from flux_api.engine.pipeline_call import PipelineCall
from flux_api.engine.prompt_cache import PromptCache
from flux_api.engine.quality import (
    Pixels,
    Quality,
    QualityGate,
    compare,
    draw_timed,
    quality_requests,
)
from flux_api.engine.shared_forward import ForwardBatcher, Gate
from flux_api.engine.steps import (
    clean_latents,
    decode,
    denoise,
    encode_prompt,
    first_call,
    tiled,
    to_pixels,
)
from flux_api.engine.trial import clock_of
from flux_api.engine.tuning import Aim, Tuned, Tuner
from flux_api.engine.upsampler import Upsampler
from flux_api.engine.upscaling import LARGEST_TILE, Upscale
from flux_api.engine.warm_up import warm_up_request
from flux_api.errors import Cancelled, InsufficientStorage, PipelineFailed, Unavailable
from flux_api.loading.device import (
    Pace,
    allocation_failures,
    first_line,
    free_memory,
    losses,
)
from flux_api.loading.model_sets import Loaded, ModelSets
from flux_api.loading.placement import Placement, choose_device
from flux_api.metrics.instruments import measured
from flux_api.models.info import ModelInfo, TaskName, task_name
from flux_api.queue.tasks import BackendBroken, Callbacks, Picture

logger = logging.getLogger(__name__)

PATCH = 16
# The large models pad every prompt to as many.
_TEXT_TOKENS = 512
# With those that take turns beside them 16 run at most, as gunicorn's threads allow.
_MOST_SLOTS = 13
# Less is what a desktop or a driver holds on any card.
_FOREIGN_MEMORY = 0.1
# Pixels of a side up to which a forward is mostly overhead.
_SMALL_SIDE = 256


class DiffusersBackend:
    """Run ``models`` with unmodified diffusers pipelines; ``default`` is loaded
    at the start. Pictures share forwards up to ``batch_tokens`` (image and text tokens
    in sum; None: from the default set's size on an accelerator, 0 on a CPU unless
    it pays where ``tuner`` may round). ``prompt_cache_bytes`` of encoded prompts are
    kept."""

    def __init__(
        self,
        models: Mapping[str, ModelInfo],
        default: str,
        *,
        batch_tokens: int | None = None,
        prompt_cache_bytes: int = 256 << 20,
        tuner: Tuner | None = None,
        sets: ModelSets | None = None,
    ) -> None:
        self._models = models
        self._default = default
        self._device = choose_device()
        self._batch_tokens = batch_tokens
        self._tuner = tuner or Tuner("exact", self._device)
        self._gate = QualityGate(self._tuner.verdicts)
        self._judged: Performance | None = None
        self._default_tuned = Tuned()
        self._batcher = ForwardBatcher()
        self.prompts = PromptCache(prompt_cache_bytes)
        self._inputs = InputCache()
        # What the device holds at the moment; None while that changes.
        self._weights: tuple[Hashable, ...] | None = None
        self.memory: dict[str, int] | None = None
        self.sets = sets or ModelSets(models, lambda *_: Placement(self._device))

    @property
    def performance(self) -> dict[str, str]:
        """How pictures of the default set are made, by the names of ``/readyz``."""
        tuned = self._default_tuned
        notes = {"performance_note": "; ".join(tuned.notes)} if tuned.notes else {}
        return {"performance": self._level(tuned)} | notes

    def _level(self, tuned: Tuned) -> Performance:
        """Sharing forwards is speed, too, where it is not what is usual."""
        shares = self._device.type == "cpu" and self._batch_tokens
        if tuned.level == "exact" and shares and self._tuner.wanted != "exact":
            return "speed"
        return tuned.level

    @property
    def asleep(self) -> bool:
        """Whether no set is in memory."""
        return not self.sets.names

    def sleep(self) -> None:
        """Drop every set."""
        with self._batcher.taken():
            self.sets.drop_all()
        self.memory = device_memory()

    @property
    def slots(self) -> int:
        """How many pictures may share forwards at once."""
        return _MOST_SLOTS if self._batch_tokens else 1

    @property
    def forwards(self) -> int:
        """How many transformer forwards have run."""
        return self._batcher.forwards

    def load(self, report: Callable[[str], None]) -> None:
        """Load the default set and draw with it once; raises when it cannot."""
        info = self._models[self._default]
        task = next(iter(info.tasks))
        if self._tuner.wanted == "max" and not self._gate.knows(
            "max", self._default, info
        ):
            self.judge(["max"], report)
        try:
            with measured("load"), losses(self._device):
                loaded = self.sets.use(self._default, report)
                loaded.load(task, info.tasks[task].loras, report)
        except torch.AcceleratorError as error:
            raise BackendBroken(first_line(error)) from error
        if self._batch_tokens is None:
            pays = self._device.type != "cpu" or pays_on_cpu(
                self._tuner.wanted, info.native_size
            )
            parameters = loaded.transformer_parameters
            self._batch_tokens = default_batch_tokens(parameters) if pays else 0
        self._batcher.budget = self._batch_tokens
        report("drawing a first picture")
        # What is slow once (kernels, threads, memory) is not left to a caller.
        first = warm_up_request(self._default, info)

        def show_life(*_: object) -> None:
            report("drawing a first picture")

        self.run(
            Picture(first, 0, "warm-up"),
            Callbacks(show_life, show_life, _go_on, _go_on),
        )
        self._default_tuned = self._tuner.newest
        shared = f"up to {self._batch_tokens} tokens share a forward"
        alone = "one picture at a time"
        how = shared if self._batch_tokens else alone
        logger.info("%s on %s, %s", self._default, self._device, how)

    def judge(
        self, levels: Sequence[Performance], report: Callable[[str], None]
    ) -> dict[Performance, Quality]:
        """How near each of ``levels`` comes to exact pictures of the default set; it is
        kept, and counts from then on. Only before :meth:`load`."""
        name, found = self._default, {}
        info = self._models[name]
        requests, clock = quality_requests(name, info), clock_of(self._device)

        def show_life(*_: object) -> None:
            report(f"measuring what {', '.join(levels)} costs")

        def draw(request: ImageRequest) -> Pixels:
            callbacks = Callbacks(show_life, show_life, _go_on, _go_on)
            picture = Picture(request, 0, "quality")
            return np.asarray(self.run(picture, callbacks).image)

        try:
            self._judged = "exact"
            exact, exact_seconds = draw_timed(draw, requests, clock)
            for level in levels:
                # What was done to a transformer is not undone.
                self.sets.drop(name)
                self._judged = level
                others, seconds = draw_timed(draw, requests, clock)
                quality = Quality(*compare(exact, others), exact_seconds, seconds)
                logger.info("%s of %s: %s", level, name, quality)
                self._gate.keep(level, name, info, quality)
                found[level] = quality
        finally:
            self._judged = None
            self.sets.drop(name)
        return found

    def _aim(self, name: str) -> tuple[Performance, tuple[str, ...]]:
        """The level of the set ``name``, and why it is not the server's."""
        if self._judged is not None:
            return self._judged, ()
        return self._gate.allowed(self._tuner.wanted, name, self._models[name])

    def joins(self, request: ImageRequest, running: Sequence[ImageRequest]) -> bool:
        """Whether a picture of ``request`` may be on its way together with those that
        are ``running``: one checkpoint, the same LoRAs, no parts that move."""
        if not running:
            return True
        if self.sets.exclusive(request.model):
            return False
        return all(self._together(request, other) for other in running)

    def fits(self, request: ImageRequest, running: Sequence[ImageRequest]) -> bool:
        """Whether there is room for it in the forwards of those ``running``, one at
        least."""
        tokens = sum(map(self.tokens, [request, *running]))
        return tokens <= (self._batch_tokens or 0)

    def is_warm(self, request: ImageRequest) -> bool:
        """Whether its weights and LoRAs are those of the newest picture."""
        return self._weights == self._weights_of(request)

    def _weights_of(self, request: ImageRequest) -> tuple[Hashable, ...]:
        info = self._models[request.model]
        task = info.task(request.mode, masked=request.mask_image is not None)
        return request.model, info.base_of(task), request.loras

    def _together(self, one: ImageRequest, other: ImageRequest) -> bool:
        return self._weights_of(one) == self._weights_of(other)

    def tokens(self, request: ImageRequest) -> int:
        """About how many tokens a forward of one picture has."""
        info = self._models[request.model]
        if request.mode == "upscale":
            tile = ((info.native_size or LARGEST_TILE) // PATCH) ** 2
            return tile + (0 if info.native_size else _TEXT_TOKENS)
        side = info.native_size
        width, height = (side, side) if side else (request.width, request.height)
        # References are appended to the picture's own tokens.
        image = -(-width // PATCH) * -(-height // PATCH)
        text = 0 if side else _TEXT_TOKENS
        return image * (1 + len(request.images)) + text

    def prepare(self, request: ImageRequest) -> None:
        """Do what needs no device before the turn of ``request`` comes."""
        if request.mode != "upscale":  # Its tiles are cut as they come.
            self._inputs_of(request)

    def _inputs_of(self, request: ImageRequest) -> Inputs:
        info = self._models[request.model]
        task = info.task(request.mode, masked=request.mask_image is not None)
        return self._inputs.get(request, lambda: fit_inputs(request, info, task))

    def run(self, picture: Picture, callbacks: Callbacks) -> ImageResult:
        """The ``picture``: PipelineFailed when it is not fit to deliver,
        InsufficientStorage or Unavailable when the device's memory is too small."""
        self._tuner.prepare_thread()
        try:
            with losses(self._device):
                return self._draw(picture, callbacks)
        except torch.AcceleratorError as error:
            raise BackendBroken(first_line(error)) from error

    def _draw(self, picture: Picture, callbacks: Callbacks) -> ImageResult:
        request, seed = picture.request, picture.seed
        info = self._models[request.model]
        if request.mode == "upscale":
            return self._enlarge(picture, callbacks)
        masked = request.mask_image is not None
        task, inputs = info.task(request.mode, masked=masked), self._inputs_of(request)
        call = PipelineCall(request, info, task, seed, inputs=inputs)
        name = task_name(request.mode, masked=masked)
        with self._batcher.taken():
            callbacks.check()
            loaded = self._load_task(picture, name, callbacks)
            tuned = self._tuner.find(loaded.pipeline.transformer)
            if tuned is None:
                tuned = self._tune(call, picture, name, callbacks)
                loaded = self._load_task(picture, name, callbacks)
            pixels = self._try_twice(loaded, call, picture, callbacks)
        # Noted here, not when somebody asks: a driver that hangs would hang them too.
        self.memory = device_memory()
        if pixels is None:
            raise PipelineFailed("The model made no usable picture.")
        result = call.deliver(Image.fromarray(pixels), seed)
        return dataclasses.replace(result, performance=self._level(tuned))

    def _enlarge(self, picture: Picture, callbacks: Callbacks) -> ImageResult:
        """The picture tile by tile, so that it needs the memory of one."""
        request, info = picture.request, self._models[picture.request.model]
        upscale, task = Upscale(request, info), info.tasks["upscale"]
        boxes = upscale.tiling.boxes
        with self._batcher.taken():
            callbacks.check()
            loaded = self._load_task(picture, "upscale", callbacks)
            tuned = self._tuner.find(loaded.pipeline.transformer)
            for number, box in enumerate(boxes):
                tile = dataclasses.replace(picture, request=upscale.tile(box))
                # Each its own noise: the same in all would show as a pattern.
                seed = (picture.seed + number) % SEED_MODULUS
                call = PipelineCall(tile.request, info, task, seed)
                if tuned is None:
                    tuned = self._tune(call, tile, "upscale", callbacks)
                    loaded = self._load_task(picture, "upscale", callbacks)
                stepped = count_tiles(callbacks, number, len(boxes))
                pixels = self._try_twice(loaded, call, tile, stepped)
                if pixels is not None:  # Else it stays as it was, plainly resized.
                    drawn = call.deliver(Image.fromarray(pixels), picture.seed)
                    upscale.put(box, drawn.image)
        self.memory = device_memory()
        assert tuned is not None  # There is one tile at least.
        level = self._level(tuned)
        return ImageResult(upscale.picture, picture.seed, performance=level)

    def _load_task(
        self, picture: Picture, name: TaskName, callbacks: Callbacks
    ) -> Loaded:
        request = picture.request

        def report(text: str) -> None:
            logger.info(text)
            # It shows life; what is half loaded is loaded to its end all the same.
            with contextlib.suppress(Cancelled):
                callbacks.check()

        callbacks.on_loading(True)
        try:
            with measured("load"):
                self.sets.check(request.model, name, report)
                self._weights = None
                loaded = self.sets.use(request.model, report)
                ready = loaded.load(name, request.loras, report)
                self._weights = self._weights_of(request)
                return ready
        except torch.OutOfMemoryError:
            logger.warning("job %s: out of memory while loading", picture.job_id)
        finally:
            callbacks.on_loading(False)
        # Outside the handler: its traceback would keep the tensors alive.
        free_memory()
        message = "The device's memory is too small for what this request needs."
        raise Unavailable(message, retry_after=30)

    def _tune(
        self, call: PipelineCall, picture: Picture, name: TaskName, callbacks: Callbacks
    ) -> Tuned:
        """Make what draws ``picture`` as fast as it may be."""
        # What compiles would bake LoRAs in.
        bare = dataclasses.replace(picture.request, loras=())
        picture = Picture(bare, picture.index, picture.job_id)
        loaded = self._load_task(picture, name, callbacks)

        def show_life() -> None:
            # What is half compiled is compiled to its end all the same.
            with contextlib.suppress(Cancelled):
                callbacks.check()

        callbacks.on_loading(True)
        try:
            with measured("load"):
                prepared = call.prepare(loaded.pipeline, loaded.prior)
                weights = bare.model, call.base_model, bare.loras
                kwargs = encode_prompt(loaded.pipeline, prepared, self.prompts, weights)
                forward = first_call(loaded.pipeline, kwargs, loaded.pipeline.vae)
                aim = Aim(f"{bare.model} ({call.base_model})", *self._aim(bare.model))
                return self._tuner.tune(aim, loaded, forward, show_life)
        finally:
            callbacks.on_loading(False)

    def _try_twice(
        self, loaded: Loaded, call: PipelineCall, picture: Picture, callbacks: Callbacks
    ) -> np.ndarray[Any, Any] | None:
        """The picture; once more where it is NaN or black."""
        pixels = self._try_tiled(loaded, call, picture, callbacks)
        if pixels is None:
            logger.warning("job %s: no usable picture, once more", picture.job_id)
            pixels = self._try_tiled(loaded, call, picture, callbacks)
        return pixels

    def _try_tiled(
        self, loaded: Loaded, call: PipelineCall, picture: Picture, callbacks: Callbacks
    ) -> np.ndarray[Any, Any] | None:
        """uint8 (height, width, 3), or None for no usable picture. What the memory ran
        out for, drawing or decoding, is done once more with a tiled VAE."""
        latents = None
        for vae in (loaded.pipeline.vae, tiled(loaded.pipeline.vae)):
            try:
                with allocation_failures():
                    if latents is None:
                        latents = self._denoise(loaded, vae, call, picture, callbacks)
                    callbacks.check()
                with allocation_failures(), measured("decode"):
                    return to_pixels(decode(loaded.pipeline, vae, latents))
            except torch.OutOfMemoryError:
                logger.warning("job %s: out of memory", picture.job_id)
            finally:
                # A run that was stopped in the middle leaves its model on the device.
                loaded.release()
            # Outside the handler: its traceback would keep the tensors alive.
            free_memory()
        if others_hold_memory():
            raise Unavailable(
                "Other programs hold the device's memory.", retry_after=30
            )
        raise InsufficientStorage("This picture is too large for the device's memory.")

    def _denoise(
        self,
        loaded: Loaded,
        vae: Any,
        call: PipelineCall,
        picture: Picture,
        callbacks: Callbacks,
    ) -> torch.Tensor:
        pipeline, request = loaded.pipeline, picture.request
        # LoRAs may change text encoders too.
        weights = request.model, call.base_model, request.loras, loaded.lora_stamps
        with measured("encode"):
            prepared = call.prepare(pipeline, loaded.prior)
            kwargs = encode_prompt(pipeline, prepared, self.prompts, weights)
        check = call.check_of(pipeline, callbacks)
        transformer = pipeline.transformer
        gate = Gate(
            transformer,
            self._batcher,
            check,
            self._tuner.forward(transformer, with_loras=bool(request.loras)),
            self._tuner.step_cache(transformer, request.num_inference_steps),
        )
        pace = Pace(self._device)
        upsampler = None
        if hasattr(pipeline, "prompt_upsampler"):
            upsampler = Upsampler(
                pipeline.prompt_upsampler, self._device, callbacks.check
            )

        def on_step_end(
            view: Any, step: int, _time: Any, tensors: dict[str, Any]
        ) -> dict[str, Any]:
            total = view.num_timesteps
            number = preview_due(step + 1, total, picture.request.partial_images)
            if number is not None and gate.velocity is not None:
                clean = clean_latents(view.scheduler, tensors["latents"], gate.velocity)
                image = loaded.preview.draw(clean[0], *call.token_grid)
                callbacks.on_preview(number, call.deliver_preview(image))
            gate.velocity = None
            pace.step()
            callbacks.on_step(step + 1, total)
            return tensors

        with measured("denoise"):
            latents = denoise(
                pipeline, kwargs, gate, vae, on_step_end, upsampler=upsampler
            )
        loaded.release()
        return latents


def count_tiles(callbacks: Callbacks, number: int, count: int) -> Callbacks:
    """``callbacks`` for tile ``number`` of ``count``: its steps are some of all."""

    def on_step(step: int, total: int) -> None:
        callbacks.on_step(number * total + step, count * total)

    return dataclasses.replace(callbacks, on_step=on_step)


def _go_on(*_: object) -> None:
    """Nobody watches."""


def default_batch_tokens(parameters: int) -> int:
    """A forward's budget where sharing pays: one picture of 1024x1024, or several of
    512x512, more of them the smaller the transformer."""
    return int(min(9000.0, max(4608.0, 7.5e13 / parameters)))


def pays_on_cpu(performance: Performance, native_size: int | None) -> bool:
    """Whether sharing forwards is worth its rounding on a CPU: small pictures are
    mostly overhead."""
    small = native_size is not None and native_size <= _SMALL_SIDE
    return small and performance != "exact"


def preview_due(step: int, total: int, wanted: int) -> int | None:
    """The number (from 0) of the preview after ``step`` of ``total``, when ``wanted``
    of them are spread evenly over the run; None for none."""
    for number in range(wanted):
        if step == min(total - 1, round(total * (number + 1) / (wanted + 1))):
            return number if step > 0 else None
    return None


def device_memory() -> dict[str, int] | None:
    """How many bytes of the GPU's ``total`` are ``used``, by all programs; None on
    anything else."""
    if not torch.cuda.is_available():
        return None
    free, total = torch.cuda.mem_get_info()
    return {"used": total - free, "total": total}


def others_hold_memory() -> bool:
    """Whether other processes hold a tenth of the device's memory or more."""
    if not torch.cuda.is_available():
        return False
    free, total = torch.cuda.mem_get_info()
    return total - free - torch.cuda.memory_reserved() > _FOREIGN_MEMORY * total
