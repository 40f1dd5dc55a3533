"""Reading a caller's URL strictly: what is connected to is what was checked."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from urllib.parse import quote, urljoin, urlsplit

import idna

# Longer than any that servers take; what is, is rather a picture in the wrong field.
URL_LIMIT = 2000
DEFAULT_PORTS = {"http": 80, "https": 443}
# Half a surrogate pair is no character, and no encoding can send it.
_FORBIDDEN = re.compile(r"[\s\x00-\x20\x7f-\x9f\\\ud800-\udfff]")
# No host's name may have an underscore; some that resolve do.
_HOST = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?\Z")
_IPV6 = re.compile(r"\[[0-9A-Fa-f:.]{2,45}\]\Z")
_PORT = re.compile(r"[0-9]{1,5}\Z")
_THIS_MACHINE = {"localhost", "127.0.0.1", "::1"}

Origin = tuple[str, str, int]


class UrlError(ValueError):
    """A URL that is not acceptable; the message is one clause for the caller."""


@dataclass(frozen=True, slots=True)
class Url:
    """An http(s) URL in pieces: the host without brackets, the path as sent."""

    scheme: str
    host: str
    port: int
    path: str
    query: str

    @property
    def origin(self) -> Origin:
        return self.scheme, self.host, self.port

    @property
    def target(self) -> str:
        return f"{self.path}?{self.query}" if self.query else self.path

    def __str__(self) -> str:
        """For logs and for joining: without the query, which may hold secrets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"

    def join(self, location: str) -> Url:
        """The URL that a redirect's Location leads to."""
        return parse_url(urljoin(str(self), location))


def is_named(host: str, names: Iterable[str]) -> bool:
    """Whether ``host`` is one of ``names``: ``.example.org`` is all below it, ``*``
    any."""
    return any(
        name in ("*", host) or (name[:1] == "." and f".{host}".endswith(name))
        for name in names
    )


def under_own_name(url: Url, bases: Iterable[Url]) -> Url:
    """``url`` with the host of that one of ``bases`` that is the same port of this
    machine under another name; as it is where there is none."""
    for base in bases:
        same_port = (url.scheme, url.port) == (base.scheme, base.port)
        if same_port and {url.host, base.host} <= _THIS_MACHINE:
            return replace(url, host=base.host)
    return url


def parse_url(text: str) -> Url:
    """The pieces of an absolute http or https URL; raises UrlError."""
    if len(text) > URL_LIMIT:
        raise UrlError(f"is longer than {URL_LIMIT} characters")
    if _FORBIDDEN.search(text):
        raise UrlError("contains blanks, control characters or a backslash")
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise UrlError("is not a valid URL") from error
    if parts.scheme not in DEFAULT_PORTS:
        raise UrlError("is not an http or https URL")
    if "@" in parts.netloc:
        raise UrlError("contains a user name or password")
    host, port = _split_netloc(parts.netloc, DEFAULT_PORTS[parts.scheme])
    path, query = _escape(parts.path) or "/", _escape(parts.query)
    return Url(parts.scheme, host, port, path, query)


def _split_netloc(netloc: str, default_port: int) -> tuple[str, int]:
    host, port = netloc, default_port
    head, colon, tail = netloc.rpartition(":")
    if colon and not tail.endswith("]"):
        host = head
        if tail:
            port = int(tail) if _PORT.match(tail) else 0
    if not 0 < port < 65536:
        raise UrlError("has an invalid port")
    if _IPV6.match(host):
        return host[1:-1].lower(), port
    if not host.isascii():
        host = _to_ascii(host)
    if not _HOST.match(host):
        raise UrlError("has no valid host name")
    return host.lower(), port


def _to_ascii(host: str) -> str:
    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except UnicodeError as error:
        raise UrlError("has no valid host name") from error


def _escape(text: str) -> str:
    """Percent-encode what no HTTP request line may hold."""
    return quote(text, safe="%/:?[]@!$&'()*+,;=~|^`{}\"<>")
