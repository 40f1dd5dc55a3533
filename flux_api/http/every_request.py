"""What every request and its answer get: an id, a counted body and safe headers."""

from __future__ import annotations

import secrets

from flask import Response, g, request

from flux_api.http.context import get_context
from flux_server.incoming import CountedInput, drain, stop_watching
from flux_server.request_id import request_id_of

_SEALED = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def begin() -> None:
    """Give the request its id, and a body that is counted and not waited for."""
    g.request_id = request_id_of(request.environ) or f"req_{secrets.token_hex(16)}"
    request.environ["wsgi.input"] = CountedInput(
        request.environ, get_context().settings.body_timeout
    )


def finish(response: Response) -> Response:
    """Give the answer its headers, and read what is left of a refused body."""
    response.headers["X-Request-Id"] = g.get("request_id", "")
    response.headers["X-Content-Type-Options"] = "nosniff"
    # Pages bring a policy of their own, and streams their own word on caches.
    for name, value in _SEALED.items():
        response.headers.setdefault(name, value)
    if response.status_code >= 400:
        limit = request.max_content_length or 0
        drain(request.environ, max(4 * limit, 1 << 28))
    return response


def end(_error: BaseException | None) -> None:
    """Stop watching the body."""
    stop_watching(request.environ)
