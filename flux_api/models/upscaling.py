"""How a model makes a picture larger: image to image, with little change."""

from __future__ import annotations

from dataclasses import replace

from flux_api.models.info import ModelInfo, TaskDefaults

STRENGTH = 0.35
"""How far a tile may change. More draws what is not there."""

_LEAST_STEPS = 2
_WITH_STRENGTH = ("FluxImg2ImgPipeline", "Flux2KleinInpaintPipeline")


def with_upscale(info: ModelInfo) -> ModelInfo:
    """``info`` with defaults for upscaling, where its weights can be used for that."""
    if "upscale" in info.tasks or (found := _drawing_defaults(info)) is None:
        return info
    # A small model knows whole things, and would find one in every tile.
    wanted = STRENGTH if info.native_size is None else 0.0
    strength = min(1.0, max(wanted, _LEAST_STEPS / found.num_inference_steps))
    defaults = replace(found, strength=strength, prompt="", max_images=1)
    return replace(info, tasks={**info.tasks, "upscale": defaults})


def _drawing_defaults(info: ModelInfo) -> TaskDefaults | None:
    for defaults in info.tasks.values():
        # One of its own first: nothing more is loaded for it.
        if defaults.pipeline in _WITH_STRENGTH:
            return defaults
    generate = info.tasks.get("generate")
    if generate is not None and generate.pipeline == "FluxPipeline":
        # Another pipeline over the very same parts.
        return replace(generate, pipeline="FluxImg2ImgPipeline")
    return None
