"""The LoRAs of a request, as JSON or as ``name:weight,...`` in a form."""

from __future__ import annotations

import json

from pydantic import PlainValidator

from flux_api.core import Lora
from flux_api.http.values import read_number, refuse

# Each is read from a file, kept in memory and applied.
MAX_LORAS = 8
MAX_WEIGHT = 10.0
_LONGEST_LORA_NAME = 1024


def _read_loras(value: object) -> tuple[Lora, ...]:
    if isinstance(value, str):
        value = _loras_of_text(value.strip())
    if not isinstance(value, list) or len(value) > MAX_LORAS:
        raise refuse("invalid_type", f"expected a list of at most {MAX_LORAS}")
    found: dict[str, Lora] = {}
    for item in value:
        item = {"name": item} if isinstance(item, str) else item
        name = item.get("name") if isinstance(item, dict) else None
        if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_LORA_NAME:
            raise refuse("invalid_value", "expected registered names")
        if name in found or item.keys() - {"name", "adapter_weight"}:
            why = "expected each name once, with its adapter_weight"
            raise refuse("invalid_value", why)
        found[name] = Lora(name, _read_weight(item.get("adapter_weight")))
    return tuple(found.values())


def _read_weight(value: object) -> float:
    weight = 1.0 if value in (None, "") else read_number(value)
    if not -MAX_WEIGHT <= weight <= MAX_WEIGHT:
        bounds = f"from {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}"
        raise refuse("invalid_value", f"expected a number {bounds}")
    return weight


def _loras_of_text(text: str) -> object:
    if text.startswith(("[", "{")):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise refuse("invalid_value", "the JSON is malformed") from None
    if not text:
        return []
    return [_lora_of_text(part.strip()) for part in text.split(",")]


def _lora_of_text(text: str) -> object:
    """``name`` or ``name:weight``; what has other colons goes by JSON."""
    name, colon, weight = text.rpartition(":")
    if not colon:
        return {"name": text}
    return {"name": name.strip(), "adapter_weight": weight.strip()}


Loras = PlainValidator(_read_loras)
LORAS_SCHEMA = {
    "type": "array",
    "maxItems": MAX_LORAS,
    "items": {
        "type": "object",
        "required": ["name"],
        "additionalProperties": False,
        "properties": {
            "name": {
                "type": "string",
                "minLength": 1,
                "maxLength": _LONGEST_LORA_NAME,
            },
            "adapter_weight": {
                "type": "number",
                "minimum": -MAX_WEIGHT,
                "maximum": MAX_WEIGHT,
                "default": 1.0,
            },
        },
    },
}
