"""Instances behind nginx in simulated time: the server's own queue, and nginx's rules.

An hour of a thousand cards takes seconds. What is simulated is who waits for whom: one
picture after the other on each card, turns as ``flux_api.queue.fair_queue`` gives them,
places as ``FLUX_MAX_QUEUE`` has them, least_conn, a full instance's request handed on,
cards that die and load again. Forwards are not shared.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import simpy

from flux_api.commands.nginx import MOST_NEXT
from flux_api.core import ImageRequest
from flux_api.queue.fair_queue import FairQueue
from flux_api.queue.jobs import Job

Way = Generator[simpy.Event, Any, Any]
# More requests than there are: chosen only where nobody else is left.
_AWAY = 1_000_000


@dataclass(frozen=True)
class Pace:
    """Seconds that a picture takes on the card: its own, and for each step. Before that
    a request is read and handed over, which takes ``start`` where nobody is before
    it."""

    picture: float
    step: float
    start: float = 0.0


@dataclass(frozen=True)
class Ask:
    """A request: seconds after the one before it or, of a client that waits for its
    answers, after the last answer."""

    after: float
    caller: str
    steps: int
    pictures: int = 1


@dataclass(frozen=True)
class Outcome:
    """What came of a request for so many ``pictures``: "done", "full" or "lost"; how
    many seconds it waited for its first picture's start, and when it was over."""

    state: str
    pictures: int
    waited: float
    ended: float


@dataclass(frozen=True)
class Failures:
    """Each card dies after ``every`` seconds on the average, and has loaded again
    ``away`` seconds later."""

    every: float
    away: float


class _Card:
    """One instance: it makes one picture at a time."""

    def __init__(
        self, env: simpy.Environment, pace: Pace, most_waiting: int, number: int
    ) -> None:
        self.number, self._env, self._pace = number, env, pace
        self._most_waiting = most_waiting
        self.is_away = False
        self._start()
        self._process = env.process(self._run())

    def _start(self) -> None:
        self.queue = FairQueue()
        self.ends: dict[Job, simpy.Event] = {}
        self.starts: dict[Job, float] = {}
        self._left: dict[Job, int] = {}
        self._running: Job | None = None
        self._news = self._env.event()

    @property
    def takes(self) -> bool:
        """Whether it has a place for one more request."""
        at_work = self._running is not None and self._running in self.queue
        return not self.is_away and len(self.queue) - at_work < self._most_waiting

    def submit(self, job: Job) -> simpy.Event:
        """The end of ``job``, whose value says whether it got its pictures."""
        self.queue.add(job, 1)
        end = self.ends[job] = self._env.event()
        self._left[job] = job.request.num_images_per_prompt
        if not self._news.triggered:
            self._news.succeed()
        return end

    def _run(self) -> Way:
        with contextlib.suppress(simpy.Interrupt):
            while True:
                yield from self._make_next()

    def _make_next(self) -> Way:
        if not len(self.queue):
            self._news = self._env.event()
            yield self._news
        job = self.queue.head()
        self._running = job
        self.starts.setdefault(job, self._env.now)
        request = self.queue.take(job).job.request
        seconds = self._pace.step * request.num_inference_steps
        yield self._env.timeout(self._pace.picture + seconds)
        self._running = None
        self._left[job] -= 1
        if not self._left[job]:
            del self._left[job]
            self.ends.pop(job).succeed(True)

    def live(
        self, failures: Failures, chance: random.Random, tell: Callable[[_Card], None]
    ) -> Way:
        """Die again and again, and ``tell``; whatever was taken is lost."""
        while True:
            yield self._env.timeout(chance.expovariate(1 / failures.every))
            self._process.interrupt()
            self.is_away, ends = True, list(self.ends.values())
            self._start()
            for end in ends:
                end.succeed(False)
            tell(self)
            yield self._env.timeout(failures.away)
            self.is_away = False
            tell(self)
            self._process = self._env.process(self._run())


class Fleet:
    """``count`` cards behind one nginx; ``outcomes`` grows while it runs."""

    def __init__(
        self,
        count: int,
        pace: Pace,
        *,
        most_waiting: int = 32,
        failures: Failures | None = None,
        seed: int = 0,
    ) -> None:
        self._env = simpy.Environment()
        self._pace = pace
        self._numbers = itertools.count(1)
        self.outcomes: list[Outcome] = []
        self._cards = [_Card(self._env, pace, most_waiting, n) for n in range(count)]
        # What nginx chooses by: requests at each, and whose turn it is among equals.
        self._loads = np.zeros(count, int)
        self._weights = np.zeros(count, int)
        for card in self._cards if failures else ():
            assert failures is not None
            chance = random.Random(seed * 1_000_003 + card.number)
            self._env.process(card.live(failures, chance, self._note_presence))

    def open_load(self, asks: Iterable[Ask]) -> None:
        """Ask without waiting for answers."""

        def come() -> Way:
            for ask in asks:
                yield self._env.timeout(ask.after)
                self._env.process(self._serve(ask))

        self._env.process(come())

    def closed_load(self, clients: Iterable[Iterable[Ask]], seconds: float) -> None:
        """Each asks again when it has its answer, until so many ``seconds`` are
        over."""

        def go_on(asks: Iterable[Ask]) -> Way:
            for ask in itertools.takewhile(lambda _: self._env.now < seconds, asks):
                yield self._env.timeout(ask.after)
                yield from self._serve(ask)

        for asks in clients:
            self._env.process(go_on(asks))

    def run(self, seconds: float | None = None) -> None:
        """Let time pass: so much, or until everything is answered."""
        self._env.run(seconds)

    def _serve(self, ask: Ask) -> Way:
        job = Job(_request(ask), id=str(next(self._numbers)), caller=ask.caller)
        began, state, waited = self._env.now, "full", 0.0
        yield self._env.timeout(self._pace.start)
        card = self._choose()
        if card is not None:
            self._count(card, 1)
            end = card.submit(job)
            starts = card.starts
            state = "done" if (yield end) else "lost"
            waited = starts.pop(job, self._env.now) - began
            self._count(card, -1)
        ended = self._env.now
        self.outcomes.append(Outcome(state, ask.pictures, waited, ended))

    def _choose(self) -> _Card | None:
        """The one with the fewest requests; where it is full, of the others the one
        with the fewest and those behind it, as far as nginx asks; None where they are
        full, too."""
        first = self._choose_least()
        order = [self._cards[first]]
        if not order[0].takes and len(self._cards) > 1:
            others = self._loads.copy()
            others[first] = 2 * _AWAY
            second = int(others.argmin())
            ring = self._cards[second:] + self._cards[:second]
            order = [card for card in ring if card is not order[0]][:MOST_NEXT]
        return next((card for card in order if card.takes), None)

    def _choose_least(self) -> int:
        """nginx's least_conn: among equals its smooth round robin, in which one that
        had no equal is charged nothing. So who had the last request may have the
        next."""
        equal = np.flatnonzero(self._loads == self._loads.min())
        if len(equal) > 1:
            self._weights[equal] += 1
        chosen = equal[self._weights[equal].argmax()]
        if len(equal) > 1:
            self._weights[chosen] -= len(equal)
        return int(chosen)

    def _note_presence(self, card: _Card) -> None:
        """nginx knows who does not take requests."""
        self._loads[card.number] += _AWAY if card.is_away else -_AWAY

    def _count(self, card: _Card, more: int) -> None:
        self._loads[card.number] += more


def _request(ask: Ask) -> ImageRequest:
    return ImageRequest(
        mode="generate",
        model="simulated",
        prompt="",
        width=64,
        height=64,
        num_inference_steps=ask.steps,
        guidance_scale=None,
        num_images_per_prompt=ask.pictures,
        seed=0,
    )
