"""Requests of apps, byte for byte, and the way to send them as they are."""

from __future__ import annotations

import base64
import socket
from dataclasses import dataclass, field


@dataclass(frozen=True)
class AppRequest:
    """One request of ``app``. ``reads`` is what the app takes from an item of ``data``:
    "b64_json", "url" or "either"; ``size`` is what it asked for, if it did."""

    app: str
    what: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    reads: str = "b64_json"
    size: str | None = None
    kind: str = field(default="image/png")

    @property
    def id(self):
        """A name for the test's report."""
        return f"{self.app}: {self.what}"

    def raw(self, host, key, png, mask):
        """The request as it goes over the wire."""
        body = self.body.replace(b"<PNG64>", base64.b64encode(png))
        body = body.replace(b"<PNG>", png).replace(b"<MASK>", mask)
        lines = [f"POST {self.path} HTTP/1.1"]
        for name, value in self.headers:
            value = value.replace("KEY", key).replace("HOST", host)
            lines.append(f"{name}: {value.replace('LENGTH', str(len(body)))}")
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def exchange(address, raw):
    """Send ``raw`` to ``address`` = (host, port); gives the status line, the headers in
    lower case and the body of the answer."""
    with socket.create_connection(address, timeout=60) as connection:
        connection.sendall(raw)
        answer = connection.makefile("rb")
        status = answer.readline().decode().strip()
        headers = {}
        while line := answer.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        return status, headers, answer.read(int(headers["content-length"]))


def parts(boundary, fields, *, type_first=False):
    """A multipart body of (name, value) and (name, filename, media type, bytes)."""
    body = b""
    for name, *rest in fields:
        about = f'Content-Disposition: form-data; name="{name}"'
        if len(rest) == 1:
            kind, data = "", rest[0].encode()
            if type_first:
                kind = "Content-Type: text/plain; charset=utf-8"
        else:
            filename, media_type, data = rest
            about += f'; filename="{filename}"'
            kind = f"Content-Type: {media_type}"
        lines = [kind, about] if type_first else [about, kind]
        head = "\r\n".join(filter(None, lines))
        body += f"--{boundary}\r\n{head}\r\n\r\n".encode() + data + b"\r\n"
    return body + f"--{boundary}--\r\n".encode()
