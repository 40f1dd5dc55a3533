"""The description of the API: for programs at ``/openapi.json``, for people at
``/docs``."""

from __future__ import annotations

from functools import lru_cache

from flask import Blueprint, Flask, Response, current_app

from flux_api.blueprints.description.document import describe_api
from flux_api.blueprints.page import send
from flux_api.http.context import get_context
from flux_api.http.json_text import to_json

bp = Blueprint("description", __name__)


@bp.get("/openapi.json")
def document() -> Response:
    """This description, as OpenAPI 3.1."""
    keys = get_context().settings.api_keys
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    text = _written(app, with_keys=bool(keys))
    return Response(text, mimetype="application/json")


@lru_cache(maxsize=2)
def _written(app: Flask, *, with_keys: bool) -> bytes:
    """Written once: it takes a tenth of a second, and anybody may ask for it."""
    return to_json(describe_api(app, with_keys=with_keys)) + b"\n"


@bp.get("/docs")
def docs() -> Response:
    """A page of this description, with a form to try each operation."""
    return send("docs/index.html")
