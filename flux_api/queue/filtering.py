"""A backend whose pictures somebody looks at before anybody gets them."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flux_api.core import ImageResult
from flux_api.errors import ContentFiltered, Unavailable
from flux_api.queue.tasks import Backend, Callbacks, Picture

if TYPE_CHECKING:
    from PIL.Image import Image

logger = logging.getLogger(__name__)

Review = Callable[[str, "Image"], str | None]
"""Given a prompt and a finished picture (RGB), why it is refused, or None."""

_LOOK_SECONDS = 0.25
_LONGEST_REASON = 300


class FilteredBackend:
    """``backend``, but ``review`` may refuse each of its pictures, and no preview is
    shown before. A review that fails, or takes more than ``seconds``, refuses too
    unless ``fails_open``."""

    def __init__(
        self, backend: Backend, review: Review, *, seconds: float, fails_open: bool
    ) -> None:
        self._backend, self._review = backend, review
        self._seconds, self._fails_open = seconds, fails_open

    def __getattr__(self, name: str) -> Any:
        """All else is the backend's own."""
        return getattr(self._backend, name)

    def run(self, picture: Picture, callbacks: Callbacks) -> ImageResult:
        """The ``picture``; ContentFiltered where it is refused, Unavailable where
        nobody could say."""
        if not picture.request.delivered:
            return self._backend.run(picture, callbacks)
        unseen = dataclasses.replace(callbacks, on_preview=lambda number, preview: None)
        result = self._backend.run(picture, unseen)
        reason = self._ask(picture.request.prompt, result.image, callbacks.check)
        if reason is None:
            return result
        # A line's end parts words.
        told = "".join(c if c.isprintable() else " " for c in reason)
        told = " ".join(told.split())[:_LONGEST_REASON]
        why = f": {told}" if told else ""
        raise ContentFiltered(f"The content filter refused this picture{why}.")

    def _ask(self, prompt: str, image: Image, check: Callable[[], None]) -> str | None:
        answers: list[str | None] = []
        failures: list[str] = []

        def ask() -> None:
            try:
                # A copy: what is done to it changes no picture.
                answer = self._review(prompt, image.copy())
                if answer is not None and not isinstance(answer, str):
                    raise TypeError("neither a text nor None")
                answers.append(answer)
            except Exception as error:
                # By its kind alone: a message may quote the prompt.
                failures.append(type(error).__name__)

        thread = threading.Thread(target=ask, name="flux-filter", daemon=True)
        until = time.monotonic() + self._seconds
        thread.start()
        while thread.is_alive() and (left := until - time.monotonic()) > 0:
            check()
            thread.join(min(_LOOK_SECONDS, left))
        if answers:
            return answers[0]
        why = failures[0] if failures else "no answer in time"
        logger.warning("the content filter failed: %s", why)
        if self._fails_open:
            return None
        message = "The content filter gave no answer; try again later."
        raise Unavailable(message, retry_after=30)
