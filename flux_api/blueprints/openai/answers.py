"""Finished pictures in the shapes of OpenAI's answers."""

from __future__ import annotations

import re
import time
from dataclasses import asdict
from typing import Any

from flask import Response, jsonify

from flux_api.blueprints.openai.parameters import ImagesParameters
from flux_api.core import ImageRequest, ImageResult
from flux_api.http.context import Context
from flux_api.http.idempotency import deliver
from flux_api.http.pictures import (
    encode_pictures,
    to_base64,
    to_data_url,
    to_file,
    upload_pictures,
)
from flux_api.queue.jobs import Job
from flux_api.queue.results import FinishedPicture

# Clients of these names, by themselves or behind a router's prefix, read b64_json
# alone, whatever else stands in the answer.
_GPT_IMAGE = re.compile(r"(?:[^/]*/)*(?:chat)?gpt-image", re.IGNORECASE)
_DALL_E = re.compile(r"(?:[^/]*/)*dall-e-", re.IGNORECASE)
_PIXELS_PER_TOKEN = 16 * 16
_BYTES_PER_TOKEN = 4


def finish_pictures(
    context: Context,
    job: Job,
    parameters: ImagesParameters,
    results: tuple[ImageResult, ...],
) -> tuple[list[FinishedPicture], dict[str, str]]:
    """The pictures as files, stored where their URLs are asked for, and the header that
    says where they could not be."""
    pictures = encode_pictures(context, job, parameters, results)
    if _key(context, parameters) == "url":
        return upload_pictures(context, job, pictures)
    return pictures, {}


def render_file(
    context: Context,
    job: Job,
    parameters: ImagesParameters,
    results: tuple[ImageResult, ...],
) -> Response:
    """The one picture as its file, its facts in the headers."""
    pictures = encode_pictures(context, job, parameters, results)
    return deliver(context, job, pictures, lambda pictures: to_file(*pictures))


def render_response(
    context: Context,
    job: Job,
    parameters: ImagesParameters,
    results: tuple[ImageResult, ...],
    *,
    began: float,
) -> Response:
    """The plain answer; the request was there at ``began`` in monotonic seconds."""
    pictures, delivery = finish_pictures(context, job, parameters, results)
    key = _key(context, parameters)
    image_request = job.request
    answer = {
        "created": int(time.time()),
        "background": "opaque",
        # It stands where OpenAI has it, and is filled in for each client.
        "data": None,
        "output_format": parameters.file_format,
        "quality": parameters.echoed_quality,
        "size": size_of(image_request),
        "model": image_request.model,
        "usage": usage_of(image_request, image_request.num_images_per_prompt),
    }
    # Of the first: what was read otherwise was so for all of them.
    if "warning" in pictures[0].facts:
        answer["warning"] = pictures[0].facts["warning"]
    if image_request.loras:
        answer["loras"] = [asdict(lora) for lora in image_request.loras]
    if (identifier := parameters.echoed_identifier) is not None:
        answer["safety_identifier"] = identifier
    spent = round((time.monotonic() - began) * 1000)
    headers = {"OpenAI-Processing-Ms": str(spent), **delivery}

    def render(pictures: list[FinishedPicture]) -> Response:
        data = [_item(picture, key) for picture in pictures]
        response = jsonify(answer | {"data": data})
        response.headers.update(headers)
        return response

    return deliver(context, job, pictures, render)


def _item(picture: FinishedPicture, key: str) -> dict[str, Any]:
    """One of ``data``: the picture, and what it says beyond OpenAI's own."""
    facts = picture.facts
    item: dict[str, Any] = {"seed": facts["seed"]}
    if "native_width" in facts:
        item["native_size"] = "{native_width}x{native_height}".format(**facts)
    if key == "b64_json":
        return item | {key: to_base64(picture.data)}
    return item | {key: picture.url or to_data_url(picture)}


def _key(context: Context, parameters: ImagesParameters) -> str:
    """``url`` or ``b64_json``: as asked, else what that model name's clients read."""
    if parameters.response_format is not None:
        return parameters.response_format
    name = parameters.model or ""
    if context.file_server is not None:
        return "b64_json" if _GPT_IMAGE.match(name) else "url"
    return "url" if _DALL_E.match(name) else "b64_json"


def size_of(image_request: ImageRequest) -> str:
    """The size of the delivered pictures as ``WIDTHxHEIGHT``."""
    return f"{image_request.width}x{image_request.height}"


def usage_of(image_request: ImageRequest, pictures: int) -> dict[str, Any]:
    """Token counts of the request and so many ``pictures`` of it in OpenAI's shape:
    text is its UTF-8 length / 4, a picture its pixels / 256 (one for each patch of
    16x16), both rounded up."""
    text = sum(
        -(-len(prompt.encode()) // _BYTES_PER_TOKEN)
        for prompt in (image_request.prompt, image_request.negative_prompt or "")
    )
    images = sum(
        -(-i.width * i.height // _PIXELS_PER_TOKEN) for i in image_request.images
    )
    output = -(-image_request.width * image_request.height // _PIXELS_PER_TOKEN)
    output *= pictures
    return {
        "input_tokens": text + images,
        "output_tokens": output,
        "total_tokens": text + images + output,
        "input_tokens_details": {"text_tokens": text, "image_tokens": images},
        "output_tokens_details": {"text_tokens": 0, "image_tokens": output},
    }
