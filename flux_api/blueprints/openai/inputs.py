"""Input pictures of an OpenAI request: file parts, data URLs, Base64, URLs."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from flux_api.errors import ImageFetchFailed, InvalidRequest
from flux_api.http.bodies import Body
from flux_api.http.context import Context
from flux_api.images.data_urls import decode_base64, decode_data_url

if TYPE_CHECKING:
    from PIL.Image import Image

    from flux_api.models.info import ModelInfo

MAX_IMAGES = 16
FETCH_SECONDS = 30.0

_IMAGE_FIELD = re.compile(r"images?(\[[0-9]{0,3}\])?")
_MASK_FIELD = re.compile(r"mask(\[[0-9]{0,3}\])?|mask_image")
_WRAPPINGS = ("image_url", "url", "b64_json", "base64")
_DEEPEST_WRAPPING = 3
_REMOTE = re.compile(r"\s*https?:", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]{1,3}")


def decode_images(context: Context, body: Body, model: ModelInfo) -> tuple[Image, ...]:
    """The pictures of ``image``, ``image[]``, ``image[N]`` and ``images`` together, in
    the order of arrival; more than ``model`` ever takes are not even decoded."""
    found = _find(context, body, _IMAGE_FIELD, "image", MAX_IMAGES)
    if not found:
        raise InvalidRequest(
            "Missing required parameter: 'image'.",
            param="image",
            code="missing_required_parameter",
        )
    max(model.tasks.values(), key=lambda task: task.max_images).check(len(found), None)
    images: list[Image] = []
    for data in found:
        images.append(context.decoder.image(data, param="image"))
    return tuple(images)


def decode_one_mask(context: Context, body: Body, first: Image) -> Image | None:
    """The mask for the ``first`` picture, None when there is none."""
    found = _find(context, body, _MASK_FIELD, "mask", 1)
    if not found:
        return None
    return context.decoder.mask(found[0], size=first.size, param="mask")


def _find(
    context: Context, body: Body, field: re.Pattern[str], param: str, most: int
) -> list[bytes]:
    given: list[Any] = []
    for name, value in body.parts:
        if field.fullmatch(name):
            given += value if isinstance(value, list) else [value]
    given = [reference for reference in given if reference not in (None, "", {})]
    if len(given) > most:
        message = (
            f"Invalid '{param}': at most {most} may be sent, but got {len(given)}."
        )
        raise InvalidRequest(message, param=param, code="array_above_max_length")
    return list(_read(context, given, param))


def _read(context: Context, given: list[Any], param: str) -> Iterator[bytes]:
    began = time.monotonic()
    for reference in given:
        if isinstance(reference, bytes):
            yield reference
            continue
        text = _unwrap(reference, param)
        if not _REMOTE.match(text):
            yield _decode_text(text, param)
        elif time.monotonic() - began > FETCH_SECONDS:
            raise ImageFetchFailed(f"cannot fetch {param} in time", param=param)
        else:
            yield context.fetcher.fetch(text.strip(), param=param)


def _decode_text(text: str, param: str) -> bytes:
    if text.lstrip()[:5].lower() == "data:":
        return decode_data_url(text.strip(), param=param)
    if _NUMBER.fullmatch(text.strip()):
        # What a JavaScript Buffer becomes in a form: a field for each of its bytes.
        message = f"Invalid '{param}': a number. Send the image as a file."
        raise InvalidRequest(message, param=param, code="invalid_type")
    return decode_base64(text, param=param)


def _unwrap(reference: Any, param: str) -> str:
    """The text in ``{"image_url": ...}``, ``{"image_url": {"url": ...}}``,
    ``{"url": ...}``, ``{"b64_json": ...}``, ``{"base64": ...}`` or as it stands."""
    for _ in range(_DEEPEST_WRAPPING):
        if isinstance(reference, str):
            return reference
        if not isinstance(reference, dict):
            break
        if reference.get("file_id") is not None:
            message = "'file_id' is not supported: send a data URL or a form file."
            raise InvalidRequest(message, param="images" if param == "image" else param)
        reference = next(
            (reference[k] for k in _WRAPPINGS if reference.get(k) is not None), None
        )
    message = f"Invalid '{param}': expected a file, a URL or Base64."
    raise InvalidRequest(message, param=param, code="invalid_type")
