"""Values as callers write them, checked and completed into an ImageRequest."""

from __future__ import annotations

import json
import math
import re
import secrets
from collections.abc import Set
from typing import TYPE_CHECKING

from flux_api.core import MAX_SEED, MIN_SEED, SEED_MODULUS, ImageRequest, Lora, Mode
from flux_api.errors import InvalidRequest
from flux_api.models.info import merge_loras

if TYPE_CHECKING:
    from PIL.Image import Image

    from flux_api.models.info import ModelInfo

MAX_PROMPT_CHARACTERS = 32_000
MAX_STEPS = 200
MAX_GUIDANCE = 100.0
MAX_LORAS = 8
MAX_WEIGHT = 10.0
MAX_PARTIAL_IMAGES = 3

_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_LORA_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NO_TEXT = re.compile(r"[\x00\ud800-\udfff]")
_SIZE = re.compile(r"([0-9]{1,5})[xX]([0-9]{1,5})")


def parse_integer(value: object, param: str, low: int, high: int) -> int | None:
    """An int in ``low..high`` out of JSON or form text; None when absent or empty."""
    if value is None or value == "":
        return None
    number: int | None = None
    if isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
        number = int(value.strip())
    elif isinstance(value, int) and type(value) is not bool and abs(value) < 10**20:
        number = value
    elif isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        number = int(value)
    if number is None:
        message = f"Invalid '{param}': expected an integer."
        raise InvalidRequest(message, param=param, code="invalid_type")
    if number > high:
        raise InvalidRequest(
            f"Invalid '{param}': integer above maximum value. "
            f"Expected a value <= {high}, but got {number} instead.",
            param=param,
            code="integer_above_max_value",
        )
    if number < low:
        raise InvalidRequest(
            f"Invalid '{param}': integer below minimum value. "
            f"Expected a value >= {low}, but got {number} instead.",
            param=param,
            code="integer_below_min_value",
        )
    return number


def parse_seed(value: object) -> int | None:
    """A seed from -2^63 to 2^64-1, None when absent."""
    return parse_integer(value, "seed", MIN_SEED, MAX_SEED)


def parse_number(value: object, param: str, low: float, high: float) -> float | None:
    """A finite float in ``low..high``, None when absent or empty."""
    if value is None or value == "":
        return None
    number = math.nan
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
    if not low <= number <= high:
        message = f"Invalid '{param}': expected a number from {low:g} to {high:g}."
        raise InvalidRequest(message, param=param)
    return number


def parse_text(
    value: object, param: str, longest: int = MAX_PROMPT_CHARACTERS
) -> str | None:
    """A string of at most ``longest`` characters; None when absent or blank."""
    if value is None:
        return None
    if not isinstance(value, str):
        message = f"Invalid '{param}': expected a string."
        raise InvalidRequest(message, param=param, code="invalid_type")
    if len(value) > longest:
        raise InvalidRequest(
            f"Invalid '{param}': string too long. Expected at most {longest} "
            f"characters, but got {len(value)} instead.",
            param=param,
            code="string_above_max_length",
        )
    if _NO_TEXT.search(value):
        message = f"Invalid '{param}': contains NUL or half a surrogate pair."
        raise InvalidRequest(message, param=param)
    return value if value.strip() else None


def parse_size(value: object) -> tuple[int, int] | None:
    """(width, height) out of ``WIDTHxHEIGHT``; None when absent or ``auto``."""
    text = parse_text(value, "size", 64)
    if text is None or text.strip().lower() == "auto":
        return None
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        message = f"Invalid size '{text}'. Expected WIDTHxHEIGHT or 'auto'."
        raise InvalidRequest(message, param="size")
    return int(match[1]), int(match[2])


def parse_loras(value: object) -> tuple[Lora, ...]:
    """LoRAs out of ``[{"name": ..., "adapter_weight": ...}]``, the same as JSON text,
    or ``name:0.8,name2``; () when absent."""
    if isinstance(value, str) and value.strip():
        value = _loras_of_text(value.strip())
    if value is None or value == "":
        return ()
    if not isinstance(value, list) or len(value) > MAX_LORAS:
        message = f"Invalid 'loras': expected a list of at most {MAX_LORAS}."
        raise InvalidRequest(message, param="loras", code="invalid_type")
    found: dict[str, Lora] = {}
    for item in value:
        item = {"name": item} if isinstance(item, str) else item
        name = item.get("name") if isinstance(item, dict) else None
        if not isinstance(name, str) or not _LORA_NAME.fullmatch(name):
            message = "Invalid 'loras': expected registered names, never a path."
            raise InvalidRequest(message, param="loras")
        if name in found or item.keys() - {"name", "adapter_weight"}:
            message = (
                "Invalid 'loras': expected each name once, with its adapter_weight."
            )
            raise InvalidRequest(message, param="loras")
        weight = item.get("adapter_weight")
        number = parse_number(weight, "loras", -MAX_WEIGHT, MAX_WEIGHT)
        found[name] = Lora(name, 1.0 if number is None else number)
    return tuple(found.values())


def _loras_of_text(text: str) -> object:
    if text.startswith(("[", "{")):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            message = "Invalid 'loras': the JSON is malformed."
            raise InvalidRequest(message, param="loras") from None
    parts = [part.strip().partition(":") for part in text.split(",")]
    return [{"name": p[0].strip(), "adapter_weight": p[2].strip()} for p in parts]


def choose_mode(prompt: str | None, images: tuple[Image, ...]) -> Mode:
    """What the caller means: image and prompt edit, an image alone variation, a prompt
    alone generate; InvalidRequest with neither."""
    if images:
        return "edit" if prompt else "variation"
    if prompt:
        return "generate"
    raise InvalidRequest(
        "Send a prompt, an image, or both.",
        param="prompt",
        code="missing_required_parameter",
    )


def complete_request(
    name: str,
    model: ModelInfo,
    mode: Mode,
    *,
    prompt: str | None,
    negative_prompt: str | None = None,
    images: tuple[Image, ...] = (),
    mask_image: Image | None = None,
    width: int | None = None,
    height: int | None = None,
    size_param: str | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    num_images_per_prompt: int = 1,
    seed: int | None = None,
    loras: tuple[Lora, ...] = (),
    lora_names: Set[str] = frozenset(),
    partial_images: int = 0,
) -> ImageRequest:
    """The request with the set's defaults filled in; InvalidRequest names the parameter
    that the set cannot honour (``size_param`` is what this API calls width and height,
    ``lora_names`` are the registered LoRAs beside the set's own).
    """
    task = model.task(mode, masked=mask_image is not None)
    task.check(len(images), negative_prompt)
    default = model.sizes.fit(images[0].size) if images else model.sizes.default
    size = model.sizes.choose(default, (width, height), size_param)
    return ImageRequest(
        mode=mode,
        model=name,
        prompt=prompt or "",
        negative_prompt=negative_prompt,
        images=images,
        mask_image=mask_image,
        width=size[0],
        height=size[1],
        num_inference_steps=num_inference_steps or task.num_inference_steps,
        guidance_scale=task.choose_guidance(guidance_scale),
        strength=task.strength,
        num_images_per_prompt=num_images_per_prompt,
        seed=secrets.randbits(32) if seed is None else seed % SEED_MODULUS,
        loras=merge_loras(task.loras, loras, model.lora_files.keys() | lora_names),
        partial_images=partial_images,
    )
