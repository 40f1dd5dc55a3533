"""OpenAI's Images API: generations, edits, variations, and the list of models."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, jsonify, request

from flux_api.blueprints import Context, context
from flux_api.blueprints.bodies import read_body
from flux_api.blueprints.openai_requests import (
    Output,
    parse_edit,
    parse_generation,
    parse_variation,
)
from flux_api.blueprints.waiting import job_headers, submit, wait_for
from flux_api.core import ImageRequest, ImageResult
from flux_api.errors import ModelNotFound
from flux_api.images import EncodedImage, encode_image
from flux_api.jobs import Job

bp = Blueprint("openai", __name__, url_prefix="/v1")

_GPT_IMAGE = re.compile(r"(gpt-image|chatgpt-image)")
_PIXELS_PER_TOKEN = 16 * 16
_BYTES_PER_TOKEN = 4

Parse = Callable[..., tuple[ImageRequest, Output]]


@bp.post("/images/generations")
def generations() -> Response:
    """Pictures from a prompt."""
    return _answer(parse_generation)


@bp.post("/images/edits")
def edits() -> Response:
    """Pictures from input pictures and a prompt, perhaps within a mask."""
    return _answer(parse_edit)


@bp.post("/images/variations")
def variations() -> Response:
    """Pictures like the input picture."""
    return _answer(parse_variation)


@bp.get("/models")
def models() -> Response:
    """The sets that can be asked for."""
    return jsonify(object="list", data=[_model(name) for name in context().models])


@bp.get("/models/<path:name>")
def model(name: str) -> Response:
    """One set; ModelNotFound when it is not offered."""
    if name not in context().models:
        message = f"The model {name[:64]!r} does not exist."
        raise ModelNotFound(message, param="model")
    return jsonify(_model(name))


def _model(name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "flux-imaging-api" if name == "tiny" else "black-forest-labs",
    }


def _answer(parse: Parse) -> Response:
    began = time.monotonic()
    here = context()
    body = read_body(request)
    here.manager.check_ready()
    image_request, output = parse(here, body)
    job = submit(here, request, image_request, body.values)
    results = wait_for(here, request, job)
    headers = job_headers(job)
    data = [_item(here, output, result, headers) for result in results]
    response = jsonify(_envelope(job, output) | {"data": data})
    headers["openai-processing-ms"] = str(round((time.monotonic() - began) * 1000))
    response.headers.update(headers)
    return response


def _envelope(job: Job, output: Output) -> dict[str, Any]:
    made = job.request
    return {
        "created": int(time.time()),
        "background": "opaque",
        "output_format": output.output_format,
        "quality": output.quality,
        "size": f"{made.width}x{made.height}",
        "model": made.model,
        "usage": usage_of(made),
    }


def _item(
    here: Context, output: Output, result: ImageResult, headers: dict[str, str]
) -> dict[str, Any]:
    """One picture under exactly one of the keys ``url`` and ``b64_json``."""
    encoded = encode_image(
        result.image, output.output_format, output.output_compression
    )
    item: dict[str, Any] = {"seed": result.seed}
    if result.native_size is not None:
        item["native_size"] = "{}x{}".format(*result.native_size)
    key = _key(output, with_file_server=here.file_server is not None)
    if key == "b64_json":
        return item | {"b64_json": _base64(encoded)}
    url = here.file_server.upload(encoded) if here.file_server else None
    if url is None:
        if here.file_server:
            headers["X-Flux-Delivery"] = "fallback"
        url = f"data:{encoded.media_type};base64,{_base64(encoded)}"
    return item | {"url": url}


def _key(output: Output, *, with_file_server: bool) -> str:
    """``url`` or ``b64_json``: as asked, else what that model name's clients read."""
    if output.response_format is not None:
        return output.response_format
    name = output.model_name or ""
    if with_file_server:
        return "b64_json" if _GPT_IMAGE.match(name) else "url"
    return "url" if name.startswith("dall-e-") else "b64_json"


def _base64(encoded: EncodedImage) -> str:
    return base64.b64encode(encoded.data).decode("ascii")


def usage_of(made: ImageRequest) -> dict[str, Any]:
    """Token counts in OpenAI's shape: text is its UTF-8 length / 4, a picture its
    pixels / 256 (one for each patch of 16x16), both rounded up."""
    text = sum(
        -(-len(prompt.encode()) // _BYTES_PER_TOKEN)
        for prompt in (made.prompt, made.negative_prompt or "")
    )
    images = sum(-(-i.width * i.height // _PIXELS_PER_TOKEN) for i in made.images)
    output = -(-made.width * made.height // _PIXELS_PER_TOKEN)
    output *= made.num_images_per_prompt
    return {
        "input_tokens": text + images,
        "output_tokens": output,
        "total_tokens": text + images + output,
        "input_tokens_details": {"text_tokens": text, "image_tokens": images},
        "output_tokens_details": {"text_tokens": 0, "image_tokens": output},
    }
