"""gunicorn with a certificate of its own: slow clients are no other than without."""

from __future__ import annotations

import contextlib
import socket
import ssl

import pytest

from tests.file_server.serving import ROOT, FolderPlace, sealed

TLS = ROOT / "tests" / "support" / "tls"
NAME = f"{'a' * 32}.png"
CLIENT = ssl.create_default_context(cafile=TLS / "authority.pem")


@pytest.fixture
def address(serve, tmp_path):
    """A server of two threads that has a large picture, and a second for each step of
    a client."""
    place = FolderPlace(tmp_path)
    place.put(NAME, sealed(1, 12_000_000))
    pair = ("--certfile", str(TLS / "server.pem"), "--keyfile", str(TLS / "server.pem"))
    options = ("-c", "gunicorn.conf.py", "--threads", "2", *pair)
    server = serve(*options, **place.settings, FILES_BODY_TIMEOUT="1")
    host, port = server.url.removeprefix("https://").split(":")
    return host, int(port)


@contextlib.contextmanager
def connected(address, *, receives=None):
    """A connection; ``receives`` are the bytes that its system takes unasked."""
    with socket.socket() as plain:
        plain.settimeout(20)
        if receives:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
        plain.connect(address)
        with CLIENT.wrap_socket(plain, server_hostname="pictures.test") as connection:
            yield connection


def read_all(connection):
    return connection.makefile("rb").read()


def test_an_upload_that_stops_is_answered(address):
    with connected(address) as connection:
        connection.sendall(
            b"POST /upload HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
            b"Content-Type: multipart/form-data; boundary=cut\r\n"
            b"Content-Length: 90000\r\n\r\n--cut"
        )
        assert read_all(connection).startswith(b"HTTP/1.1 408 ")


def test_who_takes_nothing_of_a_picture_holds_no_thread_for_good(address):
    """More of them than the server has threads."""
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            idle = stack.enter_context(connected(address, receives=2048))
            idle.sendall(f"GET /i/{NAME} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        with connected(address) as connection:
            connection.sendall(
                b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
            )
            assert read_all(connection).startswith(b"HTTP/1.1 200 ")
