"""The weights leave the device's memory for others' sake, on request or unused."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from flux_api.errors import StillWorking
from flux_api.queue.tasks import Backend, Kept

logger = logging.getLogger(__name__)

_LONGEST_LOOK = 5.0
# None: a picture came at once.
_WHERE = {"host": "in the host's memory", "dropped": "not in memory", None: "back"}


class Sleep:
    """Lets ``backend`` go to sleep: when asked, and after ``idle_seconds`` without a
    job (0: never). ``is_idle`` says whether there is none. The next picture wakes it by
    itself, as it loads what it needs."""

    def __init__(
        self, backend: Backend, is_idle: Callable[[], bool], *, idle_seconds: float
    ) -> None:
        self._backend, self._is_idle = backend, is_idle
        self._idle_seconds = idle_seconds
        self._busy_at = time.monotonic()

    def start(self) -> None:
        """Look from now on whether anything goes on, in a thread of its own."""
        if self._idle_seconds:
            threading.Thread(target=self._watch, name="flux-rest", daemon=True).start()

    def note_work(self) -> None:
        """Something goes on."""
        self._busy_at = time.monotonic()

    def sleep(self, kept: Kept | None = None) -> None:
        """Have the weights leave the device, to be ``kept`` so. StillWorking while
        there are jobs."""
        if not self._is_idle():
            message = "Requests are being worked on; ask again when they are done."
            raise StillWorking(message, retry_after=5)
        # A picture that comes now waits for the device, and has its weights come back.
        self._backend.sleep(kept)
        logger.info("asleep: weights are %s", _WHERE[self._backend.asleep])

    def _watch(self) -> None:
        while True:
            # A quarter: asleep at most that much later than was asked for.
            time.sleep(min(_LONGEST_LOOK, self._idle_seconds / 4))
            if not self._is_idle():
                self.note_work()
            is_over = time.monotonic() - self._busy_at >= self._idle_seconds
            if is_over and not self._backend.asleep:
                try:
                    self.sleep()
                except StillWorking:
                    self.note_work()
                except Exception:
                    # Whatever it was, the next idle while is another try.
                    logger.exception("idle weights could not leave the device")
                    self.note_work()
