"""Finished pictures on their way out: encoded, described and stored once, for every
API."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

import pybase64
from flask import Response

from flux_api.core import ImageRequest, ImageResult
from flux_api.http.clients import DELIVERY_SECONDS
from flux_api.http.context import Context
from flux_api.http.marking import mark
from flux_api.http.parameters import Parameters
from flux_api.images.codec import EncodedImage, encode_image
from flux_api.metrics.instruments import measured
from flux_api.queue.jobs import Job
from flux_api.queue.results import FinishedPicture

FALLBACK_HEADER = {"X-Flux-Delivery": "fallback"}

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
    "X-Flux-Performance": "performance",
    "X-Flux-Warning": "warning",
}


def describe(image_request: ImageRequest, result: ImageResult) -> dict[str, Any]:
    """The facts of a picture: what was asked for, with every default, and its seed."""
    facts: dict[str, Any] = image_request.facts | {
        "seed": result.seed,
        "width": result.image.width,
        "height": result.image.height,
        "performance": result.performance,
        "loras": [dataclasses.asdict(lora) for lora in image_request.loras],
    }
    if image_request.warnings:
        facts["warning"] = " ".join(image_request.warnings)
    if result.native_size is not None:
        facts["native_width"], facts["native_height"] = result.native_size
    return facts


def to_file(picture: FinishedPicture) -> Response:
    """An answer that is the file, its facts in ``X-Flux-*`` headers, in ASCII."""
    facts = picture.facts
    headers = {
        header: str("" if facts[name] is None else facts[name])
        for header, name in _FACT_HEADERS.items()
        if name in facts
    }
    # ASCII, as headers are; names of LoRAs may be in any script.
    headers["X-Flux-Loras"] = json.dumps(facts["loras"])
    return Response(picture.data, mimetype=picture.media_type, headers=headers)


def encode_pictures(
    context: Context,
    job: Job,
    parameters: Parameters,
    results: tuple[ImageResult, ...],
) -> list[FinishedPicture]:
    """The pictures of ``job`` as files in the format of ``parameters``, which say of
    themselves what FLUX_METADATA has them say, and are signed last: nothing may change
    after that."""
    compression, pictures = parameters.output_compression, []
    for result in results:
        with measured("encode_file"):
            file = encode_image(result.image, parameters.file_format, compression)
        facts = describe(job.request, result)
        file, recipe = mark(context, job.request, facts, file, compression)
        file = _sign(context, job.request, facts, file)
        picture = FinishedPicture(file.data, file.media_type, facts, recipe)
        pictures.append(picture)
    return pictures


def _sign(
    context: Context,
    image_request: ImageRequest,
    facts: dict[str, Any],
    file: EncodedImage,
) -> EncodedImage:
    """``file`` with content credentials, where there is a certificate for them; what
    lacks is told in ``facts``."""
    if context.signer is None:
        return file
    kept = [one.credentials for one in image_request.image_files]
    with measured("sign"):
        file, note = context.signer.sign(file, image_request.mode, kept)
    if note:
        facts["warning"] = " ".join(filter(None, (facts.get("warning"), note)))
    return file


def upload_pictures(
    context: Context, job: Job, pictures: list[FinishedPicture]
) -> tuple[list[FinishedPicture], dict[str, str]]:
    """The pictures of ``job`` with their URLs on the file server, as far as it takes
    them, and the header that says where it did not."""
    server = context.file_server
    if server is None:
        return pictures, {}
    stored = []
    until = time.monotonic() + DELIVERY_SECONDS
    for picture in pictures:
        # After one failure the others would only wait for the same time-out, and a
        # slow file server must not make an answer late that was nearly so before.
        late = time.monotonic() > until
        file = EncodedImage(picture.data, picture.media_type)
        url = None
        if server is not None and not late:
            with measured("upload"):
                trace = job.traceparent
                url = server.upload(file, picture.recipe, traceparent=trace)
        server = server if url else None
        stored.append(dataclasses.replace(picture, url=url))
    return stored, {} if server else FALLBACK_HEADER


def to_base64(data: bytes) -> str:
    """A file's bytes as a JSON string holds them."""
    return pybase64.b64encode_as_string(data)


def to_data_url(picture: FinishedPicture) -> str:
    """The file as a URL that holds it."""
    return f"data:{picture.media_type};base64,{to_base64(picture.data)}"
