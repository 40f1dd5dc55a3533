"""Draw with an exported model through the stock diffusers pipelines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    FluxImg2ImgPipeline,
    FluxInpaintPipeline,
    FluxKontextPipeline,
    FluxPipeline,
)
from PIL import Image

STEPS, GUIDANCE, EDIT_GUIDANCE, STRENGTH = 12, 3.5, 2.0, 0.6
BATCH = 16


class Artist:
    """One set of weights behind the four pipelines, called as the server calls them."""

    def __init__(self, folder: Path, steps: int = STEPS) -> None:
        """Load a diffusers folder in float32, which is how it is served on a CPU."""
        self.base = FluxPipeline.from_pretrained(folder, dtype=torch.float32)
        if torch.cuda.is_available():
            self.base.to("cuda")
        self.steps, self.seconds = steps, 0.0
        self.size: int = self.base.vae.config.sample_size
        parts = self.base.components
        for absent in ("image_encoder", "feature_extractor"):
            parts.pop(absent, None)
        self.kontext = FluxKontextPipeline(**parts)
        self.image_to_image = FluxImg2ImgPipeline(**parts)
        self.inpaint = FluxInpaintPipeline(**parts)
        for pipeline in (self.base, self.kontext, self.image_to_image, self.inpaint):
            pipeline.set_progress_bar_config(disable=True)

    def generate(
        self, prompts: Sequence[str], seeds: Sequence[int], guidance: float = GUIDANCE
    ) -> list[Image.Image]:
        """Return a picture for each prompt."""
        return self._draw(self.base, prompts, seeds, guidance, {}, {})

    def edit(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        seeds: Sequence[int],
        guidance: float = EDIT_GUIDANCE,
    ) -> list[Image.Image]:
        """Return each picture after its instruction."""
        # Kontext otherwise scales the output to a megapixel and the input likewise.
        fixed = {"max_area": self.size**2, "_auto_resize": False}
        return self._draw(
            self.kontext, prompts, seeds, guidance, fixed, {"image": images}
        )

    def vary(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        seeds: Sequence[int],
        strength: float = STRENGTH,
    ) -> list[Image.Image]:
        """Return another picture like each one."""
        fixed = {"strength": strength}
        return self._draw(
            self.image_to_image, prompts, seeds, GUIDANCE, fixed, {"image": images}
        )

    def fill(
        self,
        images: Sequence[Image.Image],
        masks: Sequence[Image.Image],
        prompts: Sequence[str],
        seeds: Sequence[int],
    ) -> list[Image.Image]:
        """Return each picture with the white part of its mask drawn anew."""
        given = {"image": images, "mask_image": masks}
        return self._draw(
            self.inpaint, prompts, seeds, GUIDANCE, {"strength": 1.0}, given
        )

    @torch.inference_mode()
    def _draw(
        self,
        pipeline: Any,
        prompts: Sequence[str],
        seeds: Sequence[int],
        guidance: float,
        fixed: dict[str, Any],
        given: dict[str, Sequence[Image.Image]],
    ) -> list[Image.Image]:
        drawn: list[Image.Image] = []
        for start in range(0, len(prompts), BATCH):
            part = slice(start, start + BATCH)
            asked = list(prompts[part])
            noise = [torch.Generator().manual_seed(seed) for seed in seeds[part]]
            drawn += pipeline(
                prompt=asked,
                negative_prompt=[""] * len(asked),
                true_cfg_scale=guidance,
                num_inference_steps=self.steps,
                width=self.size,
                height=self.size,
                max_sequence_length=self.base.tokenizer.model_max_length,
                generator=noise,
                **fixed,
                **{key: list(values[part]) for key, values in given.items()},
            ).images
        return drawn
