"""Health and readiness."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify

from flux_api.blueprints.capabilities import describe_capabilities, describe_status
from flux_api.http.context import get_context

bp = Blueprint("service", __name__)


def describe_server() -> Response:
    """What this server is, and where to go on."""
    context = get_context()
    return jsonify(
        name="Flux Imaging API",
        models=list(context.models),
        ready=context.manager.not_ready is None,
        not_ready=context.manager.not_ready,
        routes={
            "GET /": "in a browser: a page to make pictures with",
            "POST /process": "a form or JSON with prompt, input_file or both",
            "POST /process/raw": "the same; the bytes of the picture come back",
            "/v1": "the base URL for OpenAI's SDKs and apps that speak its Images API",
            "POST /v1/flux-2-pro": "as with Black Forest Labs, and its other models",
            "POST /sdapi/v1/txt2img": "as with AUTOMATIC1111, and what goes with it",
            "POST /mcp": "tools for agents, by the Model Context Protocol",
            "GET /v1/models": "the models that can be asked for",
            "GET /v1/loras": "the LoRAs that can be asked for",
            "GET /v1/capabilities": "models, sizes, formats and limits, as data",
            "GET /v1/status": "whether requests are taken, and how much is going on",
            "GET /jobs": "your requests, the newest first",
            "GET /jobs/<id>": "a request on its way",
            "GET /docs": "in a browser: all of this, with a form to try it",
            "GET /openapi.json": "all of this for programs, as OpenAPI 3.1",
            "GET /readyz": "whether requests are taken, and if not, why",
        },
    )


@bp.get("/v1/capabilities")
def capabilities() -> Response:
    """What can be asked for, without a key."""
    return jsonify(describe_capabilities(get_context()))


@bp.get("/v1/status")
def status() -> Response:
    """Always 200, without a key: whether requests are taken, and if not, why."""
    return jsonify(describe_status(get_context()))


@bp.get("/healthz")
@bp.get("/health")
@bp.get("/v1/health")
def healthz() -> Response:
    """200 as long as the process answers."""
    return jsonify(status="ok")


@bp.get("/readyz")
def readyz() -> tuple[Response, int, dict[str, str]]:
    """200 when requests are taken, else 503 with the reason; and why a new worker did
    not take over, until the next one is tried."""
    manager = get_context().manager
    reason = manager.not_ready
    if reason is not None:
        body = jsonify(status="not ready", reason=reason)
        return body, 503, {"Retry-After": "5"}
    answer: dict[str, Any] = {"status": "ready", "model": get_context().settings.model}
    answer |= manager.performance
    if kept := manager.asleep:
        answer |= {"asleep": True, "weights": kept}
    if manager.failed_update is not None:
        answer["failed_update"] = manager.failed_update
    return jsonify(answer), 200, {}
