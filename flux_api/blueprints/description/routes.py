"""The description of the API: for programs at ``/openapi.json``, for people at
``/docs``."""

from __future__ import annotations

from flask import Blueprint, Response, current_app, jsonify

from flux_api.blueprints.description.document import describe_api
from flux_api.blueprints.page import send
from flux_api.http.context import get_context

bp = Blueprint("description", __name__)


@bp.get("/openapi.json")
def document() -> Response:
    """This description, as OpenAPI 3.1."""
    keys = get_context().settings.api_keys
    return jsonify(describe_api(current_app, with_keys=bool(keys)))


@bp.get("/docs")
def docs() -> Response:
    """A page of this description, with a form to try each operation."""
    return send("docs/index.html")
