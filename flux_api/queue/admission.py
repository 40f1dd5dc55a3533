"""The places in the queue: who has one, and whether there is one more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from flux_api.errors import QueueFull
from flux_api.queue.fair_queue import FairQueue
from flux_api.queue.job_table import JobTable
from flux_api.queue.jobs import Job
from flux_api.queue.tasks import PictureTask, WorkPace


class Places:
    """``most`` places, ``per_caller`` of them for one (0: any number): for jobs that
    wait in ``queue``, for those whose request is still read, and for callers that wait
    for the job of another request. Not thread-safe: the manager's lock guards it."""

    def __init__(
        self, queue: FairQueue, jobs: JobTable, *, most: int, per_caller: int
    ) -> None:
        self._queue, self._jobs = queue, jobs
        self._most, self._per_caller = most, per_caller
        self.reading: set[Job] = set()
        """Jobs whose request is still read."""
        self._held: Counter[str] = Counter()
        self.pace = WorkPace()

    @property
    def unstarted(self) -> int:
        """How many requests wait for their first picture's start."""
        return self._queue.unstarted + len(self.reading) + self._held.total()

    def taken(self, running: Sequence[PictureTask]) -> int:
        """How many are taken, while the pictures ``running`` are made."""
        return self._waiting(running) + len(self.reading) + self._held.total()

    def check(self, caller: str, running: Sequence[PictureTask]) -> None:
        """QueueFull where ``caller`` gets none while the pictures ``running`` are
        made."""
        if self.taken(running) >= self._most:
            wait = self._estimate(running)
            # Apps show the message alone, and not the header.
            message = (
                f"Every place in the queue is taken: try again in {round(wait)} s."
            )
            raise QueueFull(message, retry_after=wait)
        if not self._per_caller:
            return
        alive = self._jobs.alive(caller) + self._held[caller]
        if alive >= self._per_caller:
            raise QueueFull(
                f"You have {alive} {'request' if alive == 1 else 'requests'} here "
                "already; wait for one to end.",
                retry_after=self._estimate(running),
                code="concurrency_limit_exceeded",
            )

    def hold(self, caller: str) -> None:
        """Take one for ``caller``, that waits for the job of another request."""
        self._held[caller] += 1

    def let_go(self, caller: str) -> None:
        """Give back what was held."""
        # Who holds none any more goes: a Counter's own minus keeps what is above zero.
        self._held -= Counter([caller])

    def _waiting(self, running: Sequence[PictureTask]) -> int:
        """How many jobs wait of which no picture is made."""
        # One that has begun stands in the queue with its other pictures, and needs no
        # place any more.
        at_work = {task.job for task in running}
        return len(self._queue) - sum(job in self._queue for job in at_work)

    def forecast(
        self, work: int, running: Sequence[PictureTask]
    ) -> tuple[int, float | None]:
        """How many requests would wait in front of ``work`` (steps times tokens), and
        in about how many seconds it would be done; None: nothing was measured yet."""
        work += self._work_left(running)
        seconds = self.pace.seconds_of(work, at_once=len(running))
        return self._waiting(running), seconds or None

    def _estimate(self, running: Sequence[PictureTask]) -> float:
        """Seconds until a place is free, 1..60: the work that is left to do, at the
        pace of that done, shared out among the jobs that wait."""
        seconds = self.pace.seconds_of(self._work_left(running), at_once=len(running))
        # Within what OpenAI's clients heed; they take any other for no advice.
        return min(60.0, max(1.0, seconds / max(1, self._waiting(running))))

    def _work_left(self, running: Sequence[PictureTask]) -> int:
        """In steps times tokens: pictures of all sizes and lengths add up."""
        begun = sum(task.steps_left * task.tokens for task in running)
        return begun + self._queue.cost
