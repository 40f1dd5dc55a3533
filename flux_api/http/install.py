"""What happens around every request, in its order."""

from __future__ import annotations

import re
from typing import Any

from flask import Flask

from flux_api.http import (
    access,
    clients,
    counting,
    cross_site,
    error_handlers,
    every_request,
    idempotency,
    next_instance,
    request_log,
)
from flux_api.http.context import get_context


def install(app: Flask) -> None:
    """Give ``app`` everything that all routes share."""
    for before in (
        request_log.begin,  # First, so that its time is the whole request's.
        every_request.begin,  # An id and a counted body, for refusals too.
        cross_site.check_page,
        access.check_key,  # Before anything is read or started for a stranger.
        start_loading,
    ):
        app.before_request(before)
    after = (
        clients.tell_of_job,
        access.admit_origin,
        next_instance.hand_on,
        # After all that may still make it an error:
        every_request.finish,
        counting.follow,
        request_log.follow,  # Last: it sees the answer as it goes out.
    )
    # Flask calls what was registered last first.
    for function in reversed(after):
        app.after_request(function)
    app.teardown_request(every_request.end)
    app.teardown_request(idempotency.let_go)
    error_handlers.register(app)
    # Around Flask: its routing has been done before its first hook runs.
    tidy_paths(app)


def tidy_paths(app: Flask) -> None:
    """Answer ``//v1/models/`` like ``/v1/models``, without a redirect: clients join
    base URLs that end in a slash."""
    answer = app.wsgi_app

    def tidied(environ: dict[str, Any], start_response: Any) -> Any:
        path = environ.get("PATH_INFO", "")
        environ["PATH_INFO"] = re.sub("/{2,}", "/", f"/{path}").rstrip("/") or "/"
        return answer(environ, start_response)

    app.wsgi_app = tidied  # type: ignore[method-assign]


def start_loading() -> None:
    """Outside gunicorn all that goes on beside requests begins at the first one."""
    context = get_context()
    context.manager.start()
    context.webhooks.start()
