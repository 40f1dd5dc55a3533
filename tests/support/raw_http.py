"""HTTP as no client library sends it: bytes to a socket, and what comes back."""

from __future__ import annotations

import http.client
import io
import socket

from tests.support import behind


def address_of(server):
    """(host, port) of ``server``."""
    host, port = server.url.removeprefix("http://").split(":")
    return host, int(port)


def send(server, data):
    """A connection on which ``data`` has gone out."""
    connection = socket.create_connection(address_of(server), timeout=20)
    connection.sendall(data)
    return connection


class Received:
    """An answer: its ``status`` (None without one), ``headers`` and ``body``."""

    def __init__(self, data, method="GET"):
        self.data, self.status, self.headers, self.body = data, None, {}, b""
        if data.startswith(b"HTTP/"):
            answer = http.client.HTTPResponse(_Bytes(data), method=method)
            answer.begin()
            self.status, self.headers = answer.status, dict(answer.getheaders())
            self.body = answer.read()


class _Bytes:
    def __init__(self, data):
        self._data = data

    def makefile(self, mode):
        return io.BytesIO(self._data)


def exchange(server, data, *, half_close=False):
    """The answer to ``data``; ``half_close`` says that nothing more will come. nginx
    would take that for a client that left, and answers by itself after a while."""
    with send(server, data) as connection:
        if half_close and not isinstance(server, behind.Fronted):
            connection.shutdown(socket.SHUT_WR)
        return Received(read_all(connection), data.split(b" ", 1)[0].decode("latin-1"))


def exchange_to_the_end(server, data):
    """The answer to ``data``; a connection that is reset, before it or behind it, is
    ConnectionResetError."""
    with send(server, data) as connection, connection.makefile("rb") as stream:
        return Received(stream.read(), data.split(b" ", 1)[0].decode("latin-1"))


def read_all(connection):
    """Everything until the other side closes."""
    received = b""
    try:
        while more := connection.recv(65_536):
            received += more
    except ConnectionResetError:
        pass
    return received


def post(path, body=b"", *, close=True, **headers):
    """The bytes of a POST; underscores in header names become dashes, None leaves a
    header out."""
    given = {"Host": "localhost", "Content_Length": len(body), **headers}
    if close:
        given.setdefault("Connection", "close")
    lines = [
        f"{name.replace('_', '-')}: {value}"
        for name, value in given.items()
        if value is not None
    ]
    head = "\r\n".join([f"POST {path} HTTP/1.1", *lines])
    return head.encode("latin-1") + b"\r\n\r\n" + body


def chunked(*parts, end=b"0\r\n\r\n"):
    """The parts as a chunked body."""
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in parts) + end
