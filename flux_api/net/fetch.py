"""A picture's URL becomes its bytes, without lending anybody our place in the network.

Every address that a name resolves to is checked, and the checked address is the one
connected to. Each redirect is checked again. Size and total time are bounded, and a
caller learns nothing about why a fetch failed.
"""

from __future__ import annotations

import ipaddress
import logging
import queue
import re
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

from urllib3.response import BaseHTTPResponse

from flux_api.errors import ImageFetchFailed, InvalidRequest, Unavailable, shortage
from flux_api.metrics.instruments import measured
from flux_api.net.addresses import Address, Network, is_reachable
from flux_api.net.connections import FAILURES, Deadline, open_connection
from flux_api.net.urls import Url, UrlError, parse_url, under_own_name

logger = logging.getLogger(__name__)

MAX_REDIRECTS = 3
_CHUNK = 65536
_LOOK_SECONDS = 0.25
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# No name server answers, which says nothing about the name.
_NO_RESOLVER = (socket.EAI_AGAIN, socket.EAI_MEMORY, socket.EAI_SYSTEM)
# No line's end in it: it would begin another header.
_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}\Z")
# Pictures alone: the file server's other addresses are none of a caller's.
_FILE_PATH = re.compile(r"/(?:i/[A-Za-z0-9_-][A-Za-z0-9._-]*|latest/raw)\Z")

Resolve = Callable[..., list[Any]]


@dataclass(frozen=True, slots=True)
class FetchPolicy:
    """Where a fetch may go beyond the public internet, and how much it may take.

    ``own_origins`` are the file server's base URLs: their pictures are open to
    callers wherever that server lies.
    """

    max_bytes: int
    own_origins: tuple[Url, ...] = ()
    allowed_networks: tuple[Network, ...] = ()
    allow_private: bool = False
    total_seconds: float = 15.0


class Refused(Exception):
    """Why a fetch failed: for the log only."""


class _Status(Refused):
    """An answer that is none, by its HTTP ``status``."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        meanings = {
            401: "wants its BEARER_TOKEN as 'bearer_token', which /process takes.",
            403: "does not take this bearer_token.",
            404: "has no such picture.",
        }
        self.meaning = meanings.get(status, f"answers {status}.")


class Fetcher:
    """Fetches pictures under one policy; safe to share between threads."""

    def __init__(
        self,
        policy: FetchPolicy,
        *,
        resolve: Resolve = socket.getaddrinfo,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._policy = policy
        self._resolve = resolve
        self._tls = tls
        self._own = policy.own_origins

    def fetch(
        self,
        url: str,
        *,
        bearer_token: str | None = None,
        param: str = "input_image_url",
        is_wanted: Callable[[], bool] = lambda: True,
        traceparent: str | None = None,
    ) -> bytes:
        """The bytes behind an http or https URL; the fetch is given up when they are no
        longer wanted. The caller's ``traceparent`` goes along."""
        if bearer_token and not _TOKEN.match(bearer_token):
            raise InvalidRequest(
                "bearer_token must be 1 to 4096 printable ASCII characters",
                param="bearer_token",
            )
        try:
            # The file server names its pictures as it was asked, say by localhost. What
            # is called then is the address that the operator wrote: no other one opens.
            first = under_own_name(parse_url(url.strip()), self._own)
        except UrlError as error:
            raise InvalidRequest(f"{param} {error}", param=param) from error
        self._check_literal(first, param)
        try:
            seconds = self._policy.total_seconds
            with measured("fetch"), Deadline(seconds, is_wanted) as deadline:
                return self._follow(first, bearer_token, deadline, traceparent)
        except (Refused, *FAILURES) as error:
            if (short := shortage(error)) is not None:
                raise short from error
            logger.warning("fetch of %s failed: %s", first, _describe(error))
            if self._is_own_file(first) and (why := _told_by_own(error)):
                message = f"cannot fetch {param}: the file server {why}"
                raise ImageFetchFailed(message, param=param) from None
            raise _failure(param, "no picture came from there") from None

    def _check_literal(self, url: Url, param: str) -> None:
        """Who writes a private address out knows it already, and may be told; what a
        name resolves to stays ours."""
        try:
            address = ipaddress.ip_address(url.host)
        except ValueError:
            return
        if self._policy.allow_private or self._is_own_file(url):
            return
        if not is_reachable(address, self._policy.allowed_networks):
            raise _failure(param, f"{address} is not a public address")

    def _follow(
        self, url: Url, token: str | None, deadline: Deadline, traceparent: str | None
    ) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._get(url, token, deadline, traceparent)
            if isinstance(answer, bytes):
                return answer
            target = url.join(answer)
            # The token is for the host that the caller named, and no other's to see.
            if target.origin != url.origin:
                token = None
            url = target
        raise Refused("too many redirects")

    def _get(
        self, url: Url, token: str | None, deadline: Deadline, traceparent: str | None
    ) -> bytes | str:
        """The body, or the Location of a redirect, whose own body stays unread."""
        connection = open_connection(
            *url.origin,
            addresses=self.checked_addresses(url, deadline),
            deadline=deadline,
            tls=self._tls,
        )
        headers = {
            "Accept": "image/*",
            # A packed answer may unpack to anything: the bound is on what is read.
            "Accept-Encoding": "identity",
            "Connection": "close",
            "User-Agent": "flux-imaging-api",
        }
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if traceparent:
            headers["traceparent"] = traceparent
        with closing(connection):
            connection.request(
                "GET",
                url.target,
                headers=headers,
                preload_content=False,
                decode_content=False,
            )
            with closing(connection.getresponse()) as response:
                # By hand: each hop's address is checked before it is connected to.
                location = response.headers.get("Location")
                if response.status in _REDIRECTS and location:
                    return location
                return _read_body(response, self._policy.max_bytes, deadline)

    def checked_addresses(self, url: Url, deadline: Deadline) -> list[Address]:
        """Every address of the URL's host; Refused where the policy forbids one, or
        there is none."""
        addresses = self._addresses(url, deadline)
        # The file server may lie anywhere, and FLUX_ALLOW_PRIVATE_URLS opens all.
        if self._policy.allow_private or self._is_own_file(url):
            return addresses
        for address in addresses:
            if not is_reachable(address, self._policy.allowed_networks):
                raise Refused(f"{address} is not public")
        return addresses

    def _addresses(self, url: Url, deadline: Deadline) -> list[Address]:
        """Every address of the host, resolved once; a lookup cannot be interrupted,
        so it runs in a thread that is left behind when the time is over."""
        answers: queue.SimpleQueue[list[Any] | OSError | ValueError] = (
            queue.SimpleQueue()
        )

        def look_up() -> None:
            try:
                answers.put(self._resolve(url.host, url.port, type=socket.SOCK_STREAM))
            except (OSError, ValueError) as error:
                answers.put(error)

        threading.Thread(target=look_up, name="resolve", daemon=True).start()
        answer = None
        while answer is None:
            with suppress(queue.Empty):
                answer = answers.get(timeout=min(_LOOK_SECONDS, deadline.remaining()))
        if isinstance(answer, socket.gaierror) and answer.errno in _NO_RESOLVER:
            message = "Names cannot be resolved at the moment; try again."
            raise Unavailable(message, retry_after=5)
        if isinstance(answer, Exception):
            if shortage(answer) is not None:
                raise answer
            raise Refused(f"cannot resolve: {answer}")
        addresses = [ipaddress.ip_address(entry[4][0]) for entry in answer]
        if not addresses:
            raise Refused("the name has no address")
        return list(dict.fromkeys(addresses))

    def _is_own_file(self, url: Url) -> bool:
        for base in self._own:
            prefix = base.path.rstrip("/")
            inside = url.origin == base.origin and url.path.startswith(prefix)
            if inside and _FILE_PATH.match(url.path, len(prefix)):
                return True
        return False


def _told_by_own(error: Exception) -> str | None:
    """What our own file server did, which is no secret of anybody's network; None where
    it was not to be asked, or sent no picture."""
    if isinstance(error, _Status):
        return error.meaning
    return None if isinstance(error, Refused | UrlError) else "does not answer."


def _failure(param: str, why: str) -> ImageFetchFailed:
    hint = "Addresses of private networks need FLUX_ALLOW_PRIVATE_NETS."
    return ImageFetchFailed(f"cannot fetch {param}: {why}. {hint}", param=param)


def _read_body(response: BaseHTTPResponse, max_bytes: int, deadline: Deadline) -> bytes:
    if response.status != 200:
        raise _Status(response.status)
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Refused("the content is encoded")
    length = response.headers.get("Content-Length", "0")
    if not length.isdecimal() or int(length) > max_bytes:
        raise Refused("too large, or a length that is not a number")
    body = bytearray()
    while chunk := response.read(_CHUNK):
        body += chunk
        if len(body) > max_bytes:
            raise Refused("too large")
    # A connection that was shut when the time was over looks like a short answer's end.
    deadline.remaining()
    if not body:
        raise Refused("empty")
    return bytes(body)


def _describe(error: Exception) -> str:
    """What went wrong, without words that the other side chose: it knows the token."""
    if isinstance(error, Refused | UrlError | OSError):
        return f"{type(error).__name__}: {error}"
    return type(error).__name__
