"""Telling those that wait how many are in front of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from flux_api.core import Queued
from flux_api.queue.jobs import Job

# Each change moves many: those that come close together are told as one.
PAUSE_SECONDS = 0.25


class Positions:
    """Tells the jobs that ``in_order`` gives, whenever there was news, in a thread of
    its own and with no lock held: only those that have moved."""

    def __init__(self, in_order: Callable[[], list[Job]]) -> None:
        self._in_order = in_order
        self._news = threading.Event()
        self._told: dict[Job, int] = {}

    def note_change(self) -> None:
        """Somebody may have moved."""
        self._news.set()

    def start(self) -> None:
        """Tell from now on."""
        threading.Thread(
            target=self._tell_on, name="flux-positions", daemon=True
        ).start()

    def _tell_on(self) -> None:
        while True:
            # Cleared first: what changes while it tells is news again.
            self._news.wait()
            self._news.clear()
            self._tell()
            time.sleep(PAUSE_SECONDS)

    def _tell(self) -> None:
        before, self._told = self._told, {}
        for position, job in enumerate(self._in_order()):
            self._told[job] = position
            if before.get(job) != position:
                job.post(Queued(position))
