"""Who is next: callers take turns, so do the requests of each, one picture a turn."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, NamedTuple, TypeVar

from flux_api.queue.jobs import Job
from flux_api.queue.tasks import PictureTask

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

# A turn in virtual time. Integers keep sums exact, however long the server runs; this
# one is divisible by every number up to 16, so that usual shares of it are exact too.
TURN = 720720


class Place(NamedTuple, Generic[T]):
    """Virtual start time of ``thing``; ties go to newcomers, then to the lower
    ``number``."""

    start: int
    returning: bool
    # Never the same twice, so that comparing ends here: things have no order.
    number: int
    thing: T

    def turns(self, count: int) -> Iterator[tuple[int, int, Place[T]]]:
        """Its next ``count`` turns, to be compared with those of others."""
        return ((self.start + n * TURN, n, self) for n in range(count))


class Turns(Generic[K, T]):
    """Things that take turns, by key: start-time fair queueing (Demers, Keshav and
    Shenker, 1989; Goyal, Vin and Cheng, 1996). Virtual time advances by 1/n per turn
    while n things wait; a newcomer starts at the current time, a served key one turn
    after its last start. So a newcomer waits at most for those that have had no more
    than their share, and however many newcomers come, nobody is kept out."""

    def __init__(self) -> None:
        # No heap: at most FLUX_MAX_QUEUE (1000) wait, and a picture takes far longer
        # than to look at each of them.
        self._places: dict[K, Place[T]] = {}
        self._clock = 0
        self._number = 0

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[T]:
        return (place.thing for place in self._places.values())

    def add(self, key: K, thing: T) -> T:
        """What waits under ``key``: ``thing``, unless something does already."""
        if key not in self._places:
            self._put(key, thing, self._clock, returning=False)
        return self._places[key].thing

    def find(self, key: K) -> T | None:
        """What waits under ``key``."""
        place = self._places.get(key)
        return place.thing if place is not None else None

    def discard(self, key: K) -> None:
        """Forget ``key`` and that it had turns."""
        self._places.pop(key, None)

    def head(self) -> T:
        """Whose turn it is; only while something waits."""
        return min(self._places.values()).thing

    def in_order(self) -> Iterator[T]:
        """What waits, as it would be next."""
        return (place.thing for place in sorted(self._places.values()))

    def end(self, key: K, *, interleaved: bool) -> None:
        """Charge ``key`` one turn; with ``interleaved``, do not advance virtual time,
        because nobody had to wait."""
        place = self._places[key]
        # One that is alone had every turn: were time to stand still, a newcomer would
        # be owed as many.
        if not interleaved or len(self._places) == 1:
            # Its start may be ahead of the clock, where those in between left or it was
            # interleaved; and behind it, where it waited for long.
            self._clock = max(self._clock, place.start) + TURN // len(self._places)
        self._put(key, place.thing, place.start + TURN, returning=True)

    def turns(self, count_of: Callable[[T], int]) -> Iterator[T]:
        """Whose turn it will be, if each takes ``count_of`` turns and nobody new comes.
        Of equal starts, the one with fewer turns before it is first: it has its place
        already when the other's is given."""
        places = self._places.values()
        turns = (place.turns(count_of(place.thing)) for place in places)
        return (place.thing for _, _, place in heapq.merge(*turns))

    def _put(self, key: K, thing: T, start: int, *, returning: bool) -> None:
        self._number += 1
        self._places[key] = Place(start, returning, self._number, thing)


class Pictures:
    """Those of ``job`` that wait, from number ``first`` on."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.first = 0

    @property
    def left(self) -> int:
        """How many wait."""
        return self.job.request.num_images_per_prompt - self.first


class FairQueue:
    """The pictures that wait, by caller and job. Not thread-safe: the manager's lock
    guards it."""

    def __init__(self) -> None:
        self._callers: Turns[str, Turns[Job, Pictures]] = Turns()

    def add(self, job: Job) -> None:
        """Queue every picture of ``job``."""
        self._callers.add(job.caller, Turns()).add(job, Pictures(job))

    def __bool__(self) -> bool:
        return bool(self._callers)

    def head(self) -> Job:
        """The job whose turn it is; only while something waits."""
        return self._callers.head().head().job

    def in_turn(self) -> Iterator[Job]:
        """The jobs of which a picture waits, caller by caller, in the order of their
        next turns."""
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
        # What a caller's turns go to does not depend on when they come.
        own = {jobs: jobs.turns(lambda p: p.left) for jobs in self._callers}
        for caller in self._callers.turns(lambda jobs: sum(p.left for p in jobs)):
            job = next(own[caller]).job
            if job in waiting:
                waiting.remove(job)
                yield job
            if not waiting:
                return
