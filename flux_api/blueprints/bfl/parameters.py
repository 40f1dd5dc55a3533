"""The parameters of Black Forest Labs' API, beside those that every API takes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Field

from flux_api.errors import InvalidRequest
from flux_api.http.bodies import Body
from flux_api.http.fields import Fields
from flux_api.http.parameters import (
    COUNT_NAMES,
    Guidance,
    Parameters,
    Side,
    refuse_others,
)
from flux_api.http.values import (
    Boolean,
    Integer,
    Number,
    Text,
    Word,
    read_integer,
)

_NUMBERED = re.compile(r"(?:input_)?image_([0-9]{1,2})")


def _read_side(value: object) -> int | None:
    """An int; None for 0, by which the hosted API means the model's own choice."""
    return read_integer(value) or None


class BflParameters(Parameters):
    """What a model's address takes."""

    width: Annotated[Side | None, BeforeValidator(_read_side)] = None
    """Pixels, on the model's grid."""
    height: Annotated[Side | None, BeforeValidator(_read_side)] = None
    """Pixels, on the model's grid."""
    guidance_scale: Annotated[
        Guidance,
        Field(validation_alias=AliasChoices("guidance", "guidance_scale", "cfg_scale")),
    ] = None
    """How closely to follow the prompt; ignored where it plays no part."""
    output_format: Annotated[Literal["jpeg", "png", "webp"] | None, Word] = None
    """The picture's file format, jpeg by default."""
    safety_tolerance: Annotated[int | None, Field(ge=0, le=6), Integer] = None
    """Nothing changes: the operator's filter decides."""
    prompt_upsampling: Annotated[bool, Boolean] = False
    """Nothing changes: prompts are taken as they are."""
    raw: Annotated[bool, Boolean] = False
    """Nothing changes: say it in the prompt."""
    image_prompt_strength: Annotated[float | None, Field(ge=0, le=1), Number] = None
    """Nothing changes: the model's own strength is used."""
    webhook_url: Annotated[str | None, Text] = None
    """Told how the request ended, on a host of FLUX_WEBHOOK_HOSTS."""
    webhook_secret: Annotated[str | None, Field(max_length=1024), Text] = None
    """Signs what the webhook is told."""

    @property
    def file_format(self) -> Literal["png", "jpeg", "webp"]:
        """The picture's file format."""
        return self.output_format or "jpeg"


_GENERATIONS = "/v1/images/generations"
# What other APIs of this server take, and where.
_ELSEWHERE = {
    "job_id": _GENERATIONS,
    **dict.fromkeys(COUNT_NAMES, _GENERATIONS),
    "stream": _GENERATIONS,
    "recipe_of": "/process",
}


class ResultParameters(Fields):
    """Which request."""

    id: Annotated[str, Field(max_length=256)] = ""
    """Its id."""


def read_parameters(values: Mapping[str, Any]) -> BflParameters:
    """The parameters among ``values``. InvalidRequest names what is wrong, and what
    other APIs have and this one has not."""
    refuse_others(values, _ELSEWHERE)
    parameters = BflParameters.read(values)
    if parameters.webhook_secret and not parameters.webhook_url:
        message = "A webhook_secret needs the webhook_url that it is for."
        raise InvalidRequest(message, param="webhook_url")
    return parameters


def in_order(body: Body) -> Body:
    """``body`` with its pictures by their numbers: ``input_image_2`` may have come
    before ``input_image``."""

    def number(pair: tuple[str, Any]) -> int:
        match = _NUMBERED.fullmatch(pair[0])
        return int(match[1]) if match else 0

    return Body(dict(sorted(body.values.items(), key=number)), body.uploads)
