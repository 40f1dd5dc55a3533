"""``POST /mcp``: one message in, one answer out, nothing remembered between them.

The official SDK is an ASGI application with an event loop of its own; of the protocol
a server that only answers needs no more than this.
"""

from __future__ import annotations

import time
from typing import Any

from flask import Blueprint, Response, g, request

from flux_api.blueprints.mcp.messages import (
    VERSIONS,
    Message,
    refuse_method,
    refuse_params,
    to_result,
)
from flux_api.blueprints.mcp.tools import TOOLS
from flux_api.core import VERSION
from flux_api.errors import InvalidRequest, missing_parameter
from flux_api.http.bodies import read_body
from flux_api.http.context import get_context
from flux_api.http.idempotency import end_if_known

bp = Blueprint("mcp", __name__)

# Other methods are those of versions to come, whose clients ask for less when refused.
_AFTER_THE_GREETING = ("ping", "tools/list", "tools/call")

_ABOUT = (
    "Draws and edits pictures with FLUX models. list_models says which there are and "
    "which sizes they draw."
)


@bp.post("/mcp")
def answer() -> Response:
    """A message of the Model Context Protocol (streamable HTTP without sessions)."""
    body = read_body(request)
    began = time.monotonic()
    message = Message.read(body.values)
    g.rpc_id = message.id
    # Behind the id, with which the kept answer has to be told.
    end_if_known(body)
    if message.id is None:
        # A notification, or an answer to a question that nobody asked.
        return Response(status=202)
    if message.method in _AFTER_THE_GREETING:
        _check_version()
    match message.method:
        case "initialize":
            return to_result(_greet(message.params))
        case "ping":
            return to_result({})
        case "tools/list":
            tools = [tool.describe(name) for name, tool in TOOLS.items()]
            return to_result({"tools": tools})
        case "tools/call":
            return _call(message.params, began)
    return refuse_method(message.method)


def _check_version() -> None:
    """InvalidRequest where the client speaks a version that nobody agreed on; what has
    no header is of before there was one."""
    spoken = request.headers.get("MCP-Protocol-Version")
    if spoken is not None and spoken not in VERSIONS:
        raise InvalidRequest(
            f"The MCP-Protocol-Version {spoken[:64]!a} is not supported: "
            f"{', '.join(VERSIONS)}."
        )


def _greet(params: dict[str, Any]) -> dict[str, Any]:
    asked = params.get("protocolVersion")
    return {
        # The client's own where it is known; it leaves where it does not know ours.
        "protocolVersion": asked if asked in VERSIONS else VERSIONS[0],
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "flux-imaging-api", "version": VERSION},
        "instructions": _ABOUT,
    }


def _call(params: dict[str, Any], began: float) -> Response:
    name, arguments = params.get("name"), params.get("arguments", {})
    tool = TOOLS.get(name) if isinstance(name, str) else None
    if tool is None:
        return refuse_params(
            f"There is no tool {str(name)[:64]!r}: {', '.join(TOOLS)}."
        )
    if not isinstance(arguments, dict):
        return refuse_params("The arguments of a tool are an object.")
    # From here on the agent itself is told what is wrong, so that it can mend it.
    g.rpc_tool = name
    for missing in tool.required:
        if arguments.get(missing) in (None, "", []):
            raise missing_parameter(missing)
    return tool.call(get_context(), arguments, began)
