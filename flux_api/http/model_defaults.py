"""A request completed with its model's defaults: nothing is optional after this."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flux_api.core import ImageRequest, InputFile, Mode
from flux_api.errors import InvalidRequest
from flux_api.http.context import Context
from flux_api.http.parameters import MAX_STEPS, Parameters
from flux_api.models.info import ModelInfo, TaskDefaults, merge_loras
from flux_api.models.known_words import knows, knows_order, two_things
from flux_api.models.near_names import did_you_mean

if TYPE_CHECKING:
    from PIL.Image import Image

_OF_OPENAI = re.compile(r"(openai/)?(chatgpt-|gpt-|dall-e)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """The decoded pictures of a request: ``images`` are RGB, ``mask_image`` is "L"
    with 255 where to repaint the first of them. ``image_files`` and ``mask_file`` are
    what they came as, ``warnings`` are for the caller."""

    images: tuple[Image, ...] = ()
    mask_image: Image | None = None
    warnings: tuple[str, ...] = ()
    image_files: tuple[InputFile, ...] = ()
    mask_file: InputFile | None = None


def choose_mode(
    prompt: str | None, images: tuple[Image, ...], notes: tuple[str, ...] = ()
) -> Mode:
    """What the caller means: image and prompt edit, an image alone variation, a prompt
    alone generate; InvalidRequest with neither, and with what may have been meant."""
    if images:
        return "edit" if prompt else "variation"
    if prompt:
        return "generate"
    raise InvalidRequest(
        " ".join(("Send a prompt, an image, or both.", *notes)),
        param="prompt",
        code="missing_required_parameter",
    )


def check_size(model: ModelInfo, parameters: Parameters) -> None:
    """InvalidRequest where no picture of ``model`` has the size that is asked for:
    known before any input is decoded. A side left open is the default one, or the
    smallest where that would be too large."""
    sizes = model.sizes
    parameters = parameters.in_shape(sizes)
    width, height = (
        own if asked is None else asked
        for own, asked in zip(sizes.default, parameters.size, strict=True)
    )
    fits = width * height <= sizes.max_pixels
    default = sizes.default if fits else (sizes.minimum, sizes.minimum)
    _choose_size(model, default, parameters)


def complete(
    context: Context,
    name: str,
    mode: Mode,
    parameters: Parameters,
    inputs: Inputs,
    *,
    model: ModelInfo | None = None,
) -> ImageRequest:
    """The request to the set that this server offers as ``name``, or to ``model`` in
    its place; InvalidRequest names the parameter that it cannot honour."""
    model = model or context.models[name]
    return complete_request(
        name,
        model,
        mode,
        parameters,
        inputs,
        lora_names=context.lora_names(model, parameters.loras),
        model_names=context.models.keys(),
    )


def complete_request(
    name: str,
    model: ModelInfo,
    mode: Mode,
    parameters: Parameters,
    inputs: Inputs,
    *,
    lora_names: Set[str] = frozenset(),
    model_names: Set[str] = frozenset(),
) -> ImageRequest:
    """The request to ``model``, which is offered as ``name``. InvalidRequest names the
    parameter that it cannot honour; ``lora_names`` are the registered LoRAs beside its
    own, ``model_names`` those that are offered."""
    images, mask_image = inputs.images, inputs.mask_image
    task = model.task(mode, masked=mask_image is not None)
    task.check(len(images), parameters.negative_prompt)
    parameters = parameters.in_shape(model.sizes)
    width, height = _size_of(images, model, parameters)
    steps = _steps_of(task, parameters)
    guidance_scale = task.choose_guidance(parameters.guidance_scale)
    # Names, never paths: nothing of a request reaches the file system.
    known = model.lora_files.keys() | lora_names
    return ImageRequest(
        mode=mode,
        model=name,
        prompt=parameters.prompt or "",
        negative_prompt=parameters.negative_prompt,
        images=images,
        mask_image=mask_image,
        width=width,
        height=height,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        strength=task.choose_strength(parameters.strength, steps),
        num_images_per_prompt=parameters.num_images,
        seed=_seed_of(parameters),
        loras=merge_loras(task.loras, parameters.loras, known),
        partial_images=parameters.partial_images,
        warnings=(
            *parameters.notes,
            *inputs.warnings,
            *_other_model(name, model, parameters.model, model_names),
            *_empty_mask(mask_image),
            *_unread_negative_prompt(parameters.negative_prompt, guidance_scale),
            *_of_small_models(name, model, mode, parameters.prompt, mask_image),
        ),
        image_files=inputs.image_files,
        mask_file=inputs.mask_file,
    )


def _size_of(
    images: Sequence[Image], model: ModelInfo, parameters: Parameters
) -> tuple[int, int]:
    default = model.sizes.default
    # Who edits a picture and names no size means the size of that picture.
    if images:
        default = model.sizes.fit(_scaled_to(images[0].size, parameters.size))
    return _choose_size(model, default, parameters)


def _steps_of(task: TaskDefaults, parameters: Parameters) -> int:
    steps = parameters.num_inference_steps or math.ceil(
        task.num_inference_steps * parameters.steps_share
    )
    # Three times the model's own steps may be more than may be.
    return min(steps, MAX_STEPS)


def _seed_of(parameters: Parameters) -> int:
    if parameters.seed is not None:
        return parameters.seed
    # Each picture's below 2^32: what JavaScript can send back.
    return secrets.randbelow(2**32 + 1 - parameters.num_images)


def _scaled_to(
    size: tuple[int, int], asked: tuple[int | None, int | None]
) -> tuple[int, int]:
    """``size``, scaled to the one side that is ``asked`` for."""
    (width, height), (wanted, other) = size, asked
    if wanted is not None and other is None:
        return max(1, wanted), max(1, round(height * wanted / width))
    if other is not None and wanted is None:
        return max(1, round(width * other / height)), max(1, other)
    return size


def _choose_size(
    model: ModelInfo, default: tuple[int, int], parameters: Parameters
) -> tuple[int, int]:
    sizes = model.sizes
    try:
        return sizes.choose(default, parameters.size, parameters.size_param)
    except InvalidRequest as refusal:
        refusal.limits = {
            "minimum": sizes.minimum,
            "maximum": sizes.maximum,
            "multiple": sizes.multiple,
            "given": "x".join("?" if s is None else str(s) for s in parameters.size),
        }
        raise


def _other_model(
    name: str, model: ModelInfo, asked: str | None, offered: Set[str]
) -> list[str]:
    """A warning where ``asked`` is no model's name, so that the default was taken."""
    if not asked or asked == name or model.is_called(asked):
        return []
    # Apps have those of OpenAI built in.
    if _OF_OPENAI.match(asked):
        return []
    meant = did_you_mean(asked, sorted(offered))
    # It goes into a header, too.
    return [f"There is no model {asked[:64]!a}, so {name!r} was taken.{meant}"]


def _empty_mask(mask: Image | None) -> list[str]:
    """A warning where ``mask`` is black all over."""
    if mask is None or mask.getbbox() is not None:
        return []
    return ["The mask leaves nothing to repaint."]


def _unread_negative_prompt(text: str | None, guidance: float | None) -> list[str]:
    """A warning where a picture is not guided, so not away from ``text`` either."""
    if not text or guidance is None or guidance > 1:
        return []
    return [
        f"negative_prompt plays no part: guidance_scale is {guidance:g}, not above 1."
    ]


def _of_small_models(
    name: str, model: ModelInfo, mode: Mode, prompt: str | None, mask: Image | None
) -> list[str]:
    """A warning where a small model cannot do what ``prompt`` says."""
    source, prompt = model.base_model, prompt or ""
    if not knows(source, prompt):
        return [
            f"The model {name!r} knows no word of this prompt; GET /v1/models/{name} "
            "lists what it draws."
        ]
    if mode == "edit" and mask is None and not knows_order(source, prompt):
        return [
            f"The model {name!r} does not know this order; GET /v1/models/{name} lists "
            "the changes that it knows."
        ]
    if mode == "generate" and two_things(source, prompt):
        return [
            f"The model {name!r} draws one thing at a time, and this prompt names two; "
            "send a request for each."
        ]
    return []
