"""What ``Idempotency-Key`` remembers: which job answered a key's request, and how."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from flask import Response

from flux_api.errors import KeyInUse, KeyReused
from flux_api.queue.jobs import Job
from flux_api.queue.results import FinishedPicture, ResultStore

KEPT_SECONDS = 24 * 3600.0
KEPT_KEYS = 1000

Render = Callable[[list[FinishedPicture]], Response]
"""Makes a job's answer of its pictures, the same each time."""
Name = tuple[str, str]
"""Whose key it is, and the key."""
Replay = tuple[Job, Render, list[FinishedPicture]]


@dataclass(slots=True)
class _Entry:
    fingerprint: bytes
    until: float
    answer: tuple[Job, Render] | None = None


class KeptAnswers:
    """The newest thousand keys, each for a day, as long as ``results`` keeps the
    pictures. Thread-safe; gone when the process ends."""

    def __init__(
        self, results: ResultStore, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._results = results
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[Name, _Entry] = OrderedDict()

    def begin(self, name: Name, fingerprint: bytes) -> Replay | None:
        """The answer to replay. None makes the key the caller's until :meth:`keep` or
        :meth:`forget`; KeyInUse while it is, KeyReused for another request's key."""
        with self._lock:
            self._drop_old()
            entry = self._entries.get(name)
            if entry is None:
                self._entries[name] = _Entry(fingerprint, self._clock() + KEPT_SECONDS)
                return None
            if entry.fingerprint != fingerprint:
                message = "This Idempotency-Key came with another request before."
                raise KeyReused(message, param="idempotency_key")
            if entry.answer is None:
                message = "The first request with this Idempotency-Key still runs."
                raise KeyInUse(message, param="idempotency_key", retry_after=2)
            pictures = self._results.pictures(entry.answer[0])
            if pictures is None:
                entry.answer = None
                return None
            return *entry.answer, pictures

    def keep(self, name: Name, job: Job, render: Render) -> None:
        """Replay what ``render`` makes of the pictures of ``job`` from now on."""
        with self._lock:
            self._entries[name].answer = job, render

    def forget(self, name: Name) -> None:
        """The next request with this key is a new one."""
        with self._lock:
            self._entries.pop(name, None)

    def _drop_old(self) -> None:
        """What is too old, and the oldest of what is too much; never what runs."""
        now = self._clock()
        for name, entry in list(self._entries.items()):
            if len(self._entries) <= KEPT_KEYS and entry.until > now:
                return
            if entry.answer is not None:
                del self._entries[name]
