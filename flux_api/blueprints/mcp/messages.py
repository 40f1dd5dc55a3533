"""JSON-RPC messages, as the protocol has them: https://modelcontextprotocol.io."""

from __future__ import annotations

from typing import Annotated, Any

from flask import Response, g, jsonify
from pydantic import PlainValidator, WithJsonSchema

from flux_api.http.dialects import INVALID_PARAMS, METHOD_NOT_FOUND
from flux_api.http.fields import Fields
from flux_api.http.values import Object, Text, refuse

VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
"""Of the protocol, the newest first: what is used of it is the same in all."""


def _read_id(value: object) -> object:
    # To Python True is a number, too.
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return value
    raise refuse("invalid_type", "expected a number or a string")


class Message(Fields):
    """A request, or a notification where it has no id."""

    jsonrpc: Annotated[str, Text] = "2.0"
    """The version of JSON-RPC, 2.0."""
    id: Annotated[
        str | int | float | None,
        PlainValidator(_read_id),
        WithJsonSchema({"type": ["string", "number"]}),
    ] = None
    """Comes back with the answer."""
    method: Annotated[str | None, Text] = None
    """What is asked for."""
    params: Object = {}
    """What it is asked with."""


def to_result(result: dict[str, Any]) -> Response:
    """The answer to the message of this request."""
    return jsonify(jsonrpc="2.0", id=g.rpc_id, result=result)


def refuse_method(method: str | None) -> Response:
    """The answer to a message that asks for what is not there."""
    return _error(METHOD_NOT_FOUND, f"There is no method {str(method)[:64]!r}.")


def refuse_params(message: str) -> Response:
    """The answer to a message whose params are wrong."""
    return _error(INVALID_PARAMS, message)


def _error(code: int, message: str) -> Response:
    return jsonify(jsonrpc="2.0", id=g.rpc_id, error={"code": code, "message": message})
