"""Who is next: callers take turns, so do the requests of each, one picture a turn."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

from flux_api.queue.jobs import Job
from flux_api.queue.tasks import ImageTask

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Turn(NamedTuple):
    """When ``key`` is next: at ``start`` in turns that a lone caller would have had by
    then, newcomers first among equals, then by ``number``."""

    start: float
    returning: bool
    number: int
    key: Any


class Turns(Generic[K, T]):
    """Things that take turns, by key: fair queueing (Demers, Keshav and Shenker, 1989).
    With n things waiting, each turn moves the clock on by 1/n; one that comes is next
    at the clock's time, one that had its turn a whole turn later. So a newcomer waits
    for those at most who have had no more turns than their share, and however many
    newcomers come, nobody is kept out."""

    def __init__(self) -> None:
        self._things: dict[K, T] = {}
        self._turns: dict[K, Turn] = {}
        self._heap: list[Turn] = []
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
        self._turns.pop(key, None)

    def head(self) -> T:
        """Whose turn it is; only while something waits."""
        while self._turns.get(self._heap[0].key) is not self._heap[0]:
            heapq.heappop(self._heap)
        return self._things[self._heap[0].key]

    def in_order(self) -> Iterator[T]:
        """What waits, as it would be next."""
        for turn in sorted(self._turns.values()):
            yield self._things[turn.key]

    def end(self, key: K, *, ahead: bool) -> None:
        """``key`` has had its turn; ``ahead`` of it where that took none of the others'
        time, so that the clock stands still where there are any."""
        start = self._turns[key].start
        if not ahead or len(self._things) == 1:
            self._clock = max(self._clock, start) + 1 / len(self._things)
        self._push(key, start + 1, returning=True)

    def copy(self, copy_of: Callable[[T], T]) -> Turns[K, T]:
        """The same turns over copies of the things."""
        twin: Turns[K, T] = Turns()
        twin._things = {key: copy_of(thing) for key, thing in self._things.items()}
        twin._turns = dict(self._turns)
        twin._heap = list(self._heap)
        twin._clock, twin._number = self._clock, self._number
        return twin

    def _push(self, key: K, start: float, *, returning: bool) -> None:
        self._number += 1
        self._turns[key] = Turn(start, returning, self._number, key)
        heapq.heappush(self._heap, self._turns[key])
        if len(self._heap) > 2 * len(self._turns) + 8:
            # Mostly turns of what was discarded.
            self._heap = sorted(self._turns.values())


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

    def take(self, job: Job, *, ahead: bool = False) -> ImageTask:
        """Remove the next picture of ``job``, which has its turn now, or ``ahead`` of
        it."""
        jobs = self._callers.find(job.caller)
        pictures = jobs.find(job) if jobs is not None else None
        assert jobs is not None and pictures is not None
        index = pictures.first
        pictures.first += 1
        self._callers.end(job.caller, ahead=ahead)
        jobs.end(job, ahead=ahead)
        if not pictures.left:
            self.drop(job)
        return ImageTask(job, index, job.request)

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
