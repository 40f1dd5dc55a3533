"""Which picture may start beside those that are on their way."""

from __future__ import annotations

from collections.abc import Sequence

from flux_api.core import ImageRequest
from flux_api.fair_queue import FairQueue
from flux_api.jobs import Job
from flux_api.tasks import Backend, ImageTask

EXTRAS = 3
"""How many pictures may run beside those that fill the forwards, one of a caller."""


def find_next(
    queue: FairQueue, running: Sequence[ImageTask], backend: Backend
) -> tuple[Job, bool] | None:
    """The job whose next picture may start, and whether as an extra. Only the first in
    turn gets room in the forwards, so that what is small keeps nothing large out; and
    nobody overtakes one that waits for running work to drain."""
    if not queue:
        return None
    first = queue.head()
    usual = [task.request for task in running if not task.extra]
    requests = [task.request for task in running]
    if not running or (
        backend.joins(first.request, requests) and _has_room(first, usual, backend)
    ):
        return first, False
    extras = _Extras(running, backend)
    if extras.are_full:
        return None
    for job in queue.in_turn():
        if not backend.joins(job.request, requests):
            return None
        if extras.may_have(job):
            return job, True
    return None


def _has_room(job: Job, usual: Sequence[ImageRequest], backend: Backend) -> bool:
    if not usual:
        return True
    return len(usual) < backend.slots and backend.fits(job.request, usual)


class _Extras:
    """What runs, as one sees it who would take turns with it."""

    def __init__(self, running: Sequence[ImageTask], backend: Backend) -> None:
        self._backend = backend
        self._jobs = {task.job for task in running}
        self._callers = {task.job.caller for task in running if task.extra}
        left = [task.steps_left for task in running if not task.extra]
        step = sum(backend.tokens(task.request) for task in running)
        self._until_room = min(left, default=0) * step

    @property
    def are_full(self) -> bool:
        """Whether there is no place for one more."""
        return len(self._callers) >= EXTRAS

    def may_have(self, job: Job) -> bool:
        """Whether the first picture of ``job`` may be one: where it is done before the
        first of the others could make room, waiting for that would serve nobody."""
        if job in self._jobs or job.caller in self._callers:
            return False
        steps = job.request.num_inference_steps
        return self._backend.tokens(job.request) * steps <= self._until_room
