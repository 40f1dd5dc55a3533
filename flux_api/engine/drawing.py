"""Draws a picture with a loaded set: again where it came to nothing, in tiles where
memory ran out."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import torch
from PIL import Image

from flux_api.core import SEED_MODULUS
from flux_api.engine.pipeline_call import PipelineCall
from flux_api.engine.prompt_cache import PromptCache
from flux_api.engine.quality import Pixels
from flux_api.engine.remembering_vae import RememberingVae
from flux_api.engine.shared_forward import ForwardBatcher, Gate
from flux_api.engine.steps import (
    clean_latents,
    decode,
    denoise,
    encode_prompt,
    tiled,
    to_pixels,
)
from flux_api.engine.tuning import Tuned, Tuner
from flux_api.engine.upsampler import upsampler_of
from flux_api.engine.upscaling import Upscale, count_tiles
from flux_api.engine.weights import Weights
from flux_api.errors import InsufficientStorage, Unavailable
from flux_api.loading.device import (
    Pace,
    allocation_failures,
    free_memory,
    others_hold_memory,
)
from flux_api.loading.loaded_set import Loaded
from flux_api.metrics.instruments import measured
from flux_api.models.info import ModelInfo, TaskName
from flux_api.queue.tasks import Callbacks, Picture

logger = logging.getLogger(__name__)


class Drawer:
    """Draws on ``device``, a forward at a time through ``batcher``, as fast as
    ``tuner`` made the transformer; encoded prompts are kept in ``prompts``."""

    def __init__(
        self,
        device: torch.device,
        batcher: ForwardBatcher,
        tuner: Tuner,
        weights: Weights,
        prompts: PromptCache,
    ) -> None:
        self._device, self._batcher = device, batcher
        self._tuner, self._weights, self._prompts = tuner, weights, prompts

    def draw(
        self, call: PipelineCall, picture: Picture, name: TaskName, callbacks: Callbacks
    ) -> tuple[Pixels | None, Tuned]:
        """The pixels of ``picture``, None where none were usable, and how the
        transformer that made them runs."""
        with self._batcher.taken():
            loaded, tuned = self._load(call, picture, name, callbacks)
            return self._try_twice(loaded, call, picture, callbacks), tuned

    def enlarge(
        self, upscale: Upscale, info: ModelInfo, picture: Picture, callbacks: Callbacks
    ) -> Tuned:
        """Draw every tile of ``upscale``, each into its place, so that it needs the
        memory of one; how the transformer runs."""
        task = info.tasks["upscale"]
        boxes = upscale.tiling.boxes
        with self._batcher.taken():
            for number, box in enumerate(boxes):
                tile = dataclasses.replace(picture, request=upscale.tile(box))
                # Each its own noise: the same in all would show as a pattern.
                seed = (picture.seed + number) % SEED_MODULUS
                call = PipelineCall(tile.request, info, task, seed)
                if number == 0:
                    loaded, tuned = self._load(call, picture, "upscale", callbacks)
                stepped = count_tiles(callbacks, number, len(boxes))
                pixels = self._try_twice(loaded, call, tile, stepped)
                if pixels is not None:  # Else it stays as it was, plainly resized.
                    drawn = call.deliver(Image.fromarray(pixels), picture.seed)
                    upscale.put(box, drawn.image)
        return tuned

    def _load(
        self, call: PipelineCall, picture: Picture, name: TaskName, callbacks: Callbacks
    ) -> tuple[Loaded, Tuned]:
        """What draws ``picture``, tuned with ``call`` where it is not yet."""
        callbacks.check()
        loaded = self._weights.load(picture, name, callbacks)
        tuned = self._tuner.find(loaded.pipeline.transformer)
        if tuned is None:
            tuned = self._weights.tune(call, picture, name, callbacks)
            loaded = self._weights.load(picture, name, callbacks)
        if tuned.level != "exact":
            loaded.fuse()
        return loaded, tuned

    def _try_twice(
        self, loaded: Loaded, call: PipelineCall, picture: Picture, callbacks: Callbacks
    ) -> Pixels | None:
        """The picture; once more where it is NaN or black."""
        pixels = self._try_tiled(loaded, call, picture, callbacks)
        if pixels is None:
            logger.warning("job %s: no usable picture, once more", picture.job_id)
            pixels = self._try_tiled(loaded, call, picture, callbacks)
        return pixels

    def _try_tiled(
        self, loaded: Loaded, call: PipelineCall, picture: Picture, callbacks: Callbacks
    ) -> Pixels | None:
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
            kwargs = encode_prompt(
                pipeline, prepared, self._prompts, weights, self._device
            )
        gate = self._gate(pipeline, call, request.num_inference_steps, callbacks)
        pace = Pace(self._device)

        def on_step_end(
            view: Any, step: int, _time: Any, tensors: dict[str, Any]
        ) -> dict[str, Any]:
            total = view.num_timesteps
            number = preview_due(step + 1, total, request.partial_images)
            if number is not None and gate.velocity is not None:
                clean = clean_latents(view.scheduler, tensors["latents"], gate.velocity)
                image = loaded.preview.draw(clean[0], *call.token_grid)
                callbacks.on_preview(number, call.preview(image))
            gate.velocity = None
            pace.step()
            callbacks.on_step(step + 1, total)
            return tensors

        with measured("denoise"):
            latents = denoise(
                pipeline,
                kwargs,
                gate,
                RememberingVae(vae, self._prompts, weights[:2]),
                on_step_end,
                upsampler=upsampler_of(pipeline, self._device, callbacks.check),
            )
        loaded.release()
        return latents

    def _gate(
        self, pipeline: Any, call: PipelineCall, steps: int, callbacks: Callbacks
    ) -> Gate:
        """Through which the transformer of ``pipeline`` is called."""
        transformer = pipeline.transformer
        return Gate(
            transformer,
            self._batcher,
            call.check_of(pipeline, callbacks),
            self._tuner.forward(transformer),
            self._tuner.step_cache(transformer, steps),
        )


def preview_due(step: int, total: int, wanted: int) -> int | None:
    """The number (from 0) of the preview after ``step`` of ``total``, when ``wanted``
    of them are spread evenly over the run; None for none."""
    for number in range(wanted):
        if step == min(total - 1, round(total * (number + 1) / (wanted + 1))):
            return number if step > 0 else None
    return None
