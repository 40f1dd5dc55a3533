"""What runs in each process of the cluster: one device, and the same engine."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from ray import serve

from flux_api.cluster.heartbeat import Listener
from flux_api.core import VERSION, Completed, Event, Failed
from flux_api.queue.manager import PipelineManager
from flux_api.queue.tasks import Picture

T = TypeVar("T")

_POLL_SECONDS = 0.5
_LOOK_SECONDS = 0.2
# Above what one device makes at once, with those that wait to share a forward.
_THREADS = 64

FAILED = "the replica cannot load: "
"""What a constructor's error begins with; the reason follows."""


class Replica:
    """One replica. ``make_manager`` gives the process's pipeline manager under the
    settings ``environ``; ``most_replicas`` is how many of these there may be, and
    ``most_models`` how many sets one keeps in memory. The constructor ends when the
    weights are loaded, RuntimeError when they cannot be."""

    def __init__(
        self,
        make_manager: Callable[[Mapping[str, str]], PipelineManager],
        environ: Mapping[str, str],
        most_replicas: int,
        most_models: int,
    ) -> None:
        self._most_replicas = most_replicas
        # Of the replicas with room Ray takes one that has called this for the same set.
        keep = serve.multiplexed(max_num_models_per_replica=most_models)
        self._has_model = keep(_has_model)
        self._listener = Listener()
        self._listener.start()
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

    async def draw(self, picture: Picture, pulse: str) -> AsyncIterator[Event]:
        """The events of ``picture`` as they come, ending with Completed or Failed.
        Whoever stops to listen cancels it; so does the end of the ``pulse``."""
        # A generator that is not async would run to its end when it is cancelled.
        request = dataclasses.replace(
            picture.request, num_images_per_prompt=1, seed=picture.seed
        )
        job = self._manager.open(
            caller=secrets.token_hex(4),
            is_wanted=lambda: self._listener.hears(pulse),
        )
        try:
            await self._has_model(picture.request.model)
            # Pictures are shrunk, and nobody else's steps wait for it.
            await self._in_thread(self._manager.submit, job, request)
            seen = 0
            while True:
                seen, fresh = await self._in_thread(job.news, seen, _POLL_SECONDS)
                # Listed before it is sent: the end lets go of the pictures.
                for event in fresh:
                    yield event
                if fresh and isinstance(fresh[-1], (Completed, Failed)):
                    return
        finally:
            if job.outcome is None:
                self._manager.cancel(job)
            job.release()

    async def _in_thread(self, call: Callable[..., T], *arguments: object) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, call, *arguments)


async def _has_model(model: str) -> str:
    """The engine loads by itself; Ray has only to know of which sets."""
    return model
