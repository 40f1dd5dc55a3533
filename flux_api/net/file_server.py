"""Uploads finished pictures to the file server; None where it could not be done."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from urllib3.filepost import encode_multipart_formdata

from flux_api.errors import Unavailable
from flux_api.images.codec import EncodedImage
from flux_api.net.connections import FAILURES, Deadline, ask, connect_to_own
from flux_api.net.urls import UrlError, parse_url, under_own_name

logger = logging.getLogger(__name__)

# Each holds a thread: a file server that never answers must not take all of them.
_MOST_UPLOADS = 16
_PLACE_SECONDS = 1.0
READ_SECONDS = 10.0
TOTAL_SECONDS = 20.0
_PATH = re.compile(r"/i/[0-9A-Za-z_-]{8,64}\.[a-z0-9]{2,5}")
# Whatever answers at that address, it is not read into memory without end.
_LONGEST_ANSWER = 4096
_LONGEST_RECIPE = 500_000
# Those of a machine that is short of threads or memory too: the picture is finished.
_FAILURES = (*FAILURES, RuntimeError, MemoryError)


class FileServer:
    """The image file server at ``base``; its URLs are given to callers under
    ``public``. What ``upload_token`` gives goes along as a bearer token, and
    ``read_token`` where a recipe is asked for. Each call takes ``seconds`` at most."""

    def __init__(
        self,
        base: str,
        public: str,
        upload_token: Callable[[], str | None] = lambda: None,
        read_token: str | None = None,
        *,
        seconds: float = TOTAL_SECONDS,
    ) -> None:
        self._base, self._public, self._token = urlsplit(base), public, upload_token
        self._read_token = read_token
        self._seconds = seconds
        self._uploads = threading.BoundedSemaphore(_MOST_UPLOADS)

    def upload(
        self, encoded: EncodedImage, recipe: str = "", *, traceparent: str | None = None
    ) -> str | None:
        """The URL of the stored picture, None when the file server failed or is busy
        with many others: a finished picture is then delivered in the answer itself.
        Its ``recipe`` lies beside it; the caller's ``traceparent`` goes along."""
        if not self._uploads.acquire(timeout=_PLACE_SECONDS):
            logger.warning("too many uploads to the file server are under way")
            return None
        try:
            return self._public + _path_in(self._send(encoded, recipe, traceparent))
        except _FAILURES as error:
            logger.warning("upload to the file server failed: %s", error)
            return None
        finally:
            self._uploads.release()

    def name_of(self, url: str) -> str | None:
        """The name of a stored picture in ``url``, None for any other URL."""
        base, slash, name = url.strip().rpartition("/i/")
        ours = [parse_url(base) for base in (self._public, self._base.geturl())]
        try:
            is_ours = under_own_name(parse_url(base), ours) in ours
        except UrlError:
            return None
        return name if is_ours and _PATH.fullmatch(slash + name) else None

    def url_of(self, name: str) -> str:
        """Where this server finds the stored picture of that name."""
        return f"{self._base.geturl()}/i/{name}"

    def recipe(self, picture: str) -> bytes | None:
        """The recipe beside the stored ``picture``, whose name or id it is; None where
        there is none. Unavailable when the file server failed or refused the token."""
        headers = {"Authorization": f"Bearer {self._read_token}"}
        try:
            status, answer = self._ask("GET", f"/i/{picture}/recipe", None, headers)
            if status not in (200, 404):
                raise ValueError(_refusal(status, "FILE_SERVER_TOKEN", "BEARER_TOKEN"))
        except _FAILURES as error:
            logger.warning("the file server gave no recipe: %s", error)
            message = "The file server gave no recipe."
            raise Unavailable(message, retry_after=5) from None
        return answer if status == 200 else None

    def _send(
        self, encoded: EncodedImage, recipe: str, traceparent: str | None
    ) -> bytes:
        fields: dict[str, Any] = {"file": ("image", encoded.data, encoded.media_type)}
        if recipe:
            fields["recipe"] = recipe
        body, content_type = encode_multipart_formdata(fields)
        headers = {"Content-Type": content_type}
        if token := self._token():
            headers["Authorization"] = f"Bearer {token}"
        if traceparent:
            headers["traceparent"] = traceparent
        status, answer = self._ask("POST", "/upload", body, headers)
        if status not in (200, 201):
            own, theirs = "FILE_SERVER_UPLOAD_TOKEN", "UPLOAD_TOKEN"
            raise ValueError(_refusal(status, own, theirs))
        return answer

    def _ask(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        with Deadline(self._seconds) as deadline:
            answer = ask(
                connect_to_own(self._base, deadline, READ_SECONDS),
                method,
                self._base.path + path,
                body=body,
                headers=headers,
                most=_LONGEST_RECIPE,
            )
            # A connection that was shut in the middle looks like an answer's end.
            deadline.remaining()
        return answer


def _refusal(status: int, own: str, theirs: str) -> str:
    """What a ``status`` says to the operator, whose variable ``own`` is to hold what
    ``theirs`` holds at the file server."""
    if status in (401, 403):
        return f"status {status}: {own} has to be its {theirs}"
    return f"status {status}"


def _path_in(answer: bytes) -> str:
    """The picture's path in an upload's answer; ValueError when there is none."""
    if len(answer) > _LONGEST_ANSWER:
        raise ValueError("the answer is too long")
    try:
        path = json.loads(answer)["url"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("it is not the answer to an upload") from None
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        raise ValueError("the answer names no picture")
    return path
