"""HTTP connections to addresses that were checked beforehand, within one deadline."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Sequence
from functools import cache
from types import TracebackType

import certifi
from urllib3.connection import HTTPConnection, HTTPSConnection

from flux_api.net.addresses import Address

CONNECT_SECONDS = 5.0
READ_SECONDS = 5.0
_DIALS = 4


class Deadline:
    """A time limit over many reads: when it passes, the connection is shut.

    A socket's own timeout counts anew for each read, so a server that sends a byte
    now and then would hold a thread for ever.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._watched: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._shut)
        self._timer.daemon = True

    def __enter__(self) -> Deadline:
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        with self._lock:
            while self._watched:
                self._watched.pop().close()

    def remaining(self) -> float:
        """Seconds left; raises TimeoutError when there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("out of time")
        return left

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
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # Already closed by the other side.


def open_connection(
    scheme: str,
    host: str,
    port: int,
    *,
    addresses: Sequence[Address],
    deadline: Deadline,
    tls: ssl.SSLContext,
) -> HTTPConnection:
    """A connection that names ``host`` but only ever dials ``addresses``."""
    if scheme == "https":
        connection: _Pinned | _PinnedTls = _PinnedTls(
            host, port, timeout=READ_SECONDS, ssl_context=tls
        )
    else:
        connection = _Pinned(host, port, timeout=READ_SECONDS)
    connection.addresses = addresses
    connection.deadline = deadline
    return connection


class _Pinned(HTTPConnection):
    addresses: Sequence[Address]
    deadline: Deadline

    def _new_conn(self) -> socket.socket:
        return _dial(self.addresses, self.port, self.deadline)


class _PinnedTls(HTTPSConnection):
    addresses: Sequence[Address]
    deadline: Deadline

    def _new_conn(self) -> socket.socket:
        return _dial(self.addresses, self.port, self.deadline)


def _dial(addresses: Sequence[Address], port: int, deadline: Deadline) -> socket.socket:
    failure: OSError = OSError("no address")
    for address in addresses[:_DIALS]:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            deadline.watch(sock)
            sock.settimeout(min(CONNECT_SECONDS, deadline.remaining()))
            sock.connect((str(address), port))
            sock.settimeout(READ_SECONDS)
            return sock
        except OSError as error:
            sock.close()
            failure = error
    raise failure


@cache
def make_tls_context() -> ssl.SSLContext:
    """The system's certificate authorities and certifi's: slim images have only one."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context
