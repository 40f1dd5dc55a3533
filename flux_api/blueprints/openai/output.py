"""How the pictures of an OpenAI request are to be delivered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flux_api.errors import InvalidRequest
from flux_api.http.parameters import MAX_PARTIAL_IMAGES, parse_integer, parse_text

# The share of a set's default steps that each quality takes, and what is echoed:
# some clients know no other words than low, medium and high.
QUALITY = {
    "low": (0.5, "low"),
    "medium": (1.0, "medium"),
    "auto": (1.0, "medium"),
    "standard": (1.0, "medium"),
    "high": (1.5, "high"),
    "hd": (1.5, "high"),
    "xhigh": (2.0, "high"),
    "max": (3.0, "high"),
}
_TRUE, _FALSE = ("true", "1"), ("false", "0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """How the pictures are to be delivered; it never reaches the manager.

    ``response_format`` is "url", "b64_json" or None where it is left to the server,
    ``output_compression`` is 0..100, ``quality`` the word to echo, ``steps_share`` what
    that quality makes of the default steps, ``model_name`` what the request called its
    model.
    """

    response_format: str | None = None
    output_format: str = "png"
    output_compression: int = 100
    quality: str = "medium"
    steps_share: float = 1.0
    model_name: str | None = None
    safety_identifier: str | None = None
    stream: bool = False
    partial_images: int = 0


def parse_output(
    values: dict[str, Any], model_name: str | None, operation: str
) -> Output:
    """The output parameters among ``values``; what has no effect is checked too."""
    _refuse_transparency(values)
    for param, known in _WITHOUT_EFFECT.items():
        _choice(values, param, known)
    parse_text(values.get("user"), "user")
    steps_share, quality = QUALITY[_choice(values, "quality", tuple(QUALITY)) or "auto"]
    output_format = _choice(values, "output_format", ("png", "jpeg", "webp")) or "png"
    output = Output(
        response_format=_choice(values, "response_format", ("url", "b64_json")),
        output_format=output_format,
        output_compression=_parse_compression(values, output_format),
        quality=quality,
        steps_share=steps_share,
        model_name=model_name,
        safety_identifier=parse_text(
            values.get("safety_identifier"), "safety_identifier"
        ),
        stream=parse_boolean(values.get("stream"), "stream"),
        partial_images=parse_integer(
            values.get("partial_images"), "partial_images", 0, MAX_PARTIAL_IMAGES
        )
        or 0,
    )
    if output.stream and operation == "variation":
        raise InvalidRequest("Variations cannot be streamed.", param="stream")
    if output.stream and output.response_format == "url":
        message = (
            "Streamed pictures are Base64: 'url' is only supported without stream."
        )
        raise InvalidRequest(message, param="response_format")
    return output


_WITHOUT_EFFECT = {
    "background": ("opaque", "auto"),
    "moderation": ("low", "auto"),
    "style": ("vivid", "natural"),
    "input_fidelity": ("low", "high"),
}


def _refuse_transparency(values: dict[str, Any]) -> None:
    if values.get("background") == "transparent":
        raise InvalidRequest(
            "Invalid value: 'transparent'. Flux models draw opaque pictures only. "
            "Supported values are: 'opaque' and 'auto'.",
            param="background",
        )


def _parse_compression(values: dict[str, Any], output_format: str) -> int:
    found = parse_integer(
        values.get("output_compression"), "output_compression", 0, 100
    )
    if found is None:
        return 100
    if found < 100 and output_format == "png":
        raise InvalidRequest(
            "Invalid 'output_compression': below 100 it needs the output_format jpeg "
            "or webp; PNG is lossless.",
            param="output_compression",
        )
    return found


def parse_boolean(value: object, param: str) -> bool:
    """True or False out of JSON or form text; False when absent."""
    if value is None or isinstance(value, bool):
        return bool(value)
    text = str(value).strip().lower()
    if text not in (*_TRUE, *_FALSE):
        message = f"Invalid '{param}': expected a boolean."
        raise InvalidRequest(message, param=param, code="invalid_type")
    return text in _TRUE


def _choice(values: dict[str, Any], param: str, known: tuple[str, ...]) -> str | None:
    text = parse_text(values.get(param), param, 64)
    if text is None or text in known:
        return text
    last = f"' and '{known[-1]}'" if len(known) == 2 else f"', and '{known[-1]}'"
    listed = "'" + "', '".join(known[:-1]) + last
    message = f"Invalid value: '{text}'. Supported values are: {listed}."
    raise InvalidRequest(message, param=param)
