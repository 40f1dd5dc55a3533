"""The jobs of a process by their ids: those alive, and the newest of those ended."""

from __future__ import annotations

from collections import OrderedDict

from flux_api.errors import JobConflict, JobNotFound
from flux_api.queue.jobs import Job

# For clients whose connection broke to come back and ask how it ended.
KEPT_SECONDS = 600.0
KEPT_JOBS = 1000


class JobTable:
    """Ended jobs stay ten minutes, and with the living at most a thousand. Not
    thread-safe: the manager's lock guards it."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, Job] = OrderedDict()

    def add(self, job: Job) -> None:
        """Enter ``job``; JobConflict while another with its id is alive."""
        earlier = self._jobs.get(job.id)
        if earlier is not None and earlier.outcome is None:
            raise JobConflict("This job id is in use.", param="job_id")
        self._jobs[job.id] = job
        # In place of an ended one of that id it would keep the place of the old.
        self._jobs.move_to_end(job.id)
        self._forget_old()

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
        return [job for job in reversed(self._jobs.values()) if job.caller == caller]

    def living(self) -> list[Job]:
        """Every job that has not ended."""
        return [job for job in self._jobs.values() if job.outcome is None]

    def alive(self, caller: str) -> int:
        """How many of ``caller``'s jobs have not ended."""
        return sum(
            job.caller == caller and job.outcome is None for job in self._jobs.values()
        )

    def _forget_old(self) -> None:
        excess = len(self._jobs) - KEPT_JOBS
        # The oldest first; the living stay, however many there are.
        for job in list(self._jobs.values()):
            seconds = job.ended_for
            if seconds is not None and (seconds > KEPT_SECONDS or excess > 0):
                del self._jobs[job.id]
                excess -= 1
