"""Who is next: callers take turns, so do the requests of each, one picture a turn."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from operator import attrgetter

from flux_api.queue.jobs import Job
from flux_api.queue.tasks import PictureTask
from flux_api.queue.turns import Moment, Turns


class Pictures:
    """Those of ``job`` that wait, from number ``first`` on; a step of one has about
    ``tokens``."""

    def __init__(self, job: Job, tokens: int) -> None:
        self.job = job
        self.first = 0
        self.tokens = tokens
        self.cost = tokens * job.request.total_steps

    @property
    def left(self) -> int:
        """How many wait."""
        return self.job.request.num_images_per_prompt - self.first


_left = attrgetter("left")


class FairQueue:
    """The pictures that wait, by caller and job. What it does for one of a thousand
    takes no longer than for one of two. Not thread-safe: the manager's lock guards
    it."""

    def __init__(self) -> None:
        self._callers: Turns[str, Turns[Job, Pictures]] = Turns()
        self._waiting: dict[Job, Pictures] = {}
        self._starts = _Starts()
        # Callers whose jobs may start at other turns than those that were noted.
        self._stale: set[str] = set()
        self.cost = 0
        """What all pictures take that wait, in tokens times steps."""
        self.passed_over = 0
        """How many pictures in a row were not of the job whose turn it was."""

    def add(self, job: Job, tokens: int) -> None:
        """Queue every picture of ``job``; a step of one has about ``tokens``."""
        pictures = self._waiting[job] = Pictures(job, tokens)
        self.cost += pictures.cost * pictures.left
        jobs = self._callers.add(job.caller, Turns())
        jobs.add(job, pictures)
        # Those of one caller that came before start before: their turns stay.
        before = jobs.turns_before(job, _left)
        self._starts.put(job, self._callers.place(job.caller).moment(before))

    def __len__(self) -> int:
        """Of how many jobs a picture waits."""
        return len(self._waiting)

    def __contains__(self, job: Job) -> bool:
        return job in self._waiting

    @property
    def unstarted(self) -> int:
        """Of how many jobs no picture has started."""
        return len(self._starts)

    def head(self) -> Job:
        """The job whose turn it is; only while something waits."""
        return self._callers.head().head().job

    def in_turn(self) -> Iterator[Job]:
        """The jobs of which a picture waits, caller by caller, in the order of their
        next turns; not to be changed meanwhile."""
        for jobs in self._callers.in_order():
            for pictures in jobs.in_order():
                yield pictures.job

    def take(self, job: Job, *, interleaved: bool = False) -> PictureTask:
        """Remove the next picture of ``job`` and charge its turn; ``interleaved`` where
        it runs beside the others and nobody has to wait for it."""
        pictures, jobs = self._waiting[job], self._jobs_of(job)
        if not interleaved:
            self.passed_over = 0 if job is self.head() else self.passed_over + 1
        # Not in its turn: the others of this caller come sooner or later than noted.
        if jobs.head() is not pictures:
            self._stale.add(job.caller)
        self._starts.discard(job)
        index = pictures.first
        pictures.first += 1
        self.cost -= pictures.cost
        self._callers.end(job.caller, interleaved=interleaved)
        jobs.end(job, interleaved=interleaved)
        if not pictures.left:
            self.drop(job)
        return PictureTask(job, index, job.request, pictures.tokens)

    def drop(self, job: Job) -> None:
        """Forget the pictures of ``job``."""
        pictures = self._waiting.pop(job, None)
        if pictures is None:
            return
        jobs = self._jobs_of(job)
        last = jobs.is_newest(job)
        jobs.discard(job)
        self._starts.discard(job)
        self.cost -= pictures.cost * pictures.left
        if not jobs:
            self._callers.discard(job.caller)
            self._stale.discard(job.caller)
        elif pictures.left and not last:
            # Those behind it move up.
            self._stale.add(job.caller)

    def pictures(self) -> Iterator[Pictures]:
        """What waits, job by job."""
        return iter(self._waiting.values())

    def jobs(self) -> list[Job]:
        """The jobs of which no picture has started, in the order in which they will."""
        self._note_starts()
        return self._starts.in_order()

    def position(self, job: Job) -> int:
        """How many of those start before ``job``, which is one of them."""
        self._note_starts()
        return self._starts.position(job)

    def _jobs_of(self, job: Job) -> Turns[Job, Pictures]:
        return self._callers.place(job.caller).thing

    def _note_starts(self) -> None:
        for caller in self._stale:
            place = self._callers.place(caller)
            noted = set()
            for later, pictures in enumerate(place.thing.turns(_left)):
                job = pictures.job
                if job not in noted and job in self._starts:
                    self._starts.put(job, place.moment(later))
                noted.add(job)
                if len(noted) == len(place.thing):
                    break
        self._stale.clear()


class _Starts:
    """At which turn each job starts of which no picture has."""

    def __init__(self) -> None:
        self._moments: dict[Job, Moment] = {}
        self._jobs: dict[Moment, Job] = {}
        self._order: list[Moment] = []

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, job: Job) -> bool:
        return job in self._moments

    def put(self, job: Job, moment: Moment) -> None:
        self.discard(job)
        self._moments[job], self._jobs[moment] = moment, job
        insort(self._order, moment)

    def discard(self, job: Job) -> None:
        moment = self._moments.pop(job, None)
        if moment is not None:
            del self._order[bisect_left(self._order, moment)]
            # It may be another's already, while the turns of all are noted anew.
            if self._jobs.get(moment) is job:
                del self._jobs[moment]

    def position(self, job: Job) -> int:
        return bisect_left(self._order, self._moments[job])

    def in_order(self) -> list[Job]:
        return [self._jobs[moment] for moment in self._order]
