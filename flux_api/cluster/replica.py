"""What runs in each process of the cluster: one device, and the same engine."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from flux_api.core import VERSION, Event
from flux_api.queue.jobs import Job
from flux_api.queue.manager import PipelineManager
from flux_api.queue.tasks import Picture

# How often a picture that is on its way says so.
BEAT_SECONDS = 0.5
_LOOK_SECONDS = 0.2
# Above what one device makes at once, with those that wait to share a forward.
_THREADS = 64

FAILED = "the replica cannot load: "
"""What a constructor's error begins with; the reason follows."""


class Replica:
    """One replica. ``make_manager`` gives the process's pipeline manager under the
    settings ``environ``; ``most_replicas`` is how many of these there may be. The
    constructor ends when the weights are loaded, RuntimeError when they cannot be."""

    def __init__(
        self,
        make_manager: Callable[[Mapping[str, str]], PipelineManager],
        environ: Mapping[str, str],
        most_replicas: int,
    ) -> None:
        self._most_replicas = most_replicas
        self._threads = ThreadPoolExecutor(_THREADS, "flux-events")
        self._manager = make_manager(environ)
        self._manager.start()
        while (reason := self._manager.not_ready) is not None:
            if self._manager.state == "failed":
                raise RuntimeError(FAILED + reason)
            time.sleep(_LOOK_SECONDS)

    def describe(self) -> dict[str, Any]:
        """What the API has to know: the ``version``, how many pictures share forwards
        in one replica (``slots``) and of how many tokens (``batch_tokens``), the
        ``most`` replicas, and how pictures are made (``performance``)."""
        slots, batch_tokens = self._manager.room
        return {
            "version": VERSION,
            "slots": slots,
            "batch_tokens": batch_tokens,
            "most": self._most_replicas,
            "performance": self._manager.performance,
        }

    def check_health(self) -> None:
        """RuntimeError where this replica has to be replaced."""
        if self._manager.state == "failed":
            raise RuntimeError(self._manager.not_ready)

    async def draw(self, picture: Picture) -> AsyncIterator[Event | None]:
        """The events of ``picture`` as they come, ending with Completed or Failed; None
        where there was none for a moment. Whoever stops to listen cancels it."""
        # A generator that is not async would run to its end when it is cancelled.
        request = dataclasses.replace(
            picture.request, num_images_per_prompt=1, seed=picture.seed
        )
        job = self._manager.open(caller=secrets.token_hex(4))
        try:
            # Its pictures are shrunk, which would keep the others' steps waiting.
            loop = asyncio.get_running_loop()
            submit = self._manager.submit
            await loop.run_in_executor(self._threads, submit, job, request)
            async for event in self._follow(job):
                yield event
        finally:
            if job.outcome is None:
                self._manager.cancel(job)
            job.release()

    async def _follow(self, job: Job) -> AsyncIterator[Event | None]:
        loop, seen = asyncio.get_running_loop(), 0
        while True:
            look = loop.run_in_executor(self._threads, job.news, seen, BEAT_SECONDS)
            seen, fresh = await look
            # Listed before it is sent: the end lets go of the pictures.
            for event in fresh or (None,):
                yield event
            if job.outcome is not None and job.news(seen, 0)[0] == seen:
                return
