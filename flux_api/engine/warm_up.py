"""The picture that is drawn before the first caller's."""

from __future__ import annotations

from PIL import Image

from flux_api.core import ImageRequest, Mode
from flux_api.models.info import ModelInfo

# A step that is the first and one that is not.
_STEPS = 2


def warm_up_request(name: str, info: ModelInfo) -> ImageRequest:
    """Two steps at the default size of the set ``name``, for its first task."""
    task, defaults = next(iter(info.tasks.items()))
    mode: Mode = "edit" if task == "inpaint" else task
    width, height = info.sizes.default
    grey = Image.new("RGB", (width, height), "grey")
    return ImageRequest(
        mode=mode,
        model=name,
        prompt="a heart",
        images=() if task == "generate" else (grey,),
        mask_image=Image.new("L", grey.size, 255) if task == "inpaint" else None,
        width=width,
        height=height,
        num_inference_steps=_STEPS,
        guidance_scale=defaults.choose_guidance(None),
        strength=defaults.strength,
        seed=0,
        loras=defaults.loras,
    )
