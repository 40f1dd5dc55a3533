"""The original API: ``POST /process`` and ``POST /process/raw``."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, jsonify, request

from flux_api.core import ImageRequest, ImageResult
from flux_api.errors import InvalidRequest
from flux_api.http.bodies import Body
from flux_api.http.clients import caller_of, submit, wait_for
from flux_api.http.context import Context, get_context
from flux_api.http.idempotency import read_new_body
from flux_api.http.parameters import (
    MAX_GUIDANCE,
    MAX_PARTIAL_IMAGES,
    MAX_STEPS,
    choose_mode,
    complete_request,
    parse_integer,
    parse_loras,
    parse_number,
    parse_seed,
    parse_text,
)
from flux_api.images.codec import (
    decode_base64,
    decode_data_url,
    decode_image,
    encode_image,
)
from flux_api.queue.jobs import Job

if TYPE_CHECKING:
    from PIL.Image import Image

bp = Blueprint("original", __name__)

# Whatever is an integer: the set's own grid says what is legal.
_ANY_SIDE = 10**9
_LONGEST_TOKEN = 4096


@bp.post("/process")
def process() -> Response:
    """One picture as JSON: a URL on the file server, else Base64."""
    context = get_context()
    job, result = _make(context)
    encoded = encode_image(result.image)
    answer = _facts(job, result)
    url = context.file_server.upload(encoded) if context.file_server else None
    if url is not None:
        return jsonify({"result_image_url": url} | answer)
    text = base64.b64encode(encoded.data).decode("ascii")
    response = jsonify({"result_image_base64": text} | answer)
    if context.file_server:
        response.headers["X-Flux-Delivery"] = "fallback"
    return response


@bp.post("/process/raw")
def process_raw() -> Response:
    """One picture as ``image/png``, its facts in the headers."""
    job, result = _make(get_context())
    encoded = encode_image(result.image)
    facts = _facts(job, result)
    response = Response(encoded.data, mimetype=encoded.media_type)
    for header, name in _FACT_HEADERS.items():
        if name in facts:
            response.headers[header] = str("" if facts[name] is None else facts[name])
    response.headers["X-Flux-Loras"] = json.dumps(facts["loras"])
    return response


_FACT_HEADERS = {
    "X-Flux-Seed": "seed",
    "X-Flux-Mode": "mode",
    "X-Flux-Width": "width",
    "X-Flux-Height": "height",
    "X-Flux-Native-Width": "native_width",
    "X-Flux-Native-Height": "native_height",
    "X-Flux-Steps": "num_inference_steps",
    "X-Flux-Guidance-Scale": "guidance_scale",
    "X-Flux-Model": "model",
}


def _make(context: Context) -> tuple[Job, ImageResult]:
    body = read_new_body()
    began = time.monotonic()
    context.manager.check_open(caller_of(request))
    image_request = _parse(context, body)
    job = submit(context, request, image_request, body.values)
    return job, wait_for(context, request, job, began=began)[0]


def _parse(context: Context, body: Body) -> ImageRequest:
    values = body.values
    for name, value in values.items():
        if name in _SINGLE and isinstance(value, list):
            raise InvalidRequest(f"'{name}' was given more than once.", param=name)
    # The cheap checks first: nothing is fetched for a request that fails anyway.
    prompt = parse_text(values.get("prompt"), "prompt")
    seed = parse_seed(values.get("seed"))
    width = parse_integer(values.get("width"), "width", -_ANY_SIDE, _ANY_SIDE)
    height = parse_integer(values.get("height"), "height", -_ANY_SIDE, _ANY_SIDE)
    num_inference_steps = parse_integer(
        values.get("num_inference_steps"), "num_inference_steps", 1, MAX_STEPS
    )
    guidance_scale = parse_number(
        values.get("guidance_scale"), "guidance_scale", 0, MAX_GUIDANCE
    )
    model = parse_text(values.get("model"), "model", 256)
    name = context.find_model(model)
    loras = parse_loras(values.get("loras"))
    images = _input_image(context, body)
    return complete_request(
        name,
        context.models[name],
        choose_mode(prompt, images),
        prompt=prompt,
        negative_prompt=parse_text(values.get("negative_prompt"), "negative_prompt"),
        images=images,
        guidance_scale=guidance_scale,
        width=width,
        height=height,
        num_inference_steps=num_inference_steps,
        seed=seed,
        loras=loras,
        lora_names=context.loras.names,
        partial_images=parse_integer(
            values.get("partial_images"), "partial_images", 0, MAX_PARTIAL_IMAGES
        )
        or 0,
    )


_SINGLE = frozenset(
    {"prompt", "negative_prompt", "input_file", "input_image_url", "bearer_token"}
    | {"seed", "width", "height", "guidance_scale", "num_inference_steps"}
    | {"model", "job_id", "loras"}
)


def _input_image(context: Context, body: Body) -> tuple[Image, ...]:
    """The picture of ``input_file``, else that of ``input_image_url``, else none."""
    files = list(body.files("input_file"))
    if len(files) > 1:
        message = "'input_file' was given more than once."
        raise InvalidRequest(message, param="input_file")
    if files:
        return (decode_image(files[0], param="input_file"),)
    longest = context.settings.max_upload_bytes
    if text := parse_text(body.values.get("input_file"), "input_file", longest):
        decode = decode_data_url if text.startswith("data:") else decode_base64
        data = decode(text, param="input_file")
        return (decode_image(data, param="input_file"),)
    url = parse_text(body.values.get("input_image_url"), "input_image_url", longest)
    if url is None:
        return ()
    token = parse_text(body.values.get("bearer_token"), "bearer_token", _LONGEST_TOKEN)
    data = context.fetcher.fetch(
        url.strip(), bearer_token=token, param="input_image_url"
    )
    return (decode_image(data, param="input_image_url"),)


def _facts(job: Job, result: ImageResult) -> dict[str, Any]:
    image_request = job.request
    facts: dict[str, Any] = {
        "seed": result.seed,
        "mode": image_request.mode,
        "width": result.image.width,
        "height": result.image.height,
        "guidance_scale": image_request.guidance_scale,
        "num_inference_steps": image_request.num_inference_steps,
        "model": image_request.model,
        "loras": [asdict(lora) for lora in image_request.loras],
        "job_id": job.id,
    }
    if result.native_size is not None:
        facts["native_width"], facts["native_height"] = result.native_size
    return facts
