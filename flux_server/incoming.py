"""A request's body as it comes in: counted, and not waited for without end."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import suppress
from typing import Any, BinaryIO

DRAIN_SECONDS = 10.0
SILENT_SECONDS = 3.0
LEAST_BYTES = 65_536
"""What has to arrive of a body in each period that :class:`CountedInput` is given."""

_LARGEST_READ = 65_536


class SlowBody(Exception):
    """Too little of the body came in the time that there is."""


class BrokenBody(Exception):
    """What came is no body: chunks that are none, in gunicorn's words."""


def connection_of(environ: dict[str, Any]) -> socket.socket | None:
    """The client's connection, where the server shows it: gunicorn and Werkzeug do."""
    found = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    return found if isinstance(found, socket.socket) else None


def drain(environ: dict[str, Any], most: int) -> None:
    """Read what is left of the body, at most ``most`` bytes, ten seconds and three of
    silence: a client that is still sending would meet a reset, not the answer."""
    stream: BinaryIO | None = environ.get("wsgi.input")
    if stream is None or not environ.get("wsgi.input_terminated"):
        return
    connection = connection_of(environ)
    until, left = time.monotonic() + DRAIN_SECONDS, most
    before = connection.gettimeout() if connection is not None else None
    try:
        if connection is not None:
            connection.settimeout(SILENT_SECONDS)
        while left > 0 and time.monotonic() < until:
            part = stream.read(min(left, _LARGEST_READ))
            if not part:
                return
            left -= len(part)
    except (OSError, ValueError, SlowBody, BrokenBody):
        return
    finally:
        if connection is not None:
            connection.settimeout(before)


def stop_watching(environ: dict[str, Any]) -> None:
    """End the watch over a body that is counted: the request is over."""
    if isinstance(stream := environ["wsgi.input"], CountedInput):
        stream.stop_watching()


class CountedInput:
    """``wsgi.input`` that counts what was read: a body cut off in the middle is
    otherwise no error under gunicorn, and a form with missing parts looks whole. A
    client that sends too little in ``seconds`` is shut off: SlowBody."""

    def __init__(self, environ: dict[str, Any], seconds: float) -> None:
        self._stream: BinaryIO = environ["wsgi.input"]
        has_body = environ.get("CONTENT_LENGTH") or environ.get(
            "HTTP_TRANSFER_ENCODING"
        )
        self._connection = connection_of(environ) if has_body else None
        if isinstance(self._connection, ssl.SSLSocket):
            # TLS that meets the end of what it reads can send no answer any more: its
            # reads end by themselves.
            self._connection.settimeout(seconds)
        self._seconds = seconds
        self._timer: threading.Timer | None = None
        self._late = False
        self.count = 0

    def read(self, size: int = -1) -> bytes:
        """As the stream's own, but at most 64 KiB unless all is asked for."""
        if self._timer is None and self._connection is not None:
            self._look_again_after(self.count)
        try:
            data = self._stream.read(min(size, _LARGEST_READ))
        except TimeoutError as error:
            raise SlowBody from error
        except (OSError, ValueError, MemoryError):
            raise
        except Exception as error:
            raise BrokenBody from error
        self.count += len(data)
        if self._late:
            raise SlowBody
        # The body's end: what follows is the answer, which takes its own time.
        if not data and size != 0:
            self.stop_watching()
        return data

    def stop_watching(self) -> None:
        """The client may take its time from now on."""
        self._connection = None
        if self._timer is not None:
            self._timer.cancel()

    def _look_again_after(self, count: int) -> None:
        self._timer = threading.Timer(self._seconds, self._look, [count])
        self._timer.daemon = True
        self._timer.start()

    def _look(self, before: int) -> None:
        connection = self._connection
        if connection is None:
            return
        if self.count - before >= LEAST_BYTES:
            self._look_again_after(self.count)
            return
        self._late = True
        if isinstance(connection, ssl.SSLSocket):
            return
        # Wakes the thread that reads; the answer can still be sent.
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RD)
