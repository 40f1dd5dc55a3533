"""The weights that the next picture is drawn with: loaded for its task, and tuned."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Hashable, Mapping

import torch

from flux_api.core import ImageRequest, Performance
from flux_api.engine.pipeline_call import PipelineCall
from flux_api.engine.prompt_cache import PromptCache
from flux_api.engine.quality import QualityGate
from flux_api.engine.steps import encode_prompt, first_call
from flux_api.engine.tuning import Aim, Tuned, Tuner
from flux_api.engine.upsampler import upsampler_of
from flux_api.errors import Cancelled, Unavailable
from flux_api.loading.device import allocation_failures, free_memory
from flux_api.loading.loaded_set import Loaded
from flux_api.loading.model_sets import ModelSets
from flux_api.metrics.instruments import measured
from flux_api.models.info import ModelInfo, TaskName
from flux_api.queue.tasks import Callbacks, Picture

logger = logging.getLogger(__name__)


class Weights:
    """What of ``models`` the device holds, out of ``sets``; ``tuner`` makes it as fast
    as ``gate`` allows. ``judged`` is the level that is just being measured."""

    def __init__(
        self,
        models: Mapping[str, ModelInfo],
        sets: ModelSets,
        tuner: Tuner,
        gate: QualityGate,
        prompts: PromptCache,
    ) -> None:
        self._models, self._sets = models, sets
        self._tuner, self._gate, self._prompts = tuner, gate, prompts
        self.judged: Performance | None = None
        # What the device holds at the moment; None while that changes.
        self._newest: tuple[Hashable, ...] | None = None

    def are_warm(self, request: ImageRequest) -> bool:
        """Whether those of ``request`` are the newest picture's."""
        return self._newest == self.of(request)

    def of(self, request: ImageRequest) -> tuple[Hashable, ...]:
        """What tells the weights and LoRAs of ``request`` from others."""
        info = self._models[request.model]
        task = info.task_of(request)
        return request.model, info.base_of(task), request.loras

    def load(self, picture: Picture, name: TaskName, callbacks: Callbacks) -> Loaded:
        """The pipeline of task ``name`` with exactly the LoRAs of ``picture``, on the
        device. Unavailable where its memory is too small, ModelMissing and
        InvalidRequest as :meth:`flux_api.loading.loaded_set.LoadedSet.load`."""
        request = picture.request

        def report(text: str) -> None:
            logger.info(text)
            # It shows life; what is half loaded is loaded to its end all the same.
            with contextlib.suppress(Cancelled):
                callbacks.check()

        callbacks.on_loading(True)
        try:
            with measured("load"), allocation_failures():
                self._sets.check(request.model, name, report)
                self._newest = None
                loaded = self._sets.use(request.model, report)
                ready = loaded.load(name, request.loras, report)
                self._newest = self.of(request)
                return ready
        except torch.OutOfMemoryError:
            logger.warning("job %s: out of memory while loading", picture.job_id)
        finally:
            callbacks.on_loading(False)
        # Outside the handler: its traceback would keep the tensors alive.
        free_memory()
        message = "The device's memory is too small for what this request needs."
        raise Unavailable(message, retry_after=30)

    def tune(
        self, call: PipelineCall, picture: Picture, name: TaskName, callbacks: Callbacks
    ) -> Tuned:
        """Make what draws ``picture`` as fast as it may be."""
        # What compiles would bake LoRAs in.
        bare = dataclasses.replace(picture.request, loras=())
        picture = Picture(bare, picture.index, picture.job_id)
        loaded = self.load(picture, name, callbacks)

        def show_life() -> None:
            # What is half compiled is compiled to its end all the same.
            with contextlib.suppress(Cancelled):
                callbacks.check()

        callbacks.on_loading(True)
        try:
            with measured("load"):
                prepared = call.prepare(loaded.pipeline, loaded.prior)
                weights = bare.model, call.base_model, bare.loras, loaded.lora_stamps
                device = loaded.placement.device
                kwargs = encode_prompt(
                    loaded.pipeline, prepared, self._prompts, weights, device
                )
                upsampler = upsampler_of(loaded.pipeline, device, show_life)
                forward = first_call(
                    loaded.pipeline, kwargs, loaded.pipeline.vae, upsampler=upsampler
                )
                aim = Aim(f"{bare.model} ({call.base_model})", *self._aim(bare.model))
                return self._tuner.tune(aim, loaded, forward, show_life)
        finally:
            callbacks.on_loading(False)

    def _aim(self, name: str) -> tuple[Performance, tuple[str, ...]]:
        """The level of the set ``name``, and why it is not the server's."""
        if self.judged is not None:
            return self.judged, ()
        return self._gate.allowed(self._tuner.wanted, name, self._models[name])
