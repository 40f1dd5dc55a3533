"""``dry_run``: what a request would make, and when, with nothing run."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flask import abort, g, jsonify

from flux_api.core import ImageRequest
from flux_api.http.context import Context
from flux_api.http.parameters import Parameters
from flux_api.queue.jobs import Job


def stop_dry_run(
    context: Context, job: Job, image_request: ImageRequest, parameters: Parameters
) -> None:
    """End the request here with its plan as JSON, where it asks for no more."""
    if parameters.dry_run:
        abort(jsonify(give_plan(context, job, image_request, parameters)))


def give_plan(
    context: Context, job: Job, image_request: ImageRequest, parameters: Parameters
) -> dict[str, Any]:
    """The request of ``job`` with every default filled in, how many wait in front of
    it, and in about how many seconds it would be done (None: nothing was measured
    yet). The place of ``job`` in the queue is free again."""
    # Nothing of it is left to look at.
    g.pop("job", None)
    if entry := g.get("idempotency"):
        entry.job = None
    # While it still holds its own place, which is not in front of itself.
    position, seconds = context.manager.forecast(image_request)
    context.manager.forget(job)
    native = context.models[image_request.model].native_size
    return {
        "dry_run": True,
        "request": {
            **image_request.facts,
            "prompt": image_request.prompt,
            "negative_prompt": image_request.negative_prompt,
            "native_size": native,
            "strength": image_request.strength,
            "n": image_request.num_images_per_prompt,
            "loras": [asdict(lora) for lora in image_request.loras],
            "partial_images": image_request.partial_images,
            "output_format": parameters.file_format,
            "input_images": [list(image.size) for image in image_request.images],
            "masked": image_request.mask_image is not None,
        },
        "position": position,
        "expected_seconds": seconds if seconds is None else round(seconds, 2),
        "warnings": list(image_request.warnings),
    }
