"""The jobs of a process by their ids: those alive, and the newest of those ended."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from itertools import chain

from flux_api.core import Completed
from flux_api.errors import JobConflict, JobNotFound
from flux_api.queue.jobs import KEPT_SECONDS, Job

KEPT_JOBS = 1000
# Of these, for jobs that made no picture, however many others made some: who asks how
# a job ended wants to be told that it failed, too.
KEPT_IN_VAIN = 100


class JobTable:
    """Ended jobs stay ten minutes, or for as long as their pictures are kept, and with
    the living at most a thousand: those that made no picture go before those whose
    pictures may still be asked for, all but the newest hundred, and those of the caller
    who has the most before any of others'.
    Not thread-safe: the manager's lock guards it."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._living: dict[Job, None] = {}
        self._alive: Counter[str] = Counter()
        # Those that ended, as they did. Jobs end in any thread, without that lock: they
        # come in on the right, and are looked at later.
        self._ended: deque[Job] = deque()
        self._noted: deque[Job] = deque()
        # Those of them whose pictures are kept for longer.
        self._kept_longer: deque[Job] = deque()
        # Refused, failed or cancelled: anybody makes a thousand of them in seconds.
        self._vain: deque[Job] = deque()

    def add(self, job: Job) -> None:
        """Enter ``job``; JobConflict while another with its id is alive, or is kept
        for another owner, who may still come for its pictures."""
        self._forget_old()
        earlier = self._jobs.get(job.id)
        if earlier is not None and (
            earlier.outcome is None or earlier.owner != job.owner
        ):
            raise JobConflict("This job id is in use.", param="job_id")
        self._jobs[job.id] = job
        # In place of an ended one of that id it would keep the place of the old.
        self._jobs.move_to_end(job.id)
        self._living[job] = None
        self._alive[job.caller] += 1
        job.call_at_end(self._ended.append)
        self._forget_old()

    def remove(self, job: Job) -> None:
        """Forget ``job``, which ended without a picture."""
        self._note_ends()
        if job in self._vain:
            self._vain.remove(job)
        self._forget(job)

    def find(self, job_id: str, owner: str | None) -> Job:
        """The job, where it is ``owner``'s (None: anybody's); else JobNotFound."""
        self._forget_old()
        job = self._jobs.get(job_id)
        # The same answer for both: nobody learns which ids of others exist.
        if job is None or owner not in (None, job.owner):
            raise JobNotFound("There is no such job.", param="job_id")
        return job

    def of(self, caller: str) -> list[Job]:
        """The jobs of ``caller``, the newest first."""
        self._forget_old()
        # A walk over a thousand at most, at the rate at which people look at lists.
        return [job for job in reversed(self._jobs.values()) if job.caller == caller]

    def living(self) -> list[Job]:
        """Every job that has not ended."""
        self._note_ends()
        return list(self._living)

    def alive(self, caller: str) -> int:
        """How many of ``caller``'s jobs have not ended."""
        self._note_ends()
        return self._alive[caller]

    def _note_ends(self) -> None:
        while self._ended:
            job = self._ended.popleft()
            if not isinstance(job.outcome, Completed):
                self._vain.append(job)
            elif job.kept_seconds > KEPT_SECONDS:
                self._kept_longer.append(job)
            else:
                self._noted.append(job)
            del self._living[job]
            self._alive[job.caller] -= 1
            if not self._alive[job.caller]:
                del self._alive[job.caller]

    def _forget_old(self) -> None:
        self._note_ends()
        # Those that ended first; the living stay, however many there are.
        for ended in (self._vain, self._noted):
            while ended and (ended[0].ended_for or 0.0) > KEPT_SECONDS:
                self._forget(ended.popleft())
        longer = self._kept_longer
        while longer and (longer[0].ended_for or 0.0) > longer[0].kept_seconds:
            self._forget(longer.popleft())
        made = self._noted, self._kept_longer
        surplus = len(self._vain) + sum(map(len, made)) + len(self._living) - KEPT_JOBS
        for _ in range(surplus):
            has_vain = len(self._vain) > KEPT_IN_VAIN or not any(made)
            ended_jobs = (self._vain,) if has_vain else made
            if any(ended_jobs):
                self._forget(_take_from_the_greediest(*ended_jobs))

    def _forget(self, job: Job) -> None:
        # Another may have its id by now.
        if self._jobs.get(job.id) is job:
            del self._jobs[job.id]


def _take_from_the_greediest(*queues: deque[Job]) -> Job:
    """The first of the caller who has the most in ``queues``, which have it no
    longer."""
    ((most, _),) = Counter(job.caller for job in chain(*queues)).most_common(1)
    job = next(job for job in chain(*queues) if job.caller == most)
    next(queue for queue in queues if job in queue).remove(job)
    return job
