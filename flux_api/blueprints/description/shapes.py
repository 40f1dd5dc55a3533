"""Words to write JSON Schema with."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
FLAG: Schema = {"type": "boolean"}
NUMBER_OR_NULL: Schema = {"type": ["number", "null"]}
WHOLE_OR_NULL: Schema = {"type": ["integer", "null"]}
TEXT_OR_NULL: Schema = {"type": ["string", "null"]}


def record(fields: dict[str, Schema], about: str = "") -> Schema:
    """An object of ``fields``; those whose names end in ``?`` may be missing."""
    schema: Schema = {
        "type": "object",
        "required": [name for name in fields if not name.endswith("?")],
        "properties": {name.rstrip("?"): field for name, field in fields.items()},
    }
    return schema | ({"description": about} if about else {})


def or_null(schema: Schema) -> Schema:
    """``schema``, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def listed(item: Schema) -> Schema:
    """A list of ``item``."""
    return {"type": "array", "items": item}


def named(item: Schema) -> Schema:
    """An object whose names are free."""
    return {"type": "object", "additionalProperties": item}


def words(*known: str) -> Schema:
    """A text that is one of the words ``known``."""
    return {"type": "string", "enum": list(known)}


def ref(name: str) -> Schema:
    """A reference to the schema ``name`` of SCHEMAS."""
    return {"$ref": f"#/components/schemas/{name}"}


def events(*names: str) -> dict[str, Schema]:
    """A stream of server-sent events of these names, each as an object."""
    data = TEXT | {"contentMediaType": "application/json"}
    return {"text/event-stream": record({"event": words(*names), "data": data})}


def about(schema: Schema, text: str) -> Schema:
    """``schema`` with ``text`` as its description."""
    return schema | {"description": text}
