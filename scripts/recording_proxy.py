"""A TCP proxy that keeps what goes through it, to print it as a transcript."""

from __future__ import annotations

import contextlib
import re
import socket
import threading

_PICTURE = re.compile(
    rb"\x89PNG\r\n.*?IEND.{4}|RIFF.{4}WEBP.*?(?=\r\n--|$)|\xff\xd8\xff.*?(?=\r\n--|$)",
    re.DOTALL,
)
_BASE64 = re.compile(rb'(?<="b64_json":")[^"]{40,}|(?<=base64,)[A-Za-z0-9+/=]{40,}')
_FOLDER = re.compile(r'filename="/[^"]*/')
_DULL = frozenset(
    {"server", "date", "connection", "x-content-type-options", "content-length"}
    | {"content-security-policy", "referrer-policy"}
)


class RecordingProxy:
    """Passes bytes on to ``target`` = (host, port) while it is entered. ``exchanges``
    are pairs of a request's and its answer's bytes, in order, by connection."""

    def __init__(self, target):
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections = []
        self.port = self._listener.getsockname()[1]

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._listener.close()

    @property
    def exchanges(self):
        """What has gone through so far."""
        pairs = []
        for turns in self._connections:
            for who, data in turns:
                if who == "client":
                    pairs.append([data, b""])
                elif pairs:
                    pairs[-1][1] += data
        return pairs

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                turns = []
                self._connections.append(turns)
                for who, source, to in (
                    ("client", client, server),
                    ("server", server, client),
                ):
                    threading.Thread(
                        target=self._pass_on,
                        args=(who, source, to, turns),
                        daemon=True,
                    ).start()

    def _pass_on(self, who, source, to, turns):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if turns and turns[-1][0] == who:
                    turns[-1] = (who, turns[-1][1] + data)
                else:
                    turns.append((who, data))
                to.sendall(data)
            to.shutdown(socket.SHUT_WR)


def readable(data, address):
    """HTTP bytes as text: pictures as their length, ``address`` as localhost:8000,
    without the headers that say nothing here."""
    data = _PICTURE.sub(lambda m: b"<picture, %d bytes>" % len(m[0]), data)
    data = _BASE64.sub(lambda m: b"<Base64, %d characters>" % len(m[0]), data)
    text = data.decode("utf-8", "replace").replace(address, "localhost:8000")
    text = _FOLDER.sub('filename="/path/to/', text)
    head, blank, body = text.partition("\r\n\r\n")
    lines = [
        line
        for line in head.split("\r\n")
        if line.partition(":")[0].lower() not in _DULL
    ]
    body = _unchunk(body) if "chunked" in head.lower() else body
    return "\n".join([*lines, "", *body.split("\r\n")]).strip() + "\n"


def _unchunk(body):
    return re.sub(r"(?m)^[0-9a-f]{1,6}\r?$\n?", "", body)
