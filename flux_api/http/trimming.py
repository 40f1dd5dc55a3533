"""Memory of large uploads goes back to the system: glibc keeps what threads freed, each
in an arena of its own, and with some luck all of it for good."""

from __future__ import annotations

import ctypes
import threading

from flask import request

from flux_api.http.body_stream import CountedInput

_LARGE = 1 << 20
_PAUSE_SECONDS = 1.0
# Other C libraries have no such function, and no such habit.
_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
_planned = threading.Lock()


def after_large_body(_error: BaseException | None) -> None:
    """Give memory back a moment after a request with a large body, once for all that
    end meanwhile."""
    body = request.environ["wsgi.input"]
    large = isinstance(body, CountedInput) and body.count > _LARGE
    if large and _trim is not None and _planned.acquire(blocking=False):
        timer = threading.Timer(_PAUSE_SECONDS, _give_back)
        timer.daemon = True
        timer.start()


def _give_back() -> None:
    _planned.release()
    assert _trim is not None
    _trim(0)
