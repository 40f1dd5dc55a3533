"""How requests travel: to a server, or to the application in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol
from urllib.parse import urlsplit

import urllib3

FAILED, REFUSED, NO_SERVER = 1, 2, 3
"""Exit codes: it was tried; it was wrong; there is nobody to try it."""

_READ_SECONDS = 300.0


class Failure(Exception):
    """What went wrong, in words for a person, with the exit code that says it, the HTTP
    ``status``, the API's ``error`` and how long to wait before another try, if told."""

    def __init__(
        self,
        message: str,
        exit_code: int = FAILED,
        *,
        status: int = 0,
        error: dict[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.exit_code, self.status, self.retry_after = exit_code, status, retry_after
        self.error = error or {"message": message}


class Answer(Protocol):
    """An answer whose body is still to come."""

    status: int
    headers: dict[str, str]
    """By lower-case names."""

    @property
    def chunks(self) -> Iterable[bytes]:
        """The body as it comes."""

    def close(self) -> None:
        """Let it go, read or not."""


class Transport(Protocol):
    """How requests travel."""

    def __call__(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None
    ) -> Answer:
        """The answer; Failure where there is none."""


class Remote:
    """A server at ``url``, asked with ``key`` if there is one."""

    def __init__(self, url: str, key: str | None) -> None:
        # Eight requests at once, each with a stream of events, and calls in between.
        self._base, self._pool = _base(url), urllib3.PoolManager(maxsize=20)
        self._key = {"Authorization": f"Bearer {key}"} if key else {}

    def __call__(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None
    ) -> Answer:
        try:
            response = self._pool.request(
                method,
                self._base + path,
                body=body,
                headers=headers | self._key,
                timeout=urllib3.Timeout(connect=10.0, read=_READ_SECONDS),
                # What may be sent again is known where the answer is read.
                retries=False,
                preload_content=False,
            )
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise self._unreachable(error) from None
        return _RemoteAnswer(response, self._unreachable)

    def _unreachable(self, error: Exception) -> Failure:
        # urllib3 puts the connection's Python object in front of the reason.
        why = str(error).rpartition("object at 0x")[2].partition(": ")[2] or str(error)
        return Failure(f"no answer from {self._base}: {why}", NO_SERVER)


class _RemoteAnswer:
    def __init__(
        self,
        response: urllib3.BaseHTTPResponse,
        unreachable: Callable[[Exception], Failure],
    ) -> None:
        self._response, self._unreachable = response, unreachable
        self.status = response.status
        self.headers = _lower(response.headers.items())

    @property
    def chunks(self) -> Iterator[bytes]:
        """The body as it comes: what is there is not held back for more."""
        try:
            while chunk := self._response.read1(65_536):
                yield chunk
        except urllib3.exceptions.HTTPError as error:
            raise self._unreachable(error) from None
        self._response.release_conn()

    def close(self) -> None:
        """The connection with it: there may be more to come on it."""
        self._response.close()


class InProcess:
    """The application itself, called in this process."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def __call__(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None
    ) -> Answer:
        client = self._app.test_client()
        response = client.open(path, method=method, headers=headers, data=body)
        return _OwnAnswer(response)


class _OwnAnswer:
    def __init__(self, response: Any) -> None:
        self.status = response.status_code
        self.headers = _lower(response.headers)
        self.chunks: Iterable[bytes] = response.iter_encoded()
        self.close = response.close


def _base(url: str) -> str:
    """``url`` as the root of the API; clients of OpenAI's know it with ``/v1``."""
    base = (url if "://" in url else f"http://{url}").rstrip("/").removesuffix("/v1")
    try:
        parts = urlsplit(base)
        usable = (
            parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        )
    except ValueError:
        usable = False
    if not usable:
        message = f"{url!r} is not a server's address, such as http://localhost:8000"
        raise Failure(message, REFUSED)
    return base


def _lower(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name.lower(): text for name, text in headers}
