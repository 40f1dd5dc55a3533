"""Finished pictures to the file server, or a word that it could not be done."""

from __future__ import annotations

import json
import logging
import re
import time

import requests

from flux_api.images import EncodedImage

logger = logging.getLogger(__name__)

_PATH = re.compile(r"/i/[0-9A-Za-z_-]{8,64}\.[a-z0-9]{2,5}")
_TIMEOUT = (3.0, 10.0)
_TOTAL_SECONDS = 20.0
_LONGEST_ANSWER = 4096


class FileServer:
    """The image file server at ``base``; its URLs are given to callers under
    ``public``. ``upload_token`` goes along as a bearer token where one is set."""

    def __init__(self, base: str, public: str, upload_token: str | None = None) -> None:
        self._base, self._public, self._token = base, public, upload_token

    def upload(self, encoded: EncodedImage) -> str | None:
        """The URL of the stored picture, None when the file server failed: a finished
        picture is then delivered in the answer itself."""
        try:
            return self._public + self._path_of(encoded)
        except (requests.RequestException, ValueError, OSError) as error:
            logger.warning("upload to the file server failed: %s", error)
            return None

    def _path_of(self, encoded: EncodedImage) -> str:
        began = time.monotonic()
        name = f"image.{encoded.extension}"
        with requests.Session() as session:
            session.trust_env = False
            answer = session.post(
                f"{self._base}/upload",
                files={"file": (name, encoded.data, encoded.media_type)},
                headers={"Authorization": f"Bearer {self._token}"}
                if self._token
                else {},
                timeout=_TIMEOUT,
                allow_redirects=False,
                stream=True,
            )
            with answer:
                if answer.status_code not in (200, 201):
                    raise ValueError(f"status {answer.status_code}")
                body = b""
                for part in answer.iter_content(1024):
                    body += part
                    if len(body) > _LONGEST_ANSWER:
                        raise ValueError("the answer is too long")
                    if time.monotonic() - began > _TOTAL_SECONDS:
                        raise ValueError("the answer is too slow")
        try:
            path = json.loads(body)["url"]
        except (ValueError, KeyError, TypeError):
            raise ValueError("the answer is no upload answer") from None
        if not isinstance(path, str) or not _PATH.fullmatch(path):
            raise ValueError("the answer names no picture")
        return path
