"""What ``Idempotency-Key`` remembers: which job answers a key's request, and how."""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from flask import Response

from flux_api.core import Completed
from flux_api.errors import KeyReused
from flux_api.queue.jobs import Job
from flux_api.queue.results import ResultStore

KEPT_SECONDS = 24 * 3600.0
KEPT_KEYS = 1000

Name = tuple[str, str]
"""Whose key it is, and the key."""


@dataclass(slots=True, eq=False)
class Entry:
    """One key: its first request's ``job``, as soon as there is one, and ``render``,
    which makes the answer, the same each time."""

    name: Name
    fingerprint: bytes
    until: float
    job: Job | None = None
    render: Callable[[], Response] | None = None
    settled: threading.Event = field(default_factory=threading.Event)
    """Set when the first request has an answer, or came to none."""


class KeptAnswers:
    """The newest thousand keys, each for a day, as long as ``results`` keeps the
    pictures; what is too much goes from whoever has the most. Thread-safe; gone when
    the process ends."""

    def __init__(
        self, results: ResultStore, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._results = results
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[Name, Entry] = OrderedDict()

    def begin(self, name: Name, fingerprint: bytes) -> tuple[Entry, bool]:
        """The key's entry, and whether it is new, and so the caller's to :meth:`keep`
        or to :meth:`forget`. KeyReused where the key was another request's."""
        with self._lock:
            self._drop_old()
            entry = self._entries.get(name)
            if entry is not None and entry.fingerprint != fingerprint:
                message = "This Idempotency-Key came with another request before."
                raise KeyReused(message, param="idempotency_key")
            if entry is not None and not self._is_gone(entry):
                return entry, False
            entry = Entry(name, fingerprint, self._clock() + KEPT_SECONDS)
            self._entries[name] = entry
            self._entries.move_to_end(name)
            return entry, True

    def keep(self, entry: Entry, render: Callable[[], Response]) -> None:
        """Answer with what ``render`` makes from now on."""
        entry.render = render
        entry.settled.set()

    def forget(self, entry: Entry) -> None:
        """The next request with this key is a new one."""
        with self._lock:
            if self._entries.get(entry.name) is entry:
                del self._entries[entry.name]
        entry.settled.set()

    def _is_gone(self, entry: Entry) -> bool:
        """Whether there was an answer that cannot be made again."""
        if entry.render is None or entry.job is None or entry.job.outcome is None:
            return False
        if not isinstance(entry.job.outcome, Completed):
            return True
        delivered = entry.job.wait_delivery(0)
        return delivered and self._results.pictures(entry.job) is None

    def _drop_old(self) -> None:
        """What is too old, and what is too much; never what runs."""
        now = self._clock()
        # One without an answer still runs: forgotten, it would run twice.
        done = [name for name, entry in self._entries.items() if entry.render]
        for name in done:
            if self._entries[name].until > now:
                break
            del self._entries[name]
        while len(self._entries) > KEPT_KEYS:
            kept = [name for name in done if name in self._entries]
            if not kept:
                return
            # Whoever sends many keys forgets none of others'.
            ((most, _),) = Counter(whose for whose, _ in kept).most_common(1)
            del self._entries[next(name for name in kept if name[0] == most)]
