"""What nginx itself answers, in the words of the API that was asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
SEALED = "\n".join(
    (
        "        default_type application/json;",
        *(f'        add_header {k} "{v}" always;' for k, v in _HEADERS.items()),
    )
)
"""What each of these answers carries, as the API's do."""

# By its variable: the message, and the type and code that the APIs have for it.
_REFUSALS = {
    "malformed": (
        "The request is malformed.",
        "invalid_request_error",
        "invalid_request",
    ),
    "no_such_method": (
        "This address does not take that method.",
        "invalid_request_error",
        "method_not_allowed",
    ),
    "too_large": (
        "The body is too large.",
        "invalid_request_error",
        "payload_too_large",
    ),
    "away": (
        "The server cannot be reached at the moment.",
        "service_unavailable_error",
        "server_is_overloaded",
    ),
    "crowded": (
        "Too many requests from your address at once.",
        "rate_limit_error",
        "rate_limit_exceeded",
    ),
}


def _openai(message: str, kind: str, code: str) -> dict[str, Any]:
    error = {"message": message, "type": kind, "param": None, "code": code}
    return {"error": error}


def _hosted(message: str, _kind: str, code: str) -> dict[str, Any]:
    return {"message": message, "code": code, "detail": message}


def _a1111(message: str, _kind: str, code: str) -> dict[str, Any]:
    return {"error": code, "detail": message, "errors": message, "body": ""}


def _tools(message: str, kind: str, code: str) -> dict[str, Any]:
    number = -32603 if kind == "service_unavailable_error" else -32600
    error = {"code": number, "message": message, "data": {"code": code}}
    return {"jsonrpc": "2.0", "id": None, "error": error}


# By what an address begins with; the first that matches counts.
_DIALECTS: dict[str, Callable[[str, str, str], dict[str, Any]]] = {
    "/mcp(?:[/?]|$)": _tools,
    "/v1/(?:flux-|(?:get_result|samples)(?:[/?]|$))": _hosted,
    "/(?:sdapi|queue)(?:[/?]|$)": _a1111,
    "/(?:models|(?:v1|images|openai)(?:[/?]|$))": _openai,
}


def refusals_text() -> str:
    """A map for each variable, ``$flux_too_large`` and so on: JSON as the API at the
    request's address words it."""
    return "\n".join(_map(name, *words) for name, words in _REFUSALS.items())


def _map(name: str, message: str, kind: str, code: str) -> str:
    default: dict[str, Any] = {"error": message}
    if name == "malformed":
        # As gunicorn's: nobody knows yet which API was meant.
        default = _openai(message, kind, code)
    lines = [f"    default {_quoted(default)};"]
    lines += [
        f'    "~^{beginning}" {_quoted(body(message, kind, code))};'
        for beginning, body in _DIALECTS.items()
    ]
    return "\n".join((f"map $request_uri $flux_{name} {{", *lines, "}"))


def _quoted(body: dict[str, Any]) -> str:
    return f"'{json.dumps(body, separators=(',', ':'))}'"
