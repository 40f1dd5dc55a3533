"""Which picture may start beside those that are on their way."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from flux_api.core import ImageRequest
from flux_api.queue.fair_queue import FairQueue
from flux_api.queue.jobs import Job
from flux_api.queue.tasks import Backend, PictureTask

# Each is computed between the steps of the others, which wait for it, and holds its
# own latents in the device's memory.
MAX_INTERLEAVED = 3
"""How many pictures may run beside those that fill the forwards, one of a caller."""

MAX_PASSED_OVER = 3
"""How many pictures in a row may go before the one whose turn it is, because weights
and LoRAs need not be changed for them."""

# Of a thousand that wait one is found among the next, or hardly at all; each is looked
# at with the manager's lock held.
_MOST_LOOKED_AT = 64


def find_next(
    queue: FairQueue, running: Sequence[PictureTask], backend: Backend
) -> tuple[Job, bool] | None:
    """The job whose next picture may start, and whether as an extra. Only the first in
    turn (see :func:`_first`) gets room in the forwards, so that what is small keeps
    nothing large out; and no extra overtakes one that waits for running work to
    drain."""
    if not queue:
        return None
    first = _first(queue, backend)
    filling = [task.request for task in running if not task.interleaved]
    requests = [task.request for task in running]
    # With nothing on its way there is nothing to wait for, so no question to ask.
    if not running or (
        backend.joins(first.request, requests) and _has_room(first, filling, backend)
    ):
        return first, False
    interleaving = _Interleaving(running, backend)
    if interleaving.are_full:
        return None
    # In turn, and only as far as the first that cannot join: it waits for what runs to
    # end, and would wait for ever if others kept beginning.
    for job in islice(queue.in_turn(), _MOST_LOOKED_AT):
        if not backend.joins(job.request, requests):
            return None
        if interleaving.may_have(job):
            return job, True
    return None


def may_be_next(
    job: Job, queue: FairQueue, running: Sequence[PictureTask], backend: Backend
) -> bool:
    """Whether ``job``, which just came, changes what :func:`find_next` finds."""
    head = queue.head()
    # Who comes behind others mostly changes nothing; a thread that is woken all the
    # same would look at the queue, while others wait for the lock.
    if head is job or not running:
        return True
    if backend.is_warm(job.request) and not backend.is_warm(head.request):
        return True
    interleaving = _Interleaving(running, backend)
    return not interleaving.are_full and interleaving.may_have(job)


def _first(queue: FairQueue, backend: Backend) -> Job:
    """Whose turn it is; before it, a few times in a row, one of the next that needs no
    other LoRAs or weights than those that are on. Each pays for its turn, so that who
    was passed over has its own all the sooner afterwards."""
    head = queue.head()
    if queue.passed_over >= MAX_PASSED_OVER or backend.is_warm(head.request):
        return head
    near = islice(queue.in_turn(), _MOST_LOOKED_AT)
    return next((job for job in near if backend.is_warm(job.request)), head)


def _has_room(job: Job, filling: Sequence[ImageRequest], backend: Backend) -> bool:
    # Alone there is always room: a picture may be larger than the budget of a forward.
    if not filling:
        return True
    return len(filling) < backend.slots and backend.fits(job.request, filling)


class _Interleaving:
    """Decides whether a short picture may interleave with the running ones."""

    def __init__(self, running: Sequence[PictureTask], backend: Backend) -> None:
        self._backend = backend
        self._jobs = {task.job for task in running}
        self._callers = {task.job.caller for task in running if task.interleaved}
        filling = [task for task in running if not task.interleaved]
        # They share forwards: one step of all costs as much as all their tokens.
        self._step = sum(task.tokens for task in filling)
        # The first that is done makes room.
        left = min((task.steps_left for task in filling), default=0)
        self._until_room = left * self._step

    @property
    def are_full(self) -> bool:
        """Whether there is no place for one more."""
        return len(self._callers) >= MAX_INTERLEAVED

    def may_have(self, job: Job) -> bool:
        """Whether the first picture of ``job`` may be one. By taking turns it delays
        the others by its own work, and is itself spared what they have left: together
        they wait less where that is more than twice its work. Its steps are no larger
        than theirs, so that nobody is slowed down out of proportion."""
        if job in self._jobs or job.caller in self._callers:
            return False
        step = self._backend.tokens(job.request)
        work = step * job.request.total_steps
        return step <= self._step and 2 * work <= self._until_room
