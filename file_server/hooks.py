"""What every answer has: a request id, safe headers, JSON errors, a line in the log."""

from __future__ import annotations

import logging
import re
import ssl
import time
import uuid
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING

from flask import Flask, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException

from flux_server.incoming import CountedInput, drain, stop_watching
from flux_server.request_id import request_id_of
from flux_server.trace import traceparent_of

from .errors import ABOUT, FileServerError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger("file_server.access")

DRAIN_BYTES = 256 * 1024 * 1024
"""How much of an unwanted body is read so that its sender sees the answer."""

_OF_THE_API = re.compile(r"/+(v1|process|images|models|jobs|docs|openai)(/|$)")
_SENTENCES = {
    400: "The request is malformed.",
    404: "There is nothing at this address.",
    405: "This address does not take that method.",
    412: "The file does not meet the request's condition.",
    413: "The upload is larger than this server accepts.",
    416: "The file has no such range of bytes.",
    500: "The server failed to answer this request.",
}
# Uploads are strangers' bytes: no browser may run them as a page.
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def install(app: Flask, body_timeout: float) -> None:
    """Put the hooks and the error handlers on an app; a body has ``body_timeout``
    seconds for each 64 KiB of it."""
    app.before_request(_begin)
    app.before_request(lambda: _watch_body(body_timeout))
    app.teardown_request(lambda _: stop_watching(request.environ))
    app.after_request(_finish)
    app.register_error_handler(FileServerError, _render_own)
    app.register_error_handler(HTTPException, _render_http)
    app.wsgi_app = with_real_scheme(app.wsgi_app)  # type: ignore[assignment,method-assign]


def with_real_scheme(app: WSGIApplication) -> WSGIApplication:
    """Wrap an app so that it sees the socket's scheme, whatever headers claim.

    gunicorn believes X-Forwarded-Proto from any process of this machine; only the
    proxies that are counted in the settings may say so, and they come after this.
    """

    def answer(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        connection = environ.get("gunicorn.socket")
        if connection is not None:
            secure = isinstance(connection, ssl.SSLSocket)
            environ["wsgi.url_scheme"] = "https" if secure else "http"
        return app(environ, start)

    return answer


def _begin() -> None:
    g.request_id = request_id_of(request.environ) or uuid.uuid4().hex
    g.started = time.monotonic()


def _watch_body(seconds: float) -> None:
    request.environ["wsgi.input"] = CountedInput(request.environ, seconds)


def _finish(response: Response) -> Response:
    # A server that answers and closes with bytes unread resets the connection, and the
    # sender never sees the status.
    drain(request.environ, DRAIN_BYTES)
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["X-Request-Id"] = g.request_id
    fields = {
        "request_id": g.request_id,
        "method": request.method,
        "path": request.path[:512],
        "status": response.status_code,
        "bytes": response.content_length,
        "ms": round((time.monotonic() - g.started) * 1000, 1),
        "remote": request.remote_addr,
    }
    if traceparent := traceparent_of(request.environ):
        fields["traceparent"] = traceparent
    logger.info("request", extra={"fields": fields})
    return response


def _render(status: int, message: str) -> Response:
    response = jsonify(error=message)
    response.status_code = status
    return response


def _render_own(error: FileServerError) -> Response:
    response = _render(error.status, error.message)
    response.headers.update(error.headers)
    if error.__cause__ is not None:
        fields = {"request_id": g.request_id, "cause": repr(error.__cause__)}
        logger.error("storage failed", extra={"fields": fields})
    return response


def _render_http(error: HTTPException) -> Response:
    status = error.code or 500
    sentence = _SENTENCES.get(status, f"{error.name}.")
    if status == HTTPStatus.NOT_FOUND and _OF_THE_API.match(request.path):
        sentence = f"{sentence} {ABOUT}"
    response = _render(status, sentence)
    for name, value in error.get_response(request.environ).headers.items():
        if name in ("Allow", "Content-Range", "Retry-After"):
            response.headers[name] = value
    return response
