"""Who is next: callers take turns, so do the requests of each, one picture a turn."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

from flux_api.queue.jobs import Job
from flux_api.queue.tasks import PictureTask

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Place(NamedTuple):
    """Virtual start time of ``key``; ties go to newcomers, then to the lower
    ``number``."""

    start: float
    returning: bool
    number: int
    key: Any


class Turns(Generic[K, T]):
    """Things that take turns, by key: start-time fair queueing (Demers, Keshav and
    Shenker, 1989; Goyal, Vin and Cheng, 1996). Virtual time advances by 1/n per turn
    while n things wait; a newcomer starts at the current time, a served key one turn
    after its last start. So a newcomer waits at most for those that have had no more
    than their share, and however many newcomers come, nobody is kept out."""

    def __init__(self) -> None:
        self._things: dict[K, T] = {}
        self._places: dict[K, Place] = {}
        self._heap: list[Place] = []
        self._clock = 0.0
        self._number = 0

    def __len__(self) -> int:
        return len(self._things)

    def __iter__(self) -> Iterator[T]:
        return iter(self._things.values())

    def add(self, key: K, thing: T) -> T:
        """What waits under ``key``: ``thing``, unless something does already."""
        if key not in self._things:
            self._things[key] = thing
            self._push(key, self._clock, returning=False)
        return self._things[key]

    def find(self, key: K) -> T | None:
        """What waits under ``key``."""
        return self._things.get(key)

    def discard(self, key: K) -> None:
        """Forget ``key`` and that it had turns."""
        self._things.pop(key, None)
        self._places.pop(key, None)

    def head(self) -> T:
        """Whose turn it is; only while something waits."""
        while self._places.get(self._heap[0].key) is not self._heap[0]:
            heapq.heappop(self._heap)
        return self._things[self._heap[0].key]

    def in_order(self) -> Iterator[T]:
        """What waits, as it would be next."""
        for place in sorted(self._places.values()):
            yield self._things[place.key]

    def end(self, key: K, *, interleaved: bool) -> None:
        """Charge ``key`` one turn; with ``interleaved``, do not advance virtual time,
        because nobody had to wait."""
        start = self._places[key].start
        if not interleaved or len(self._things) == 1:
            self._clock = max(self._clock, start) + 1 / len(self._things)
        self._push(key, start + 1, returning=True)

    def copy(self, copy_of: Callable[[T], T]) -> Turns[K, T]:
        """The same turns over copies of the things."""
        twin: Turns[K, T] = Turns()
        twin._things = {key: copy_of(thing) for key, thing in self._things.items()}
        twin._places = dict(self._places)
        twin._heap = list(self._heap)
        twin._clock, twin._number = self._clock, self._number
        return twin

    def _push(self, key: K, start: float, *, returning: bool) -> None:
        self._number += 1
        self._places[key] = Place(start, returning, self._number, key)
        heapq.heappush(self._heap, self._places[key])
        if len(self._heap) > 2 * len(self._places) + 8:
            # Compact: most entries are stale, and a long queue would carry them on.
            self._heap = sorted(self._places.values())


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

    def __init__(self, callers: Turns[str, Turns[Job, Pictures]] | None = None) -> None:
        self._callers = callers if callers is not None else Turns()

    def add(self, job: Job) -> None:
        """Queue every picture of ``job``."""
        self._callers.add(job.caller, Turns()).add(job, Pictures(job))

    def __bool__(self) -> bool:
        return bool(self._callers)

    def head(self) -> Job:
        """The job whose turn it is; only while something waits."""
        return self._callers.head().head().job

    def in_turn(self) -> Iterator[Job]:
        """The jobs of which a picture waits, in the order of turns of today."""
        for jobs in list(self._callers.in_order()):
            for pictures in list(jobs.in_order()):
                yield pictures.job

    def take(self, job: Job, *, interleaved: bool = False) -> PictureTask:
        """Remove the next picture of ``job`` and charge its turn; ``interleaved`` where
        it runs beside the others and nobody has to wait for it."""
        jobs = self._callers.find(job.caller)
        pictures = jobs.find(job) if jobs is not None else None
        assert jobs is not None and pictures is not None
        index = pictures.first
        pictures.first += 1
        self._callers.end(job.caller, interleaved=interleaved)
        jobs.end(job, interleaved=interleaved)
        if not pictures.left:
            self.drop(job)
        return PictureTask(job, index, job.request)

    def drop(self, job: Job) -> None:
        """Forget the pictures of ``job``."""
        jobs = self._callers.find(job.caller)
        if jobs is not None:
            jobs.discard(job)
            if not jobs:
                self._callers.discard(job.caller)

    def pictures(self) -> Iterator[Pictures]:
        """What waits, job by job."""
        for jobs in self._callers:
            yield from jobs

    def jobs(self) -> Iterator[Job]:
        """The jobs of which no picture has started, in the order in which they will."""
        waiting = {p.job for p in self.pictures() if p.job.state == "queued"}
        ahead = FairQueue(self._callers.copy(lambda jobs: jobs.copy(Pictures.copy)))
        while waiting:
            job = ahead.head()
            ahead.take(job)
            if job in waiting:
                waiting.discard(job)
                yield job
