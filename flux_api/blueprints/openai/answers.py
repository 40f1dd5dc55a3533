"""Finished pictures in the shapes of OpenAI's answers."""

from __future__ import annotations

import base64
import re
import time
from dataclasses import asdict
from typing import Any

from flux_api.blueprints.openai.parameters import ImagesParameters
from flux_api.core import ImageRequest, ImageResult
from flux_api.http.context import Context
from flux_api.images.codec import EncodedImage, encode_image

DELIVERY_SECONDS = 8.0
FALLBACK_HEADER = {"X-Flux-Delivery": "fallback"}

_GPT_IMAGE = re.compile(r"(gpt-image|chatgpt-image)")
_PIXELS_PER_TOKEN = 16 * 16
_BYTES_PER_TOKEN = 4


def render_response(
    context: Context,
    image_request: ImageRequest,
    parameters: ImagesParameters,
    results: tuple[ImageResult, ...],
) -> tuple[dict[str, Any], dict[str, str]]:
    """The body of a plain answer, and the headers that tell how it was delivered."""
    encoded = [
        encode_image(
            result.image, parameters.file_format, parameters.output_compression
        )
        for result in results
    ]
    urls, headers = _deliver(context, parameters, encoded)
    data = [
        _about(result)
        | ({"b64_json": to_base64(file)} if url is None else {"url": url})
        for result, file, url in zip(results, encoded, urls, strict=True)
    ]
    answer = {
        "created": int(time.time()),
        "background": "opaque",
        "data": data,
        "output_format": parameters.file_format,
        "quality": parameters.echoed_quality,
        "size": size_of(image_request),
        "model": image_request.model,
        "usage": usage_of(image_request),
    }
    if image_request.loras:
        answer["loras"] = [asdict(lora) for lora in image_request.loras]
    if parameters.safety_identifier is not None:
        answer["safety_identifier"] = parameters.safety_identifier
    return answer, headers


def _about(result: ImageResult) -> dict[str, Any]:
    """What a picture says beside its bytes, beyond OpenAI's own."""
    item: dict[str, Any] = {"seed": result.seed}
    if result.native_size is not None:
        item["native_size"] = "{}x{}".format(*result.native_size)
    return item


def _deliver(
    context: Context, parameters: ImagesParameters, encoded: list[EncodedImage]
) -> tuple[list[str | None], dict[str, str]]:
    """A URL for each picture, None where it goes out as ``b64_json``."""
    server = context.file_server
    if _key(parameters, with_file_server=server is not None) == "b64_json":
        return [None] * len(encoded), {}
    urls: list[str | None] = []
    until = time.monotonic() + DELIVERY_SECONDS
    for file in encoded:
        # After one failure the others would only wait for the same time-out, and a
        # slow file server must not make an answer late that was nearly so before.
        late = time.monotonic() > until
        url = server.upload(file) if server is not None and not late else None
        server = server if url else None
        urls.append(url or f"data:{file.media_type};base64,{to_base64(file)}")
    fallback = context.file_server is not None and server is None
    return urls, FALLBACK_HEADER if fallback else {}


def _key(parameters: ImagesParameters, *, with_file_server: bool) -> str:
    """``url`` or ``b64_json``: as asked, else what that model name's clients read."""
    if parameters.response_format is not None:
        return parameters.response_format
    name = parameters.model or ""
    if with_file_server:
        return "b64_json" if _GPT_IMAGE.match(name) else "url"
    return "url" if name.startswith("dall-e-") else "b64_json"


def size_of(image_request: ImageRequest) -> str:
    """The size of the delivered pictures as ``WIDTHxHEIGHT``."""
    return f"{image_request.width}x{image_request.height}"


def to_base64(encoded: EncodedImage) -> str:
    """The file's bytes as a JSON string holds them."""
    return base64.b64encode(encoded.data).decode("ascii")


def usage_of(image_request: ImageRequest) -> dict[str, Any]:
    """Token counts in OpenAI's shape: text is its UTF-8 length / 4, a picture its
    pixels / 256 (one for each patch of 16x16), both rounded up."""
    text = sum(
        -(-len(prompt.encode()) // _BYTES_PER_TOKEN)
        for prompt in (image_request.prompt, image_request.negative_prompt or "")
    )
    images = sum(
        -(-i.width * i.height // _PIXELS_PER_TOKEN) for i in image_request.images
    )
    output = -(-image_request.width * image_request.height // _PIXELS_PER_TOKEN)
    output *= image_request.num_images_per_prompt
    return {
        "input_tokens": text + images,
        "output_tokens": output,
        "total_tokens": text + images + output,
        "input_tokens_details": {"text_tokens": text, "image_tokens": images},
        "output_tokens_details": {"text_tokens": 0, "image_tokens": output},
    }
