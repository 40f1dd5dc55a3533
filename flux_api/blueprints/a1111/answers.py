"""Jobs and pictures as AUTOMATIC1111's clients read them."""

from __future__ import annotations

import json
from typing import Any

from flask import Response, jsonify

from flux_api.blueprints.a1111.parameters import SAMPLER, A1111Parameters
from flux_api.core import ImageRequest, PartialImage, Progress
from flux_api.http.context import Context
from flux_api.http.marking import write_infotext
from flux_api.http.pictures import to_base64
from flux_api.images.codec import encode_image
from flux_api.images.previews import show_preview
from flux_api.queue.jobs import Job
from flux_api.queue.results import FinishedPicture


def describe(
    context: Context, request: ImageRequest, parameters: A1111Parameters
) -> dict[str, Any]:
    """The facts of ``info``: taken while the request still knows its prompt."""
    count = request.num_images_per_prompt
    seeds = [request.seed_of(index) for index in range(count)]
    return {
        "prompt": request.prompt,
        "all_prompts": [request.prompt] * count,
        "negative_prompt": request.negative_prompt or "",
        "seed": seeds[0],
        "all_seeds": seeds,
        "width": request.width,
        "height": request.height,
        "sampler_name": SAMPLER,
        "steps": request.num_inference_steps,
        "cfg_scale": parameters.cfg_scale,
        "distilled_cfg_scale": request.guidance_scale,
        "denoising_strength": request.strength,
        "batch_size": count,
        "sd_model_name": request.model,
        "infotexts": [write_infotext(context, request, seed) for seed in seeds],
        "warnings": list(request.warnings),
    }


def render(info: dict[str, Any], pictures: list[FinishedPicture]) -> Response:
    """The answer to ``txt2img`` and ``img2img``."""
    # One may have come up since, such as a time stamp that could not be had.
    said = pictures[0].facts.get("warning", "")
    if later := said.removeprefix(" ".join(info["warnings"])).strip():
        info = info | {"warnings": [*info["warnings"], later]}
    told = {name: fact for name, fact in info.items() if name != "infotexts"}
    return jsonify(
        images=[to_base64(picture.data) for picture in pictures],
        parameters=told,
        info=json.dumps(info, ensure_ascii=False),
    )


def describe_progress(job: Job | None) -> dict[str, Any]:
    """How ``job`` is doing, None where none is on its way."""
    progress, preview, steps = 0.0, None, (0, 0)
    if job is not None:
        newest, shown = job.last(Progress), job.last(PartialImage)
        if isinstance(newest, Progress):
            steps = newest.step, newest.total
            done = newest.index + newest.step / newest.total
            # After the last step it is still decoded, and becomes a file.
            progress = min(0.99, done / job.request.num_images_per_prompt)
        if isinstance(shown, PartialImage):
            preview = to_base64(
                encode_image(show_preview(shown.preview), "png", 100).data
            )
    left = job.run_seconds * (1 / progress - 1) if job and progress else 0.0
    return {
        "progress": round(progress, 3),
        "eta_relative": round(left, 2),
        "state": {
            "skipped": False,
            "interrupted": False,
            "job": job.id if job else "",
            "job_count": 1 if job else 0,
            "job_no": 0,
            "sampling_step": steps[0],
            "sampling_steps": steps[1],
        },
        "current_image": preview,
        "textinfo": job.state if job else None,
    }
