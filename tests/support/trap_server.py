"""Servers on 127.0.0.1 that a fetch may be led to, and that remember what came."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

TLS = Path(__file__).parent / "tls"
BODY = b"picture bytes"


def answer(body=BODY, status="200 OK", **headers):
    """A complete HTTP answer; underscores in header names become dashes."""
    head = {"Content_Length": len(body), **headers}
    lines = [f"HTTP/1.1 {status}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in head.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def redirect(location, status="302 Found"):
    return answer(b"", status, Location=location)


class Trap:
    """What one server saw: connections, request heads, bytes that it could send."""

    def __init__(self, listener, handle):
        self.port = listener.getsockname()[1]
        self.connections = 0
        self.requests = []
        self.sent = 0
        self._handle = handle

    def url(self, path="/i/a.png", host="127.0.0.1", scheme="http"):
        return f"{scheme}://{host}:{self.port}{path}"

    def header(self, name, request=-1):
        lines = self.requests[request].split("\r\n")[1:]
        values = [
            line.split(": ", 1)[1]
            for line in lines
            if line.lower().startswith(f"{name.lower()}:")
        ]
        return values[0] if values else None

    def send(self, conn, data):
        conn.sendall(data)
        self.sent += len(data)

    def serve(self, conn):
        conn.settimeout(10)
        head = b""
        while b"\r\n\r\n" not in head:
            more = conn.recv(65536)
            if not more:
                return
            head += more
        self.requests.append(head.decode("latin-1"))
        result = self._handle(self, conn) if callable(self._handle) else self._handle
        if result:
            self.send(conn, result)


@contextmanager
def trap(handle=None, *, tls=None, family=socket.AF_INET):
    """A server that sends ``handle``: bytes, or what handle(trap, conn) returns."""
    address = "127.0.0.1" if family == socket.AF_INET else "::1"
    listener = socket.create_server((address, 0), family=family)
    listener.settimeout(0.05)
    seen = Trap(listener, handle if handle is not None else answer())
    stopping = threading.Event()

    def serve(conn):
        with conn:
            try:
                if tls is None:
                    seen.serve(conn)
                else:
                    with tls.wrap_socket(conn, server_side=True) as wrapped:
                        seen.serve(wrapped)
            except OSError:
                pass  # The other side went away, which many tests want.

    def accept():
        while not stopping.is_set():
            try:
                conn, _ = listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            seen.connections += 1
            threading.Thread(target=serve, args=(conn,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stopping.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # Wakes the accept, where it can.
        thread.join(5)
        listener.close()


def server_tls(seen_names):
    """TLS for pictures.test that notes the names which clients ask for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "server.pem")
    context.sni_callback = lambda sock, name, _: seen_names.append(name)
    return context


def client_tls():
    return ssl.create_default_context(cafile=TLS / "authority.pem")


def drip(data, pause=0.05):
    """A handler that sends a byte now and then, for ever."""

    def handle(seen, conn):
        for byte in data:
            seen.send(conn, bytes([byte]))
            time.sleep(pause)

    return handle


def flood(head, total=100 * 2**20):
    """A handler that sends a head and then as much as the other side takes."""

    def handle(seen, conn):
        seen.send(conn, head)
        block = bytes(65536)
        while seen.sent < total:
            seen.send(conn, block)

    return handle
