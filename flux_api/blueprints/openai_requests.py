"""OpenAI's request parameters, JSON or form, to an ImageRequest and an Output."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from flux_api.blueprints import Context
from flux_api.blueprints.bodies import Body
from flux_api.core import ImageRequest
from flux_api.errors import InvalidRequest
from flux_api.images import (
    decode_base64,
    decode_data_url,
    decode_image,
    decode_mask,
)
from flux_api.models import find_model
from flux_api.parameters import (
    MAX_GUIDANCE,
    MAX_STEPS,
    choose_mode,
    complete_request,
    parse_integer,
    parse_number,
    parse_seed,
    parse_size,
    parse_text,
)

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_IMAGES = 16

_IMAGE_FIELD = re.compile(r"(image|images)(\[[0-9]{0,3}\])?")
_MASK_FIELDS = ("mask", "mask[]", "mask_image")
# The share of a set's default steps that each quality takes, and what is echoed:
# some clients know no other words than low, medium and high.
_QUALITY = {
    "low": (0.5, "low"),
    "medium": (1.0, "medium"),
    "auto": (1.0, "medium"),
    "standard": (1.0, "medium"),
    "high": (1.5, "high"),
    "hd": (1.5, "high"),
    "xhigh": (2.0, "high"),
    "max": (3.0, "high"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """How the pictures are to be delivered; it never reaches the manager.

    ``output_compression`` is 0..100, ``quality`` the word to echo, ``model_name`` what
    the request called its model.
    """

    response_format: Literal["url", "b64_json"] | None
    output_format: str
    output_compression: int
    quality: str
    model_name: str | None


Parsed = tuple[ImageRequest, Output]


def parse_generation(here: Context, body: Body) -> Parsed:
    """``POST /images/generations``: a prompt."""
    return _parse(here, body, prompt_needed=True, images_needed=False)


def parse_edit(here: Context, body: Body) -> Parsed:
    """``POST /images/edits``: pictures and a prompt, perhaps a mask."""
    return _parse(here, body, prompt_needed=True, images_needed=True)


def parse_variation(here: Context, body: Body) -> Parsed:
    """``POST /images/variations``: one picture."""
    return _parse(here, body, prompt_needed=False, images_needed=True)


def _parse(
    here: Context, body: Body, *, prompt_needed: bool, images_needed: bool
) -> Parsed:
    values = {name: value for name, value in body.values.items() if value != ""}
    prompt = parse_text(values.get("prompt"), "prompt")
    if prompt_needed and prompt is None:
        raise _missing("prompt")
    size = parse_size(values.get("size"))
    count = parse_integer(values.get("n"), "n", 1, 10) or 1
    seed = parse_seed(values.get("seed"))
    model_name = parse_text(values.get("model"), "model", 256)
    output, steps_share = _parse_output(values, model_name)
    steps = _first(values, "num_inference_steps", "steps")
    num_inference_steps = parse_integer(*steps, 1, MAX_STEPS)
    guidance = _first(values, "guidance_scale")
    guidance_scale = parse_number(*guidance, 0, MAX_GUIDANCE)
    name = find_model(here.models, here.settings.model, model_name, strict=False)
    model = here.models[name]
    images: tuple[Image, ...] = ()
    mask_image = None
    if images_needed:
        images = tuple(decode_image(d, param="image") for d in _images(here, body))
        if not images:
            raise _missing("image")
        mask_image = _mask(here, body, images[0])
    mode = choose_mode(prompt if prompt_needed else None, images)
    task = model.task(mode, masked=mask_image is not None)
    if num_inference_steps is None:
        num_inference_steps = max(1, math.ceil(task.num_inference_steps * steps_share))
    request = complete_request(
        name,
        model,
        mode,
        prompt=prompt,
        negative_prompt=parse_text(values.get("negative_prompt"), "negative_prompt"),
        images=images,
        mask_image=mask_image,
        width=size[0] if size else None,
        height=size[1] if size else None,
        size_param="size",
        num_inference_steps=min(num_inference_steps, MAX_STEPS),
        guidance_scale=guidance_scale,
        num_images_per_prompt=count,
        seed=seed,
    )
    return request, output


def _parse_output(
    values: dict[str, Any], model_name: str | None
) -> tuple[Output, float]:
    response_format = _choice(values, "response_format", ("url", "b64_json"))
    output_format = _choice(values, "output_format", ("png", "jpeg", "webp")) or "png"
    background = _choice(values, "background", ("auto", "opaque", "transparent"))
    if background == "transparent":
        raise InvalidRequest(
            "Invalid value: 'transparent'. Flux models draw opaque pictures only: "
            "supported values are: 'opaque' and 'auto'.",
            param="background",
        )
    quality = _choice(values, "quality", tuple(_QUALITY)) or "auto"
    share, echoed = _QUALITY[quality]
    compression = parse_integer(
        values.get("output_compression"), "output_compression", 0, 100
    )
    output = Output(
        response_format="url"
        if response_format == "url"
        else "b64_json"
        if response_format
        else None,
        output_format=output_format,
        output_compression=100 if compression is None else compression,
        quality=echoed,
        model_name=model_name,
    )
    return output, share


def _choice(values: dict[str, Any], param: str, known: tuple[str, ...]) -> str | None:
    text = parse_text(values.get(param), param, 64)
    if text is None or text in known:
        return text
    listed = ", ".join(f"'{word}'" for word in known[:-1]) + f", and '{known[-1]}'"
    message = f"Invalid value: '{text}'. Supported values are: {listed}."
    raise InvalidRequest(message, param=param)


def _first(values: dict[str, Any], *names: str) -> tuple[Any, str]:
    """The value of the first of ``names`` that is given, and that name."""
    return next(
        ((values[n], n) for n in names if values.get(n) is not None), (None, names[0])
    )


def _missing(param: str) -> InvalidRequest:
    message = f"Missing required parameter: '{param}'."
    return InvalidRequest(message, param=param, code="missing_required_parameter")


def _images(here: Context, body: Body) -> list[bytes]:
    """The input pictures' bytes, in the order of arrival."""
    found = [u.data for u in body.uploads if _IMAGE_FIELD.fullmatch(u.name)]
    for name, value in body.values.items():
        if _IMAGE_FIELD.fullmatch(name):
            found += [_referenced(here, ref, "image") for ref in _references(value)]
            _check_count(found)
    _check_count(found)
    return found


def _check_count(found: list[bytes]) -> None:
    if len(found) > MAX_IMAGES:
        message = f"At most {MAX_IMAGES} input images may be sent."
        raise InvalidRequest(message, param="image", code="array_above_max_length")


def _mask(here: Context, body: Body, first: Image) -> Image | None:
    found = list(body.files(*_MASK_FIELDS))
    for name in _MASK_FIELDS:
        references = _references(body.values.get(name))
        found += [_referenced(here, ref, "mask") for ref in references]
    if len(found) > 1:
        raise InvalidRequest("Only one mask may be sent.", param="mask")
    return decode_mask(found[0], size=first.size, param="mask") if found else None


def _references(value: Any) -> Iterator[Any]:
    """The single references in ``value``: a string, an object, or a list of them."""
    if isinstance(value, list):
        yield from value
    elif value not in (None, "", {}):
        yield value


def _referenced(here: Context, reference: Any, param: str) -> bytes:
    """The bytes of a data URL, a bare Base64 text or an http(s) URL, as clients wrap
    them: ``{"image_url": ...}``, ``{"url": ...}``, ``{"b64_json": ...}``."""
    for key in ("image_url", "url", "b64_json", "base64"):
        if isinstance(reference, dict) and reference.get(key) is not None:
            return _referenced(here, reference[key], param)
    if not isinstance(reference, str):
        if isinstance(reference, dict) and "file_id" in reference:
            message = "'file_id' is not supported: send a data URL or a form file."
            raise InvalidRequest(message, param=param)
        message = f"Invalid '{param}': expected a file, a URL or Base64."
        raise InvalidRequest(message, param=param, code="invalid_type")
    if re.match(r"https?:", reference.lstrip(), re.IGNORECASE):
        return here.fetcher.fetch(reference.strip(), param=param)
    if reference.lstrip()[:5].lower() == "data:":
        return decode_data_url(reference.strip(), param=param)
    return decode_base64(reference, param=param)
