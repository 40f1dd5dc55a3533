"""HTTP connections to addresses that were checked beforehand, within one deadline."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from functools import cache
from http.client import HTTPException
from urllib.parse import SplitResult

import certifi
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from flux_api.net.urls import DEFAULT_PORTS

FAILURES = (OSError, HTTPError, HTTPException, ValueError)
"""What becomes of a request that comes to nothing."""

READ_SECONDS = 5.0
_CONNECT_SECONDS = 5.0
# A name may have any number of addresses, and one that is dead costs seconds.
_DIALS = 4
_LOOK_SECONDS = 0.1


class Deadline:
    """A time limit over many reads: when it passes, or nobody wants the answer any
    more, the connection is shut.

    A socket's own timeout counts anew for each read, so a server that sends a byte
    now and then would hold a thread for ever.
    """

    def __init__(
        self, seconds: float, is_wanted: Callable[[], bool] = lambda: True
    ) -> None:
        self._end = time.monotonic() + seconds
        self._is_wanted = is_wanted
        self._lock = threading.Lock()
        self._watched: list[socket.socket] = []
        self._left = threading.Event()

    def __enter__(self) -> Deadline:
        threading.Thread(target=self._watch, name="deadline", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._left.set()
        with self._lock:
            while self._watched:
                self._watched.pop().close()

    def remaining(self) -> float:
        """Seconds left; raises TimeoutError when there are none, or when nobody waits
        for the end."""
        left = self._end - time.monotonic()
        if left <= 0 or not self._is_wanted():
            raise TimeoutError("out of time")
        return left

    def _watch(self) -> None:
        while not self._left.wait(_LOOK_SECONDS):
            if time.monotonic() > self._end or not self._is_wanted():
                self._shut()
                return

    def watch(self, sock: socket.socket) -> None:
        """Shut this connection when the time is over.

        A duplicate is kept: wrapping in TLS takes the descriptor away from ``sock``.
        """
        with self._lock:
            self._watched.append(sock.dup())
        self.remaining()

    def _shut(self) -> None:
        with self._lock:
            for sock in self._watched:
                with suppress(OSError):  # Already closed by the other side.
                    sock.shutdown(socket.SHUT_RDWR)


def open_connection(
    scheme: str,
    host: str,
    port: int,
    *,
    addresses: Sequence[object],
    deadline: Deadline,
    tls: ssl.SSLContext | None = None,
    read_seconds: float = READ_SECONDS,
) -> HTTPConnection:
    """A connection that names ``host`` but only ever dials ``addresses``: urllib3 gets
    the open socket, so it never resolves the name itself."""
    sock = _dial(addresses, port, deadline)
    sock.settimeout(read_seconds)
    kind = HTTPConnection
    if scheme == "https":
        kind, tls = HTTPSConnection, tls or make_tls_context()
        try:
            # A certificate's names have no dot at their end.
            sock = tls.wrap_socket(sock, server_hostname=host.rstrip("."))
        except BaseException:
            sock.close()
            raise
    connection = kind(host, port, timeout=read_seconds)
    connection.sock = sock
    return connection


def connect_to_own(
    url: SplitResult, deadline: Deadline, read_seconds: float
) -> HTTPConnection:
    """A connection to a server of the operator's own: it may have any address."""
    host = url.hostname or ""
    return open_connection(
        url.scheme,
        host,
        url.port or DEFAULT_PORTS[url.scheme],
        addresses=[host],
        deadline=deadline,
        read_seconds=read_seconds,
    )


def ask(
    connection: HTTPConnection,
    method: str,
    target: str,
    *,
    body: bytes | None,
    headers: Mapping[str, str],
    most: int,
) -> tuple[int, bytes]:
    """The status and the first ``most`` bytes of the answer to one request over
    ``connection``, which is closed."""
    headers = {**headers, "Connection": "close"}
    with closing(connection):
        connection.request(
            method, target, body=body, headers=headers, preload_content=False
        )
        with closing(connection.getresponse()) as response:
            # What is left unread goes with the connection.
            return response.status, response.read(most)


def _dial(addresses: Sequence[object], port: int, deadline: Deadline) -> socket.socket:
    failure: OSError = OSError("no address")
    for address in addresses[:_DIALS]:
        try:
            seconds = min(_CONNECT_SECONDS, deadline.remaining())
            sock = socket.create_connection((str(address), port), seconds)
        except OSError as error:
            failure = error
            continue
        deadline.watch(sock)
        return sock
    raise failure


@cache
def make_tls_context() -> ssl.SSLContext:
    """The system's certificate authorities and certifi's: slim images have only one."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context
