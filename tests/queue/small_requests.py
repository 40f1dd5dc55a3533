"""The smallest request there is, for tests that make no picture."""

from __future__ import annotations

from flux_api.core import ImageRequest


def request(count=1, steps=1, **fields):
    """A small request for ``count`` pictures of ``steps`` steps."""
    return ImageRequest(
        **{
            "mode": "generate",
            "model": "none",
            "prompt": "x",
            "width": 16,
            "height": 16,
            "num_inference_steps": steps,
            "guidance_scale": None,
            "num_images_per_prompt": count,
            "seed": 1,
            **fields,
        }
    )
