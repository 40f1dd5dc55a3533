"""Things that take turns: start-time fair queueing, for callers and for their jobs."""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Callable, Hashable, Iterator
from operator import attrgetter
from typing import Generic, NamedTuple, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

# A turn in virtual time. Integers keep sums exact, however long the server runs; this
# one is divisible by every number up to 16, so that usual shares of it are exact too.
TURN = 720720

_start = attrgetter("start")

Moment = tuple[int, int, int]
"""When a turn comes: its virtual time; ties go to who ``had`` fewer turns, then to the
lower number. The same for a turn to come as for one that is due, so that moments stay
true while turns are taken in their order."""


class Place(NamedTuple, Generic[T]):
    """The next turn of ``thing``: its virtual start time, how many turns it had, and
    its number among those that came."""

    start: int
    had: int
    # Never the same twice, so that comparing ends here: things have no order.
    number: int
    thing: T

    def moment(self, later: int) -> Moment:
        """When its turn comes that is ``later`` turns after the next."""
        return self.start + later * TURN, self.had + later, self.number


class Turns(Generic[K, T]):
    """Things that take turns, by key: start-time fair queueing (Demers, Keshav and
    Shenker, 1989; Goyal, Vin and Cheng, 1996). Virtual time advances by 1/n per turn
    while n things wait; a newcomer starts at the current time, a served key one turn
    after its last start. So a newcomer waits at most for those that have had no more
    than their share, and however many newcomers come, nobody is kept out."""

    def __init__(self) -> None:
        self._places: dict[K, Place[T]] = {}
        # The same, as they are next. A list: to move a thousand is nothing beside
        # looking at each of them.
        self._order: list[Place[T]] = []
        self._clock = 0
        self._number = 0

    def __len__(self) -> int:
        return len(self._places)

    def add(self, key: K, thing: T) -> T:
        """What waits under ``key``: ``thing``, unless something does already."""
        if key not in self._places:
            self._number += 1
            self._put(key, Place(self._clock, 0, self._number, thing))
        return self._places[key].thing

    def place(self, key: K) -> Place[T]:
        """The place of ``key``, which waits."""
        return self._places[key]

    def is_newest(self, key: K) -> bool:
        """Whether nothing came after ``key``."""
        return self._places[key].number == self._number

    def discard(self, key: K) -> None:
        """Forget ``key`` and that it had turns."""
        place = self._places.pop(key, None)
        if place is not None:
            del self._order[bisect_left(self._order, place)]

    def head(self) -> T:
        """Whose turn it is; only while something waits."""
        return self._order[0].thing

    def in_order(self) -> Iterator[T]:
        """What waits, as it would be next."""
        return (place.thing for place in self._order)

    def end(self, key: K, *, interleaved: bool) -> None:
        """Charge ``key`` one turn; with ``interleaved``, do not advance virtual time,
        because nobody had to wait."""
        place = self._places[key]
        # One that is alone had every turn: were time to stand still, a newcomer would
        # be owed as many.
        if not interleaved or len(self._places) == 1:
            # What is next may be ahead of the clock, where those in between left or it
            # was interleaved; and behind it, where it waited for long.
            due = self._order[0].start
            self._clock = max(self._clock, due) + TURN // len(self._places)
        self.discard(key)
        later = place.start + TURN, place.had + 1, place.number
        self._put(key, Place(*later, place.thing))

    def turns(self, count_of: Callable[[T], int]) -> Iterator[T]:
        """Whose turn it will be, if each takes ``count_of`` turns and nobody new
        comes."""
        left = {place.number: count_of(place.thing) for place in self._order}
        heap = list(self._order)  # in order, so a heap already
        while heap:
            place = heap[0]
            yield place.thing
            left[place.number] -= 1
            if left[place.number]:
                heapq.heapreplace(heap, Place(*place.moment(1), place.thing))
            else:
                heapq.heappop(heap)

    def turns_before(self, key: K, count_of: Callable[[T], int]) -> int:
        """How many turns come before the first of ``key``, the newest, if each takes
        ``count_of`` and nobody new comes."""
        own = self._places[key]
        # Within a turn's time nobody has a second one.
        behind = bisect_left(self._order, own.start - TURN, key=_start)
        before = bisect_left(self._order, own)
        turns = before - behind
        for place in self._order[:behind]:
            rounds = -(-(own.start - place.start) // TURN)  # rounded up
            turns += min(count_of(place.thing), rounds)
        return turns

    def _put(self, key: K, place: Place[T]) -> None:
        self._places[key] = place
        insort(self._order, place)
