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
    nobody overtakes one that waits for running work to drain. A job that nobody waits
    for any more ends here."""
    requests = [task.request for task in running]
    usual = [task.request for task in running if not task.extra]
    waiting = (job for job in queue.in_turn() if job.outcome is None)
    for number, job in enumerate(waiting):
        if running and not backend.joins(job.request, requests):
            return None
        room = number == 0 and _has_room(job.request, usual, backend)
        if room or _may_be_extra(job, running, backend):
            if job.is_wanted:
                return job, not room
            job.cancel()
            queue.drop(job)
            return find_next(queue, running, backend)
    return None


def _has_room(
    request: ImageRequest, usual: Sequence[ImageRequest], backend: Backend
) -> bool:
    if not usual:
        return True
    return len(usual) < backend.slots and backend.fits(request, usual)


def _may_be_extra(job: Job, running: Sequence[ImageTask], backend: Backend) -> bool:
    """Whether its first picture may take turns with those that fill the forwards: where
    that is done before the first of them could make room, waiting for it would serve
    nobody."""
    extras = [task.job.caller for task in running if task.extra]
    if len(extras) == EXTRAS or job.caller in extras:
        return False
    if any(task.job is job for task in running):
        return False
    left = [task.steps_left for task in running if not task.extra]
    step = sum(backend.tokens(task.request) for task in running)
    own = backend.tokens(job.request) * job.request.num_inference_steps
    return own <= min(left, default=0) * step
