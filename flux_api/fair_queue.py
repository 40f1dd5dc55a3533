"""Who is next: callers take turns, so do the requests of each, one picture a turn."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from flux_api.jobs import Job
from flux_api.tasks import ImageTask

T = TypeVar("T")


class Turns(Generic[T]):
    """Things that take turns, by key. One that had no turn yet comes before those that
    had, but not two such in a row while others wait, so that nobody is kept out."""

    def __init__(self) -> None:
        self._newcomers: OrderedDict[str, T] = OrderedDict()
        self._others: OrderedDict[str, T] = OrderedDict()
        self._others_were_passed = False

    def __len__(self) -> int:
        return len(self._newcomers) + len(self._others)

    def __iter__(self) -> Iterator[T]:
        yield from self._newcomers.values()
        yield from self._others.values()

    def add(self, key: str, thing: T) -> T:
        """What waits under ``key``: ``thing``, unless something does already."""
        found = self.find(key)
        return self._newcomers.setdefault(key, thing) if found is None else found

    def find(self, key: str) -> T | None:
        """What waits under ``key``."""
        return self._newcomers.get(key, self._others.get(key))

    def discard(self, key: str) -> None:
        """Forget ``key`` and that it had turns."""
        self._newcomers.pop(key, None)
        self._others.pop(key, None)

    def head(self) -> T:
        """Whose turn it is; only while something waits."""
        if self._others and (self._others_were_passed or not self._newcomers):
            return next(iter(self._others.values()))
        return next(iter(self._newcomers.values()))

    def end(self, key: str) -> None:
        """``key`` has had its turn and goes to the end of the round."""
        newcomer = self._newcomers.pop(key, None)
        self._others_were_passed = newcomer is not None and bool(self._others)
        if newcomer is not None:
            self._others[key] = newcomer
        else:
            self._others.move_to_end(key)

    def copy(self, copy_of: Callable[[T], T]) -> Turns[T]:
        """The same turns over copies of the things."""
        twin: Turns[T] = Turns()
        twin._newcomers.update((k, copy_of(t)) for k, t in self._newcomers.items())
        twin._others.update((k, copy_of(t)) for k, t in self._others.items())
        twin._others_were_passed = self._others_were_passed
        return twin


class Pictures:
    """Those of ``job`` that wait, from number ``first`` on."""

    def __init__(self, job: Job, first: int = 0) -> None:
        self.job = job
        self.first = first

    @property
    def left(self) -> int:
        """How many wait."""
        return self.job.request.num_images_per_prompt - self.first

    def copy(self) -> Pictures:
        """The same pictures, to be counted down on their own."""
        return Pictures(self.job, self.first)


class FairQueue:
    """The pictures that wait, by caller and job. Not thread-safe: the manager's lock
    guards it."""

    def __init__(self, callers: Turns[Turns[Pictures]] | None = None) -> None:
        self._callers = callers if callers is not None else Turns()

    def add(self, job: Job) -> None:
        """Queue every picture of ``job``."""
        self._callers.add(job.caller, Turns()).add(job.id, Pictures(job))

    def head(self) -> Job | None:
        """The job whose turn it is; those that have ended are dropped on the way."""
        for pictures in list(self.pictures()):
            if pictures.job.outcome is not None:
                self.drop(pictures.job)
        return self._callers.head().head().job if self._callers else None

    def take(self) -> ImageTask:
        """Remove the next picture of the head; only while something waits."""
        jobs = self._callers.head()
        pictures = jobs.head()
        job, index = pictures.job, pictures.first
        pictures.first += 1
        self._callers.end(job.caller)
        jobs.end(job.id)
        if not pictures.left:
            self.drop(job)
        return ImageTask(job, index, job.request)

    def drop(self, job: Job) -> None:
        """Forget the pictures of ``job``."""
        jobs = self._callers.find(job.caller)
        if jobs is not None:
            jobs.discard(job.id)
            if not jobs:
                self._callers.discard(job.caller)

    def pictures(self) -> Iterator[Pictures]:
        """What waits, job by job."""
        for jobs in self._callers:
            yield from jobs

    def jobs(self) -> list[Job]:
        """The jobs of which no picture has started, in the order in which they will."""
        waiting = {p.job.id for p in self.pictures() if p.job.state == "queued"}
        ahead = FairQueue(self._callers.copy(lambda jobs: jobs.copy(Pictures.copy)))
        found = []
        while waiting:
            job = ahead.take().job
            if job.id in waiting:
                waiting.discard(job.id)
                found.append(job)
        return found
