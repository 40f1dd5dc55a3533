"""KeptAnswers kept for ``Idempotency-Key``: a POST that is sent twice is done once."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from flux_api.errors import KeyInUse, KeyReused

KEPT_SECONDS = 24 * 3600.0
KEPT_ANSWERS = 1000


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """A finished answer as it went out."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def size(self) -> int:
        """About how many bytes it takes to keep."""
        return len(self.body) + sum(len(n) + len(v) for n, v in self.headers) + 1000


@dataclass(slots=True)
class _Entry:
    fingerprint: bytes
    until: float
    answer: KeptAnswer | None = None


class KeptAnswers:
    """The newest answers of each caller's keys: at most ``most_bytes`` of them, none
    for longer than a day. Thread-safe; gone when the process ends."""

    def __init__(
        self, most_bytes: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most_bytes = most_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._bytes = 0
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()

    def begin(self, caller: str, key: str, fingerprint: bytes) -> KeptAnswer | None:
        """The answer to replay. None makes the key the caller's until :meth:`keep` or
        :meth:`forget`; KeyInUse while it is, KeyReused for another request's key."""
        with self._lock:
            self._drop_old()
            entry = self._entries.get((caller, key))
            if entry is None:
                until = self._clock() + KEPT_SECONDS
                self._entries[caller, key] = _Entry(fingerprint, until)
                return None
            if entry.fingerprint != fingerprint:
                message = "This Idempotency-Key came with another request before."
                raise KeyReused(message, param="idempotency_key")
            if entry.answer is None:
                message = "The first request with this Idempotency-Key still runs."
                raise KeyInUse(message, param="idempotency_key", retry_after=2)
            return entry.answer

    def keep(self, caller: str, key: str, answer: KeptAnswer) -> None:
        """Replay ``answer`` from now on, as long as there is room for it."""
        with self._lock:
            if answer.size > self._most_bytes:
                self._drop((caller, key))
                return
            entry = self._entries[caller, key]
            entry.answer = answer
            self._bytes += answer.size
            self._drop_old()

    def forget(self, caller: str, key: str) -> None:
        """The next request with this key is a new one."""
        with self._lock:
            self._drop((caller, key))

    def _drop_old(self) -> None:
        """What is too old, and the oldest of what is too much; never what runs."""
        now = self._clock()
        for name, entry in list(self._entries.items()):
            excess = len(self._entries) > KEPT_ANSWERS or self._bytes > self._most_bytes
            if not excess and entry.until > now:
                return
            if entry.answer is not None:
                self._drop(name)

    def _drop(self, name: tuple[str, str]) -> None:
        entry = self._entries.pop(name, None)
        if entry is not None and entry.answer is not None:
            self._bytes -= entry.answer.size
