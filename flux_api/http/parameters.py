"""The parameters of a generating request: each described once, as a Pydantic field.

From the fields come parsing, errors that name the parameter, and JSON Schema. Each API
adds its own to :class:`Parameters`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Field,
    WithJsonSchema,
    model_validator,
)

from flux_api.core import MAX_SEED, Lora
from flux_api.errors import InvalidRequest
from flux_api.http.fields import Fields
from flux_api.http.lora_values import LORAS_SCHEMA, Loras
from flux_api.http.values import (
    Boolean,
    Integer,
    Number,
    Text,
    read_integer,
    read_word,
    refuse,
    refuse_value,
)
from flux_api.models.sizes import SIDE_BOUNDS, SizeRules

# OpenAI's own bound: its clients know it.
MAX_PROMPT_CHARACTERS = 32_000
MAX_STEPS = 200
MAX_PARTIAL_IMAGES = 3
MOST_IMAGES = 10
FORMATS = ("png", "jpeg", "webp")

# What only some routes take, and which.
_TAKEN_ELSEWHERE = {
    **dict.fromkeys(
        ("webhook_url", "webhook_secret"), "/v1/flux-dev and its like take"
    ),
    "scale": "/v1/images/upscale and /process take",
    "recipe_of": "/process takes",
}

# What other APIs call a parameter that is not read by their name: values differ, too.
_OTHER_NAMES = {
    other: name
    for name, others in {
        "size": ("image_size", "resolution"),
        "width": ("w",),
        "height": ("h",),
        "n": ("num_outputs", "num_samples", "samples", "count"),
        "output_format": ("format", "output_type"),
        "output_compression": ("output_quality",),
        "guidance_scale": (
            *("cfg", "distilled_cfg_scale", "true_cfg_scale", "guidance_strength"),
        ),
        "strength": (
            *("denoising_strength", "denoise", "image_strength", "prompt_strength"),
        ),
        "num_inference_steps": ("num_steps", "sampling_steps", "inference_steps"),
        "seed": ("random_seed", "noise_seed"),
        "model": ("model_id", "model_name", "checkpoint"),
        "negative_prompt": ("negative",),
    }.items()
    for other in others
}

JOB_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
# Behind one address an id of this kind leads to the instance that made it.
CHOSEN_JOB_ID = re.compile(rf"(?!g[0-9]+-){JOB_ID.pattern}")
COUNT_NAMES = ("n", "num_images", "num_images_per_prompt", "batch_size")
"""What tools call the number of pictures."""

# What other APIs' parameters may say where they are not taken: it changes nothing.
_HARMLESS = {
    **dict.fromkeys(COUNT_NAMES, ("1", "1.0")),
    "stream": ("false", "0"),
    "quality": ("auto", "medium", "standard"),
    "background": ("auto", "opaque"),
}

# Input methods and texts on pictures have the sign of multiplication.
_SIZE = re.compile(r"([0-9]{1,5})[xX\u00d7]([0-9]{1,5})")
_RATIO = re.compile(r"([1-9][0-9]{0,3}):([1-9][0-9]{0,3})")
# Sides lie on a grid, so no size has its ratio to the last digit.
_SAME_SHAPE = 0.05
# Whatever is an integer is taken: the model's own grid says what is legal, and the
# nearest size. The schema tells what no model goes beyond.
Side = Annotated[
    int,
    Field(ge=-(10**9), le=10**9),
    WithJsonSchema(
        {"type": "integer", "minimum": SIDE_BOUNDS[0], "maximum": SIDE_BOUNDS[1]}
    ),
]
_Seed = Annotated[
    int,
    Field(ge=0, le=MAX_SEED),
    WithJsonSchema({"type": "integer", "minimum": -1, "maximum": MAX_SEED}),
]


Count = Annotated[
    int,
    Field(ge=1, le=MOST_IMAGES, validation_alias=AliasChoices(*COUNT_NAMES)),
    Integer,
]
"""The field of a request that says how many pictures."""
Guidance = Annotated[float | None, Field(ge=0.0, le=100.0), Number]
"""The model's guidance scale; which names it has is the dialect's own."""


def _read_seed(value: object) -> int | None:
    """An int; None for a negative one, which every tool of this field takes as
    random."""
    seed = read_integer(value)
    return seed if seed >= 0 else None


def _check_chosen(value: str | None) -> str | None:
    """``value``, unless it is of the kind that servers make."""
    if value is None or CHOSEN_JOB_ID.fullmatch(value):
        return value
    raise refuse(
        "invalid_value", "'g', a number and '-' begin only the ids that servers make"
    )


def refuse_others(values: Mapping[str, Any], elsewhere: Mapping[str, str]) -> None:
    """InvalidRequest where ``values`` has a parameter of another API, by its name in
    ``elsewhere`` with what to use, that asks for more than is done anyway."""
    for name, where in elsewhere.items():
        value = values.get(name)
        if value in (None, "") or str(value).strip().lower() in _HARMLESS.get(name, ()):
            continue
        message = f"This API does not support '{name}' with this value: use {where}."
        raise InvalidRequest(message, param=name, code="unsupported_parameter")


class Size(NamedTuple):
    """In pixels."""

    width: int
    height: int


def _read_size(value: object) -> Size | None:
    text = (read_word(value) or "auto").strip()
    if text.lower() == "auto":
        return None
    if match := _SIZE.fullmatch(text):
        return Size(int(match[1]), int(match[2]))
    raise refuse_value(f"Invalid size '{text}'. Expected WIDTHxHEIGHT or 'auto'.")


def _read_ratio(value: object) -> str | None:
    text = (read_word(value) or "auto").strip()
    # The second is Replicate's, for what an edit does anyway.
    if text.lower() in ("auto", "match_input_image"):
        return None
    if _RATIO.fullmatch(text):
        return text
    raise refuse("invalid_value", "expected WIDTH:HEIGHT, like 16:9")


def _ratio_of(text: str) -> float:
    width, height = text.split(":")
    return int(width) / int(height)


def _read_format(value: object) -> str | None:
    """The name of a file format as it is known here: files end in .jpg too."""
    word = (read_word(value) or "").strip().lower()
    return "jpeg" if word == "jpg" else word or None


class Parameters(Fields):
    """What every API takes. None means that the caller left it to the model."""

    prompt: Annotated[str | None, Field(max_length=MAX_PROMPT_CHARACTERS), Text] = None
    """What to draw."""
    negative_prompt: Annotated[
        str | None, Field(max_length=MAX_PROMPT_CHARACTERS), Text
    ] = None
    """What to avoid; only where the model takes one."""
    seed: Annotated[_Seed | None, BeforeValidator(_read_seed)] = None
    """Random when left out or negative; picture i of a request uses seed + i."""
    width: Annotated[Side | None, Integer] = None
    """Pixels, on the model's grid."""
    height: Annotated[Side | None, Integer] = None
    """Pixels, on the model's grid."""
    wanted_size: Annotated[
        Size | None,
        Field(validation_alias="size"),
        BeforeValidator(_read_size),
        WithJsonSchema({"type": "string", "pattern": f"^(auto|{_SIZE.pattern})$"}),
    ] = None
    """WIDTHxHEIGHT in pixels, or auto."""
    aspect_ratio: Annotated[str | None, BeforeValidator(_read_ratio)] = None
    """WIDTH:HEIGHT, for a picture as large as the default one; width and height win."""
    num_inference_steps: Annotated[
        int | None,
        Field(
            ge=1,
            le=MAX_STEPS,
            validation_alias=AliasChoices("num_inference_steps", "steps"),
        ),
        Integer,
    ] = None
    """Denoising steps."""
    guidance_scale: Annotated[
        Guidance,
        Field(validation_alias=AliasChoices("guidance_scale", "guidance", "cfg_scale")),
    ] = None
    """How closely to follow the prompt, where it plays a part."""
    strength: Annotated[float | None, Field(ge=0.0, le=1.0), Number] = None
    """How far a picture may change, where the model takes a strength."""
    model: Annotated[str | None, Field(max_length=256), Text] = None
    """A model that is offered."""
    loras: Annotated[tuple[Lora, ...], Loras, WithJsonSchema(LORAS_SCHEMA)] = ()
    """Registered LoRAs by name, each with its weight."""
    partial_images: Annotated[int, Field(ge=0, le=MAX_PARTIAL_IMAGES), Integer] = 0
    """How many previews to make on the way."""
    output_format: Annotated[
        Literal["png", "jpeg", "webp"] | None, BeforeValidator(_read_format)
    ] = None
    """The pictures' file format, png by default; jpg is jpeg."""
    output_compression: Annotated[int, Field(ge=0, le=100), Integer] = 100
    """The quality of jpeg and webp."""
    job_id: Annotated[
        str | None,
        Field(pattern=f"^{JOB_ID.pattern}$"),
        AfterValidator(_check_chosen),
        WithJsonSchema({"type": "string", "pattern": f"^{CHOSEN_JOB_ID.pattern}$"}),
    ] = None
    """The job's id, chosen by the caller."""
    dry_run: Annotated[bool, Boolean] = False
    """Tell what would be made, and when; nothing runs."""

    @model_validator(mode="before")
    @classmethod
    def _check_wrapping(cls, values: dict[str, Any]) -> dict[str, Any]:
        # Clients send what is in it as extra_body[name] in forms.
        wrapped = (v for n, v in values.items() if n.partition("[")[0] == "extra_body")
        if any(value not in ({}, "{}") for value in wrapped):
            raise InvalidRequest(
                "'extra_body' is the Python SDK's argument, which is never sent as "
                "such: send its fields beside the others.",
                param="extra_body",
                code="unsupported_parameter",
            )
        return values

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        for side, own in zip(self.wanted_size or (), ("width", "height"), strict=False):
            if getattr(self, own) not in (None, side):
                message = f"'size' and '{own}' say different things: send one of them."
                raise InvalidRequest(message, param=own)
        return self

    @model_validator(mode="after")
    def _check_compression(self) -> Self:
        if self.output_compression < 100 and self.file_format == "png":
            raise InvalidRequest(
                "Invalid 'output_compression': below 100 it needs the output_format "
                "jpeg or webp; PNG is lossless.",
                param="output_compression",
            )
        return self

    @classmethod
    def _note_on(cls, name: str, known: list[str]) -> str | None:
        if where := _TAKEN_ELSEWHERE.get(name):
            return f"'{name}' was ignored: POST {where} it."
        if (meant := _OTHER_NAMES.get(name)) in known:
            return f"'{name}' was ignored; did you mean '{meant}'?"
        return super()._note_on(name, known)

    @property
    def own_job_id(self) -> str | None:
        """The id for the job. A dry run takes none: there may be pictures under it."""
        return None if self.dry_run else self.job_id

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what came and was ignored."""
        if self.aspect_ratio is None or self.size == (None, None):
            return super().notes
        width, height = self.size
        if width and height:
            same = width / height / _ratio_of(self.aspect_ratio)
            if abs(same - 1) <= _SAME_SHAPE:
                return super().notes
        winner = self.size_param or ("height" if width is None else "width")
        note = f"'aspect_ratio' was ignored: '{winner}' wins."
        return (*super().notes, note)

    def in_shape(self, sizes: SizeRules) -> Self:
        """These parameters with the size that their ratio means among ``sizes``."""
        if self.aspect_ratio is None or self.size != (None, None):
            return self
        # As many pixels as the default size has, in the other shape.
        ratio, area = _ratio_of(self.aspect_ratio), math.prod(sizes.default)
        wanted = math.sqrt(area * ratio), math.sqrt(area / ratio)
        width, height = sizes.fit((round(wanted[0]) or 1, round(wanted[1]) or 1))
        found = {"width": width, "height": height, "aspect_ratio": None}
        return self.model_copy(update=found)

    @property
    def file_format(self) -> Literal["png", "jpeg", "webp"]:
        """The pictures' file format."""
        return self.output_format or "png"

    @property
    def size(self) -> tuple[int | None, int | None]:
        """(width, height) in pixels, None where the caller left them open."""
        return self.wanted_size or (self.width, self.height)

    @property
    def size_param(self) -> str | None:
        """What the caller calls a size, None for ``width`` and ``height``."""
        return "size" if self.wanted_size else None

    @property
    def num_images(self) -> int:
        """How many pictures to make."""
        return 1

    @property
    def steps_share(self) -> float:
        """What to multiply the model's default number of steps by."""
        return 1.0
