"""Health and readiness."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from flux_api.http.context import get_context

bp = Blueprint("service", __name__)


@bp.get("/healthz")
@bp.get("/health")
@bp.get("/v1/health")
def healthz() -> Response:
    """200 as long as the process answers."""
    return jsonify(status="ok")


@bp.get("/readyz")
def readyz() -> tuple[Response, int, dict[str, str]]:
    """200 when requests are taken, else 503 with the reason."""
    reason = get_context().manager.not_ready
    if reason is not None:
        body = jsonify(status="not ready", reason=reason)
        return body, 503, {"Retry-After": "5"}
    return jsonify(status="ready", model=get_context().settings.model), 200, {}
