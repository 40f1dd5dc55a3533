"""What reviews finished pictures: a function of the operator's, or an HTTP endpoint."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pybase64

from flux_api.errors import BadSetting
from flux_api.images.codec import encode_image
from flux_api.net.connections import Deadline, ask, connect_to_own

if TYPE_CHECKING:
    from PIL.Image import Image

Review = Callable[[str, "Image"], str | None]

# Far more than a verdict needs; the operator's endpoint may still be broken.
_LONGEST_ANSWER = 64 * 1024


def open_filter(where: str, seconds: float) -> Review:
    """The review at ``where``, ``module:function`` or a URL that answers within
    ``seconds``; BadSetting where there is no such function."""
    if "://" in where:
        return _Endpoint(where, seconds)
    module, _, name = where.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # whatever a module does when imported
        why = str(error) or type(error).__name__
        raise BadSetting(f"FLUX_FILTER={where!r}: {why}") from None
    if not callable(found):
        raise BadSetting(f"FLUX_FILTER={where!r}: it is not a function")
    review: Review = found
    return review


class _Endpoint:
    """Asks by POST. It is the operator's own address: private ones are no matter."""

    def __init__(self, url: str, seconds: float) -> None:
        self._url, self._seconds = urlsplit(url), seconds

    def __call__(self, prompt: str, image: Image) -> str | None:
        picture = pybase64.b64encode_as_string(encode_image(image).data)
        body = json.dumps({"prompt": prompt, "image_base64": picture}).encode()
        with Deadline(self._seconds) as deadline:
            status, text = ask(
                connect_to_own(self._url, deadline, self._seconds),
                "POST",
                self._url.path or "/",
                body=body,
                headers={"Content-Type": "application/json"},
                most=_LONGEST_ANSWER + 1,
            )
            # A connection that was shut in the middle looks like an answer's end.
            deadline.remaining()
        if status != 200 or len(text) > _LONGEST_ANSWER:
            raise ValueError(f"status {status}")
        answer = json.loads(text)
        if type(answer["allowed"]) is not bool:
            raise ValueError("'allowed' is neither true nor false")
        return None if answer["allowed"] else str(answer.get("reason") or "")
