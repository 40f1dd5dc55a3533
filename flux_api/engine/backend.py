"""Pictures out of diffusers pipelines: the backend that the manager drives."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from PIL import Image

from flux_api.core import MOST_SHARING, ImageRequest, ImageResult, Performance
from flux_api.engine import sharing
from flux_api.engine.drawing import Drawer
from flux_api.engine.inputs import InputCache, Inputs, fit_inputs
from flux_api.engine.pipeline_call import PipelineCall
from flux_api.engine.prompt_cache import PromptCache
from flux_api.engine.quality import (
    Pixels,
    Quality,
    QualityGate,
    draw_timed,
    quality_requests,
)
from flux_api.engine.shared_forward import ForwardBatcher
from flux_api.engine.steps import prompts_of
from flux_api.engine.trial import clock_of
from flux_api.engine.tuning import Tuned, Tuner
from flux_api.engine.upscaling import Upscale
from flux_api.engine.warm_up import warm_up_request
from flux_api.engine.weights import Weights
from flux_api.errors import InvalidRequest, PipelineFailed, StillWorking
from flux_api.loading.device import device_memory, first_line, losses
from flux_api.loading.model_sets import ModelSets
from flux_api.loading.placement import Placement, choose_device
from flux_api.metrics.instruments import measured
from flux_api.models.info import ModelInfo, task_name
from flux_api.queue.tasks import BackendBroken, Callbacks, Kept, Picture

logger = logging.getLogger(__name__)


class DiffusersBackend:
    """Run ``models`` with unmodified diffusers pipelines; ``default`` is loaded
    at the start. Pictures share forwards up to ``batch_tokens`` (image and text tokens
    in sum; None: from the default set's size on an accelerator, 0 on a CPU unless
    it pays where ``tuner`` may round). ``prompt_cache_bytes`` of encoded prompts are
    kept."""

    outage: str | None = None

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
        self._default_tuned = Tuned()
        self._batcher = ForwardBatcher()
        self.prompts = PromptCache(prompt_cache_bytes)
        self._inputs = InputCache()
        self.memory: dict[str, int] | None = None
        self.sets = sets or ModelSets(models, lambda *_: Placement(self._device))
        self._weights = Weights(
            models, self.sets, self._tuner, self._gate, self.prompts
        )
        self._drawer = Drawer(
            self._device, self._batcher, self._tuner, self._weights, self.prompts
        )

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
    def asleep(self) -> Kept | None:
        """Where every set is while none is on the device."""
        if not self.sets.names:
            return "dropped"
        return "host" if self.sets.rests else None

    def sleep(self, kept: Kept | None = None) -> None:
        """Have every set leave the device; InvalidRequest where it is not kept as
        asked, StillWorking where a picture is in the middle of a run."""
        with self._batcher.taken():
            # One that had begun lends the device to whoever comes, also to this.
            if not self._batcher.is_alone:
                message = "A picture has begun meanwhile; ask again when it is done."
                raise StillWorking(message, retry_after=5)
            why = "" if kept == "dropped" else self.sets.rest()
            if why and kept == "host":
                message = f"The host's memory cannot keep the weights: {why}."
                raise InvalidRequest(message, param="weights")
            if why or kept == "dropped":
                self.sets.drop_all()
        self.memory = device_memory()

    @property
    def slots(self) -> int:
        """How many pictures may share forwards at once."""
        return MOST_SHARING if self._batch_tokens else 1

    @property
    def batch_tokens(self) -> int:
        """Most tokens of pictures that share a forward."""
        return self._batch_tokens or 0

    def load(self, report: Callable[[str], None]) -> None:
        """Load the default set and draw with it once; raises when it cannot."""
        name, info = self._default, self._models[self._default]
        task = next(iter(info.tasks))
        if self._tuner.wanted == "max" and not self._gate.knows("max", name, info):
            self.judge(["max"], report)
        try:
            with measured("load"), losses(self._device):
                loaded = self.sets.use(self._default, report)
                loaded.load(task, info.tasks[task].loras, report)
        except torch.AcceleratorError as error:
            raise BackendBroken(first_line(error)) from error
        if self._batch_tokens is None:
            pays = self._device.type != "cpu" or sharing.pays_on_cpu(
                self._tuner.wanted, info.native_size
            )
            parameters = loaded.transformer_parameters
            self._batch_tokens = sharing.default_batch_tokens(parameters) if pays else 0
        self._batcher.budget = self._batch_tokens
        self._tuner.shares = self._batch_tokens > 0
        report("drawing a first picture")
        # What is slow once (kernels, threads, memory) is not left to a caller.
        first = Picture(warm_up_request(self._default, info), 0, "warm-up")
        self.run(first, _show_life(report, "drawing a first picture"))
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
        name, info = self._default, self._models[self._default]
        requests, clock = quality_requests(name, info), clock_of(self._device)
        life = _show_life(report, f"measuring what {', '.join(levels)} costs")

        def draw(request: ImageRequest) -> Pixels:
            return np.asarray(self.run(Picture(request, 0, "quality"), life).image)

        def draw_all(level: Performance) -> tuple[list[Pixels], float]:
            # What was done to a transformer is not undone.
            self.sets.drop(name)
            self._weights.judged = level
            return draw_timed(draw, requests, clock)

        try:
            return self._gate.judge(levels, name, info, draw_all)
        finally:
            self._weights.judged = None
            self.sets.drop(name)

    def joins(self, request: ImageRequest, running: Sequence[ImageRequest]) -> bool:
        """Whether a picture of ``request`` may be on its way together with those that
        are ``running``, one at least: one checkpoint, the same LoRAs, no parts that
        move."""
        if self.sets.exclusive(request.model):
            return False
        wanted = self._weights.of(request)
        return all(self._weights.of(other) == wanted for other in running)

    def fits(self, request: ImageRequest, running: Sequence[ImageRequest]) -> bool:
        """Whether there is room for it in the forwards of those ``running``, one at
        least."""
        tokens = sum(map(self.tokens, [request, *running]))
        return tokens <= (self._batch_tokens or 0)

    def is_warm(self, request: ImageRequest) -> bool:
        """Whether its weights and LoRAs are those of the newest picture."""
        return self._weights.are_warm(request)

    def tokens(self, request: ImageRequest) -> int:
        """About how many tokens a forward of one picture has."""
        return self._models[request.model].tokens(request)

    def prepare(self, request: ImageRequest) -> None:
        """Do what needs no device before the turn of ``request`` comes."""
        if request.mode != "upscale":  # Its tiles are cut as they come.
            self._inputs_of(request)
        self._read_prompts(request)

    def _read_prompts(self, request: ImageRequest) -> None:
        """Have them tokenized, where the set is loaded."""
        info = self._models[request.model]
        task = info.task_of(request)
        reader = self.sets.reader(request.model, info.base_of(task))
        if reader is not None:
            call = PipelineCall(request, info, task, seed=0, inputs=Inputs())
            kwargs = call.prepare(reader.pipeline)
            for prompt in prompts_of(reader.pipeline, kwargs).values():
                reader.read(prompt, kwargs["max_sequence_length"])

    def _inputs_of(self, request: ImageRequest) -> Inputs:
        info = self._models[request.model]
        task = info.task_of(request)
        return self._inputs.get(request, lambda: fit_inputs(request, info, task))

    def run(self, picture: Picture, callbacks: Callbacks) -> ImageResult:
        """The ``picture``: PipelineFailed when it is not fit to deliver,
        InsufficientStorage or Unavailable when the device's memory is too small."""
        self._tuner.prepare_thread()
        try:
            with losses(self._device):
                try:
                    return self._draw(picture, callbacks)
                finally:
                    # Noted here, not when somebody asks: a driver that hangs would
                    # hang them too.
                    self.memory = device_memory()
        except torch.AcceleratorError as error:
            raise BackendBroken(first_line(error)) from error

    def _draw(self, picture: Picture, callbacks: Callbacks) -> ImageResult:
        request, seed = picture.request, picture.seed
        info = self._models[request.model]
        if request.mode == "upscale":
            return self._enlarge(picture, callbacks)
        task, inputs = info.task_of(request), self._inputs_of(request)
        call = PipelineCall(request, info, task, seed, inputs=inputs)
        name = task_name(request.mode, masked=request.mask_image is not None)
        pixels, tuned = self._drawer.draw(call, picture, name, callbacks)
        if pixels is None:
            raise PipelineFailed("The model made no usable picture.")
        result = call.deliver(Image.fromarray(pixels), seed)
        return dataclasses.replace(result, performance=self._level(tuned))

    def _enlarge(self, picture: Picture, callbacks: Callbacks) -> ImageResult:
        """The picture tile by tile, so that it needs the memory of one."""
        request, info = picture.request, self._models[picture.request.model]
        upscale = Upscale(request, info)
        tuned = self._drawer.enlarge(upscale, info, picture, callbacks)
        return ImageResult(
            upscale.picture, picture.seed, performance=self._level(tuned)
        )


def _show_life(report: Callable[[str], None], text: str) -> Callbacks:
    """Callbacks that tell ``report`` the ``text`` at each step: nobody else watches."""

    def show_life(*_: object) -> None:
        report(text)

    def go_on(*_: object) -> None:
        """A picture of the server's own has no previews to show."""

    return Callbacks(show_life, show_life, go_on, go_on)
