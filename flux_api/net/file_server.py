"""Uploads finished pictures to the file server; None where it could not be done."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPException
from urllib.parse import urlsplit

from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError
from urllib3.filepost import encode_multipart_formdata

from flux_api.images.codec import EncodedImage
from flux_api.net.connections import Deadline, make_tls_context, open_connection
from flux_api.net.urls import DEFAULT_PORTS

logger = logging.getLogger(__name__)

READ_SECONDS = 10.0
TOTAL_SECONDS = 20.0
_PATH = re.compile(r"/i/[0-9A-Za-z_-]{8,64}\.[a-z0-9]{2,5}")
_LONGEST_ANSWER = 4096
# Those of a machine that is short of threads or memory too: the picture is finished.
_FAILURES = (HTTPError, HTTPException, ValueError, OSError, RuntimeError, MemoryError)


class FileServer:
    """The image file server at ``base``; its URLs are given to callers under
    ``public``. What ``upload_token`` gives goes along as a bearer token. An upload
    takes ``seconds`` at most."""

    def __init__(
        self,
        base: str,
        public: str,
        upload_token: Callable[[], str | None] = lambda: None,
        *,
        seconds: float = TOTAL_SECONDS,
    ) -> None:
        self._base, self._public, self._token = urlsplit(base), public, upload_token
        self._seconds = seconds

    def upload(
        self, encoded: EncodedImage, *, traceparent: str | None = None
    ) -> str | None:
        """The URL of the stored picture, None when the file server failed: a finished
        picture is then delivered in the answer itself. The caller's ``traceparent``
        goes along."""
        try:
            return self._public + _path_in(self._send(encoded, traceparent))
        except _FAILURES as error:
            logger.warning("upload to the file server failed: %s", error)
            return None

    def _send(self, encoded: EncodedImage, traceparent: str | None) -> bytes:
        file = f"image.{encoded.extension}", encoded.data, encoded.media_type
        body, content_type = encode_multipart_formdata({"file": file})
        headers = {"Content-Type": content_type, "Connection": "close"}
        if token := self._token():
            headers["Authorization"] = f"Bearer {token}"
        if traceparent:
            headers["traceparent"] = traceparent
        with Deadline(self._seconds) as deadline:
            with closing(self._connect(deadline)) as connection:
                path = f"{self._base.path}/upload"
                connection.request(
                    "POST", path, body=body, headers=headers, preload_content=False
                )
                with closing(connection.getresponse()) as response:
                    if response.status not in (200, 201):
                        raise ValueError(f"status {response.status}")
                    answer = response.read(_LONGEST_ANSWER + 1)
            # A connection that was shut in the middle looks like an answer's end.
            deadline.remaining()
        return answer

    def _connect(self, deadline: Deadline) -> HTTPConnection:
        scheme, host = self._base.scheme, self._base.hostname or ""
        return open_connection(
            scheme,
            host,
            self._base.port or DEFAULT_PORTS[scheme],
            addresses=[host],
            deadline=deadline,
            tls=make_tls_context(),
            read_seconds=READ_SECONDS,
        )


def _path_in(answer: bytes) -> str:
    """The picture's path in an upload's answer; ValueError when there is none."""
    if len(answer) > _LONGEST_ANSWER:
        raise ValueError("the answer is too long")
    try:
        path = json.loads(answer)["url"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("the answer is no upload answer") from None
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        raise ValueError("the answer names no picture")
    return path
