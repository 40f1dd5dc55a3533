"""The parameters of OpenAI's Images API, beside those that every API takes."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from flux_api.errors import InvalidRequest
from flux_api.http.parameters import Count, Parameters
from flux_api.http.upscaling import Scale
from flux_api.http.values import Boolean, Text, Word, read_word, refuse_value

QUALITY = {
    "low": (0.5, "low"),
    "medium": (1.0, "medium"),
    "auto": (1.0, "medium"),
    "standard": (1.0, "medium"),
    "high": (1.5, "high"),
    "hd": (1.5, "high"),
    "xhigh": (2.0, "xhigh"),
    "max": (3.0, "max"),
}
"""The share of a model's default steps that each quality takes, and what is echoed:
``openai.types.ImagesResponse`` has no auto, standard and hd."""

REFUSED = {
    "markup": "Flux models; use a mask, or say in the prompt what to change",
    "complexity": "Flux models; choose 'quality' or 'num_inference_steps'",
    "svg": "Flux models; pictures are png, jpeg or webp",
    "frame_count": "Flux models; pictures do not move",
    "frame_duration_ms": "Flux models; pictures do not move",
    "recipe_of": "this API; /process makes a stored picture again",
    "bearer_token": "this API; only /process sends it to the host of a picture's URL",
}
"""Parameters that cannot be honoured, each with by whom, and what to do."""


def _read_background(value: object) -> str | None:
    if value == "transparent":
        raise refuse_value(
            "Invalid value: 'transparent'. Flux models draw opaque pictures only. "
            "Supported values are: 'opaque' and 'auto'."
        )
    return read_word(value)


class ImagesParameters(Parameters):
    """What generations, edits and variations take. All are checked in every operation,
    those without an effect too."""

    n: Count = 1
    """How many pictures."""
    quality: Annotated[
        Literal["low", "medium", "auto", "standard", "high", "hd", "xhigh", "max"]
        | None,
        Word,
    ] = None
    """Steps, as a share of the model's default."""
    background: Annotated[
        Literal["opaque", "auto"] | None, BeforeValidator(_read_background)
    ] = None
    """Pictures are opaque."""
    moderation: Annotated[Literal["low", "auto"] | None, Word] = None
    """Nothing changes: the operator's filter decides."""
    style: Annotated[Literal["vivid", "natural"] | None, Word] = None
    """Nothing changes: say it in the prompt."""
    input_fidelity: Annotated[Literal["low", "high"] | None, Word] = None
    """Nothing changes: input pictures are always read whole."""
    user: Annotated[str | None, Field(max_length=32_000), Text] = None
    """Echoed as safety_identifier, which wins; not kept."""
    response_format: Annotated[Literal["url", "b64_json"] | None, Word] = None
    """Left out: what the model's name says its clients read."""
    safety_identifier: Annotated[str | None, Field(max_length=32_000), Text] = None
    """Echoed, not kept."""
    stream: Annotated[bool, Boolean] = False
    """Answer with server-sent events."""

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.stream and self.response_format == "url":
            raise InvalidRequest(
                "Streamed pictures are Base64: 'url' is only supported without stream.",
                param="response_format",
            )
        if self.stream and self.dry_run:
            message = "A dry run is told at once: send it without 'stream'."
            raise InvalidRequest(message, param="stream")
        return self

    @property
    def num_images(self) -> int:
        """How many pictures to make."""
        return self.n

    @property
    def steps_share(self) -> float:
        """What the quality makes of the default number of steps."""
        return QUALITY[self.quality or "auto"][0]

    @property
    def echoed_quality(self) -> str:
        """The quality in the words of OpenAI's answers."""
        return QUALITY[self.quality or "auto"][1]

    @property
    def echoed_identifier(self) -> str | None:
        """The answer's ``safety_identifier``, as ``openai.types.ImagesResponse`` has
        it."""
        return self.safety_identifier or self.user


class UpscaleParameters(ImagesParameters):
    """What an upscale takes."""

    scale: Scale = None
    """How many times as large: 2, unless 4 is said."""
