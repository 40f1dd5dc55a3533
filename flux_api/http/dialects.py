"""How each API words its errors, by the address that was asked."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask import g, request

from flux_api.errors import (
    FluxError,
    ImageFetchFailed,
    InvalidImage,
    InvalidRequest,
    JobNotFound,
    NotJson,
)

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND = -32700, -32600, -32601
INVALID_PARAMS, INTERNAL_ERROR = -32602, -32603
"""JSON-RPC's own codes."""

# What FastAPI, which both of these APIs are written in, answers 422 to.
_VALIDATED = (InvalidRequest, InvalidImage, ImageFetchFailed)


@dataclass(frozen=True, slots=True)
class Dialect:
    """The errors of the API at addresses that begin as ``paths``: an answer's ``body``
    and its ``status``. ``schema`` is what the description calls such a body."""

    schema: str
    paths: re.Pattern[str]
    body: Callable[[FluxError], dict[str, Any]]
    status: Callable[[FluxError], int] = lambda error: error.status


def error_object(error: FluxError) -> dict[str, object]:
    """OpenAI's four fields of an error, and the numbers of what is out of range."""
    return {
        **error.limits,
        "message": error.message,
        "type": error.type,
        "param": error.param,
        "code": error.code,
    }


def _sentence(error: FluxError) -> str:
    """The message, with the name of its parameter where nothing else would tell it."""
    name = error.param
    # These answers have no field of their own for it.
    if name is None or re.search(rf"\b{re.escape(name)}\b", error.message):
        return error.message
    return f"{name}: {error.message}"


def _validation_status(error: FluxError) -> int:
    is_validation = isinstance(error, _VALIDATED) and error.status == 400
    return 422 if is_validation else error.status


def _detail(error: FluxError) -> str | list[dict[str, Any]]:
    """FastAPI's: a sentence, and for what is wrong in a body a list of places."""
    if _validation_status(error) != 422:
        return error.message
    place = ["body", *([error.param] if error.param else [])]
    return [{"loc": place, "msg": error.message, "type": error.code}]


def _bfl_body(error: FluxError) -> dict[str, Any]:
    # Some clients read `detail`, others `message`.
    body: dict[str, Any] = {"message": error.message, "code": error.code}
    body["detail"] = _detail(error)
    if isinstance(error, JobNotFound):
        body |= {"id": request.args.get("id", ""), "status": "Task not found"}
        body["result"] = None
    return body


def _a1111_body(error: FluxError) -> dict[str, Any]:
    told = {"error": error.code, "detail": _detail(error), "errors": error.message}
    return told | {"body": ""}


def _mcp_body(error: FluxError) -> dict[str, Any]:
    told: dict[str, Any] = {"jsonrpc": "2.0", "id": g.get("rpc_id")}
    if "rpc_tool" in g:
        content = [{"type": "text", "text": _sentence(error)}]
        return told | {"result": {"content": content, "isError": True}}
    code = INVALID_REQUEST if error.status < 500 else INTERNAL_ERROR
    if isinstance(error, NotJson):
        code = PARSE_ERROR
    about = {"code": code, "message": error.message, "data": {"code": error.code}}
    return told | {"error": about}


DIALECTS = (
    Dialect(
        "McpError",
        re.compile("/mcp/"),
        _mcp_body,
        lambda error: 200 if "rpc_tool" in g else error.status,
    ),
    Dialect(
        "BflError",
        re.compile(r"/v1/(?:flux-|get_result/|samples/)"),
        _bfl_body,
        _validation_status,
    ),
    Dialect(
        "A1111Error",
        re.compile("/(?:sdapi|queue)/"),
        _a1111_body,
        _validation_status,
    ),
    Dialect(
        "OpenAIError",
        # Behind a base URL that is none of ours too: its SDKs read nothing else.
        re.compile(
            r"/(?:v1/|images/|models|openai/)"
            r"|/(?:[\w.-]+/)+(?:images/[a-z]+|models|chat/completions|responses)/$"
        ),
        lambda error: {"error": error_object(error)},
    ),
    Dialect("Error", re.compile(""), lambda error: {"error": _sentence(error)}),
)
"""The first that matches counts."""


def dialect_of(path: str) -> Dialect:
    """How errors are told at ``path``."""
    return next(one for one in DIALECTS if one.paths.match(f"{path}/"))
