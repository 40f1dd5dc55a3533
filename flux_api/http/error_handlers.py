"""Errors as answers, in the caller's dialect."""

from __future__ import annotations

import logging
import re
from http import HTTPStatus

from flask import Flask, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException

from flux_api.errors import (
    BodyTimeout,
    FluxError,
    InvalidRequest,
    PayloadTooLarge,
    shortage,
)
from flux_api.http.dialects import dialect_of
from flux_api.http.reason_phrases import reason_of
from flux_server.incoming import BrokenBody, SlowBody

logger = logging.getLogger(__name__)


def register(app: Flask) -> None:
    """Let every error be rendered in the caller's dialect."""
    app.register_error_handler(FluxError, _render)
    slow = BodyTimeout("The request body came too slowly.")
    app.register_error_handler(SlowBody, lambda _: _render(slow))
    broken = InvalidRequest("The request body is malformed.")
    app.register_error_handler(BrokenBody, lambda _: _render(broken))
    app.register_error_handler(HTTPException, _render_http)
    app.register_error_handler(Exception, _render_unexpected)


def _render(error: FluxError) -> Response:
    g.error_code, g.error_status = error.code, error.status
    dialect = dialect_of(request.path)
    response = jsonify(dialect.body(error))
    response.status = f"{dialect.status(error)} {reason_of(error)}"
    if error.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(round(error.retry_after))
    # OpenAI's clients retry 408, 409, 429 and every 5xx unless they are told otherwise.
    if not error.should_retry:
        response.headers["X-Should-Retry"] = "false"
    return response


def _render_http(error: HTTPException) -> Response:
    """Flask's and Werkzeug's own errors: their status in our words."""
    status = error.code or 500
    if status == 413:
        return _render(_too_large())
    known = _HTTP_ERRORS.get(status)
    message = known[0] if known else (error.name or "Error") + "."
    allowed = getattr(error, "valid_methods", None)
    if allowed:
        takes = ", ".join(sorted(set(allowed) - {"HEAD", "OPTIONS"}))
        message = f"This address does not take that method but {takes}."
    elif status == HTTPStatus.NOT_FOUND and _OF_FILES.match(request.path):
        message = f"{message} {_FILES_ELSEWHERE}"
    refusal = InvalidRequest(message, code=known[1] if known else None)
    refusal.status = status
    response = _render(refusal)
    if allowed:
        response.headers["Allow"] = ", ".join(sorted(allowed))
    return response


def _too_large() -> PayloadTooLarge:
    limit, length = request.max_content_length or 0, request.content_length
    if length is not None and length <= limit:
        return PayloadTooLarge(
            f"The form has more than {request.max_form_parts} parts; send an image as "
            "one file part."
        )
    return PayloadTooLarge(f"The body is larger than {limit // 2**20} MiB.")


# What people look for here, and the file server has.
_OF_FILES = re.compile(r"/(?:upload|latest|i)(?:/|$)")
_FILES_ELSEWHERE = (
    "Stored pictures are the file server's, on port 8010 unless it was set "
    "up otherwise."
)
_HTTP_ERRORS = {
    400: ("The request is malformed.", "invalid_request"),
    404: ("There is nothing at this address; GET / lists what there is.", "not_found"),
    405: ("This address does not take that method.", "method_not_allowed"),
}


def _render_unexpected(error: Exception) -> Response:
    if (short := shortage(error)) is not None:
        logger.warning("a request was refused: %s", error)
        return _render(short)
    fields = {"request_id": g.get("request_id")}
    logger.error("a request failed", exc_info=error, extra={"fields": fields})
    return _render(FluxError("Something went wrong in the server."))
