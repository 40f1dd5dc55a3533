"""Request bodies in JSON Schema, from the parameter models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flux_api.blueprints.description.operations import Operation
from flux_api.blueprints.description.shapes import TEXT, Schema
from flux_api.http.fields import Fields
from flux_api.http.inputs import MAX_IMAGES

PICTURE = {
    "type": "string",
    "description": "Base64, a data URL or an http(s) URL of a picture.",
}
PICTURES = {
    "anyOf": [TEXT, {"type": "array", "items": TEXT, "maxItems": MAX_IMAGES}],
    "description": f"{PICTURE['description'][:-1]}, or a list of them.",
}
# In JSON; a form sends the field again for each.
_LISTS = frozenset(("image", "init_images"))
_UPLOAD = {"type": "string", "format": "binary", "description": "A picture's file."}


def describe_body(operation: Operation) -> Schema:
    """The body of ``operation`` in each of its forms."""
    as_json, as_form = (_request(operation, p) for p in (PICTURE, _UPLOAD))
    for name in _LISTS.intersection(operation.pictures):
        as_json["properties"][name] = PICTURES
    json_body = {"schema": as_json, "example": dict(operation.example)}
    if operation.is_json:
        return {"required": True, "content": {"application/json": json_body}}
    # A form has no lists of objects.
    as_form["properties"]["loras"] = {
        "type": "string",
        "description": "name:weight, ...",
    }
    pictures = dict.fromkeys(operation.pictures, PICTURE)
    as_text = as_form | {"properties": as_form["properties"] | pictures}
    return {
        "required": True,
        "content": {
            "application/json": json_body,
            "multipart/form-data": {"schema": as_form},
            "application/x-www-form-urlencoded": {"schema": as_text},
        },
    }


def _request(operation: Operation, picture: Schema) -> Schema:
    """The body's schema, its pictures as ``picture``."""
    assert operation.body is not None
    properties = properties_of(operation.body)
    if "num_inference_steps" in properties:
        steps = properties["num_inference_steps"]
        properties["steps"] = steps | {"description": "As num_inference_steps."}
    properties |= dict.fromkeys(operation.pictures, picture)
    return {
        "type": "object",
        "properties": properties,
        **({"required": list(operation.required)} if operation.required else {}),
    }


def properties_of(model: type[Fields]) -> dict[str, Schema]:
    """The fields of ``model``; that null is as good as left out goes without saying."""
    properties = model.model_json_schema()["properties"]
    return {name: _plain(schema) for name, schema in properties.items()}


def _plain(schema: Mapping[str, Any]) -> Schema:
    plain = {k: v for k, v in schema.items() if k not in ("title", "anyOf")}
    for choice in schema.get("anyOf", ()):
        if choice != {"type": "null"}:
            plain = {**choice, **plain}
    if plain.get("default", ...) is None:
        del plain["default"]
    return plain
