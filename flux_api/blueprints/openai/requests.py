"""OpenAI's request parameters, JSON or form, to an ImageRequest and an Output."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from flux_api.blueprints.openai.inputs import decode_images, decode_one_mask
from flux_api.blueprints.openai.output import Output, parse_output
from flux_api.core import ImageRequest, Lora
from flux_api.errors import InvalidRequest
from flux_api.http.bodies import Body
from flux_api.http.context import Context
from flux_api.http.parameters import (
    MAX_GUIDANCE,
    MAX_STEPS,
    choose_mode,
    complete_request,
    parse_integer,
    parse_loras,
    parse_number,
    parse_seed,
    parse_size,
    parse_text,
)

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_N = 10

Operation = Literal["generation", "edit", "variation"]
Parsed = tuple[ImageRequest, Output]

# Parameters of OpenAI's API that no Flux model can honour, each with the reason.
REFUSED = {
    "markup": "use a mask, or say in the prompt what to change",
    "complexity": "choose 'quality' or 'num_inference_steps'",
    "svg": "pictures are png, jpeg or webp",
    "frame_count": "pictures do not move",
    "frame_duration_ms": "pictures do not move",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Common:
    """What all three operations take, checked before any picture is decoded."""

    prompt: str | None
    negative_prompt: str | None
    width: int | None
    height: int | None
    num_images_per_prompt: int
    seed: int | None
    num_inference_steps: int | None
    guidance_scale: float | None
    loras: tuple[Lora, ...]


def parse_request(
    context: Context, body: Body, operation: Operation, *, deployment: str | None = None
) -> Parsed:
    """The request of one of the three operations; ``deployment`` is the model's name
    where the path says it. InvalidRequest and its kin name what is wrong."""
    values = {n: v for n, v in body.values.items() if v is not None and v != ""}
    refuse_unsupported(body)
    common = _parse_common(values, operation)
    model_name = parse_text(values.get("model") or deployment, "model", 256)
    output = parse_output(values, model_name, operation)
    if output.stream and common.num_images_per_prompt > 1:
        raise InvalidRequest("Streaming is only supported with n=1.", param="n")
    name = context.find_model(model_name)
    model = context.models[name]
    images: tuple[Image, ...] = ()
    mask_image = None
    if operation != "generation":
        images = decode_images(context, body, model)
    if operation == "edit":
        mask_image = decode_one_mask(context, body, images[0])
    mode = choose_mode(None if operation == "variation" else common.prompt, images)
    steps = common.num_inference_steps
    if steps is None:
        task = model.task(mode, masked=mask_image is not None)
        steps = math.ceil(task.num_inference_steps * output.steps_share)
    request = complete_request(
        name,
        model,
        mode,
        prompt=common.prompt,
        negative_prompt=common.negative_prompt,
        images=images,
        mask_image=mask_image,
        width=common.width,
        height=common.height,
        size_param="size",
        num_inference_steps=max(1, min(steps, MAX_STEPS)),
        guidance_scale=common.guidance_scale,
        num_images_per_prompt=common.num_images_per_prompt,
        seed=common.seed,
        loras=common.loras,
        lora_names=context.loras.names,
        partial_images=output.partial_images,
    )
    return request, output


def refuse_unsupported(body: Body) -> None:
    """InvalidRequest that names a parameter of OpenAI's which no Flux model honours."""
    for name, value in body.parts:
        known = name.partition("[")[0]
        if known in REFUSED and value not in (None, "", {}):
            raise InvalidRequest(
                f"Unsupported parameter: '{known}' is not supported by Flux models; "
                f"{REFUSED[known]}.",
                param=known,
                code="unsupported_parameter",
            )


def _parse_common(values: dict[str, Any], operation: Operation) -> _Common:
    prompt = parse_text(values.get("prompt"), "prompt")
    if prompt is None and operation != "variation":
        raise InvalidRequest(
            "Missing required parameter: 'prompt'.",
            param="prompt",
            code="missing_required_parameter",
        )
    width, height = parse_size(values.get("size")) or (None, None)
    steps = "num_inference_steps" if "num_inference_steps" in values else "steps"
    return _Common(
        prompt=prompt,
        negative_prompt=parse_text(values.get("negative_prompt"), "negative_prompt"),
        width=width,
        height=height,
        num_images_per_prompt=parse_integer(values.get("n"), "n", 1, MAX_N) or 1,
        seed=parse_seed(values.get("seed")),
        num_inference_steps=parse_integer(values.get(steps), steps, 1, MAX_STEPS),
        guidance_scale=parse_number(
            values.get("guidance_scale"), "guidance_scale", 0, MAX_GUIDANCE
        ),
        loras=parse_loras(values.get("loras")),
    )
