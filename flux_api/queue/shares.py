"""Places that all callers share, and of which one may hold only a part."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from flux_api.errors import Cancelled, QueueFull, Unavailable

_POLL_SECONDS = 0.25


class Shares:
    """``total`` places, at most ``each`` of them for one caller; who finds none waits
    ``seconds``. ``purpose`` ends the sentence "Too many pictures ..."."""

    def __init__(self, total: int, each: int, *, seconds: float, purpose: str) -> None:
        self._total, self._each = total, each
        self._seconds, self._purpose = seconds, purpose
        self._held: Counter[str] = Counter()
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, caller: str, is_wanted: Callable[[], bool]) -> Iterator[None]:
        """A place while the block runs. QueueFull when ``caller`` has its share already
        and keeps it, Unavailable when all are taken, Cancelled when nobody wants it any
        more."""
        self._take(caller, is_wanted)
        try:
            yield
        finally:
            with self._changed:
                # Who holds none any more goes.
                self._held -= Counter([caller])
                self._changed.notify_all()

    def _take(self, caller: str, is_wanted: Callable[[], bool]) -> None:
        until = time.monotonic() + self._seconds
        with self._changed:
            while not self._has_room(caller):
                if not is_wanted():
                    raise Cancelled("The request was cancelled.")
                left = until - time.monotonic()
                if left <= 0:
                    raise self._refusal(caller)
                # Who leaves wakes those that wait; a client that is gone wakes nobody.
                self._changed.wait(min(left, _POLL_SECONDS))
            self._held[caller] += 1

    def _has_room(self, caller: str) -> bool:
        return self._held.total() < self._total and self._held[caller] < self._each

    def _refusal(self, caller: str) -> QueueFull | Unavailable:
        if self._held[caller] >= self._each:
            return QueueFull(
                f"Too many of your pictures {self._purpose} at the moment.",
                retry_after=5,
                code="concurrency_limit_exceeded",
            )
        message = f"Too many pictures {self._purpose} at the moment."
        return Unavailable(message, retry_after=5)


class Watchers:
    """``total`` connections that watch jobs, each of which holds a thread; three
    quarters of them at most are one caller's."""

    def __init__(self, total: int) -> None:
        self._total, self._each = total, total - total // 4
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()

    def enter(self, caller: str) -> Callable[[], None]:
        """What to call when the connection ends; QueueFull where there is no place."""
        with self._lock:
            full = self._held.total() >= self._total
            if full or self._held[caller] >= self._each:
                message = "Too many connections watch jobs."
                raise QueueFull(message, retry_after=5, code="too_many_watchers")
            self._held[caller] += 1
        return partial(self._leave, caller)

    def _leave(self, caller: str) -> None:
        with self._lock:
            self._held -= Counter([caller])
