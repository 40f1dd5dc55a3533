"""A job: one request on its way, what happened to it so far, and how it ended."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from typing import Literal

from flux_api.core import (
    Completed,
    Event,
    Failed,
    ImageDone,
    ImageRequest,
    ImageResult,
    PartialImage,
    Performance,
    Queued,
    Started,
)
from flux_api.errors import Cancelled, FluxError
from flux_api.metrics.instruments import QUEUE_TIME

# For clients whose connection broke to come back and ask how it ended.
KEPT_SECONDS = 600.0

State = Literal["queued", "running", "done", "failed", "cancelled"]


class Job:
    """One request of n pictures. Events are appended by the manager's threads and read
    by any number of others; the first Completed or Failed ends it. ``caller`` is whose
    turns it takes, ``owner`` who alone may see it (None: everybody). ``is_wanted``
    says whether a client still waits for it (None: it is wanted in any case); it is
    asked before every step, by the thread that would compute it. ``request`` is None
    while its pictures are still being read."""

    def __init__(
        self,
        request: ImageRequest | None = None,
        *,
        id: str,
        caller: str,
        owner: str | None = None,
        is_wanted: Callable[[], bool] | None = None,
    ) -> None:
        self._request = request
        self.id = id
        self.caller = caller
        self.owner = owner
        self._clients = [is_wanted or _always]
        # The caller's own mark, for what is asked of other servers on its behalf.
        self.traceparent: str | None = None
        # The API that it came through, where that decides who may see it how.
        self.dialect: str | None = None
        self.kept_seconds = KEPT_SECONDS
        """How long its pictures are kept."""
        # For people; what is measured must not jump with the clock on the wall.
        self.created_at = time.time()
        self._created = time.monotonic()
        self._started: float | None = None
        self._ended: float | None = None
        self._events: list[tuple[int, Event]] = []
        self._posted = 0
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        # Apart: who waits for the end alone is not woken by every step.
        self._over = threading.Condition(lock)
        self._at_end: list[Callable[[Job], object]] = []
        self._results: dict[int, ImageResult] = {}
        self._performances: list[Performance] = []
        self._attempts = 1
        self._delivered = threading.Event()
        self.loss: FluxError | None = None
        """Why its pictures, which were made, became no files."""

    @property
    def request(self) -> ImageRequest:
        """What is to be made; only once it :attr:`is_complete`."""
        assert self._request is not None
        return self._request

    @property
    def is_complete(self) -> bool:
        """Whether its request has been read to the end."""
        return self._request is not None

    def complete(self, request: ImageRequest) -> None:
        """Its request has been read to the end: ``request`` is what is to be made."""
        self._request = request

    @property
    def outcome(self) -> Completed | Failed | None:
        """How it ended, None while it lives."""
        with self._changed:
            return self._outcome()

    @property
    def state(self) -> State:
        """The one word for where it is."""
        with self._changed:
            outcome = self._outcome()
            if outcome is None:
                return "queued" if self._started is None else "running"
        if isinstance(outcome, Completed):
            return "done"
        return "cancelled" if isinstance(outcome.error, Cancelled) else "failed"

    @property
    def ended_for(self) -> float | None:
        """Seconds since it ended, None while it lives."""
        return None if self._ended is None else time.monotonic() - self._ended

    @property
    def queue_seconds(self) -> float:
        """Seconds from submission to the first picture's start (so far)."""
        end = self._started or self._ended or time.monotonic()
        return end - self._created

    @property
    def run_seconds(self) -> float:
        """Seconds from the first picture's start to the end (so far), else 0."""
        if self._started is None:
            return 0.0
        return (self._ended or time.monotonic()) - self._started

    @property
    def performance(self) -> str:
        """How its pictures were made, in one word unless that changed on the way;
        empty until there is one."""
        return ", ".join(self._performances)

    @property
    def attempts(self) -> int:
        """How often its pictures were begun, as far as they are made: the most."""
        return self._attempts

    def post(self, event: Event) -> None:
        """Append ``event``; after the end nothing is appended any more."""
        with self._changed:
            if self._outcome() is not None:
                return
            if isinstance(event, Started):
                if self._started is not None:
                    return
                self._started = time.monotonic()
                QUEUE_TIME.observe(self._started - self._created)
            if isinstance(event, Queued) and not self._takes_position(event):
                return
            self._posted += 1
            self._events.append((self._posted, event))
            self._changed.notify_all()
            if isinstance(event, (Completed, Failed)):
                self._ended = time.monotonic()
                self._over.notify_all()
                for tell in self._at_end:
                    tell(self)

    def call_at_end(self, tell: Callable[[Job], object]) -> None:
        """Call ``tell`` with this job once it has ended: by the thread that ends it,
        which may hold locks, so it must not wait."""
        with self._changed:
            self._at_end.append(tell)

    def finish_image(self, index: int, result: ImageResult) -> None:
        """Keep picture ``index``; the last one completes the job."""
        with self._changed:
            if self._outcome() is not None:
                return
            self._results[index] = result
            if result.performance not in self._performances:
                self._performances.append(result.performance)
            self._attempts = max(self._attempts, result.attempts)
            if len(self._results) < self.request.num_images_per_prompt:
                self.post(ImageDone(index, result))
                return
            results = tuple(self._results[i] for i in sorted(self._results))
            self.post(Completed(results))

    def fail(self, error: FluxError) -> None:
        """End it with ``error``; running steps notice and stop."""
        forget_frames(error)
        self.post(Failed(error))

    def cancel(self) -> None:
        """End it because nobody wants it any more."""
        self.fail(Cancelled("The request was cancelled."))

    @property
    def is_wanted(self) -> bool:
        """Whether it lives and somebody waits for it."""
        with self._changed:
            clients = () if self._outcome() is not None else tuple(self._clients)
        return any(is_wanted() for is_wanted in clients)

    def join(self, is_wanted: Callable[[], bool]) -> bool:
        """Let one more client wait for it, unless it does already; whether it is still
        alive."""
        with self._changed:
            if is_wanted not in self._clients:
                self._clients.append(is_wanted)
            return self._outcome() is None

    def leave(self, is_wanted: Callable[[], bool]) -> bool:
        """Whether nobody waits for it, now that this client does not."""
        with self._changed:
            if is_wanted in self._clients:
                self._clients.remove(is_wanted)
            return not self._clients

    def cancel_unwanted(self) -> bool:
        """Whether it has ended, or ends here because nobody waits for it any more."""
        if self.is_wanted:
            return False
        with self._changed:
            # Asked once more: another client may just have joined.
            is_alive = self._outcome() is None
            if is_alive and any(is_wanted() for is_wanted in self._clients):
                return False
            self.cancel()
        return True

    def check(self) -> None:
        """Cancelled when it has ended, or ends here because nobody waits any more."""
        if self.cancel_unwanted():
            raise Cancelled("The request was cancelled.")

    @property
    def outlives_clients(self) -> bool:
        """Whether nobody has to wait for it: it goes on when its client is gone."""
        with self._changed:
            return _always in self._clients

    def outlive_clients(self) -> None:
        """Go on when every client is gone."""
        self.join(_always)

    def need_clients(self) -> None:
        """Let the last client that leaves take all with it, after all."""
        self.leave(_always)

    def wait(self, seconds: float | None) -> Completed | Failed | None:
        """How it ended, after at most ``seconds`` (None: however long it takes)."""
        with self._changed:
            self._over.wait_for(lambda: self._outcome() is not None, seconds)
            return self._outcome()

    def events(self, poll: float) -> Iterator[Event | None]:
        """Every event so far and to come, ending with the outcome; None whenever
        ``poll`` seconds pass without one."""
        seen = 0
        while True:
            seen, fresh = self.news(seen, poll)
            if not fresh:
                yield None
            yield from fresh
            if fresh and isinstance(fresh[-1], (Completed, Failed)):
                return

    def news(self, seen: int, seconds: float) -> tuple[int, list[Event]]:
        """How many events there were, and those after the first ``seen``, which are
        waited for at most ``seconds``."""
        with self._changed:
            self._changed.wait_for(lambda: self._posted != seen, seconds)
            return self._posted, [event for n, event in self._events if n > seen]

    def last(self, kind: type[Event]) -> Event | None:
        """The newest event of ``kind``."""
        with self._changed:
            found = (e for _, e in reversed(self._events) if isinstance(e, kind))
            return next(found, None)

    def note_loss(self, error: FluxError) -> None:
        """Its pictures were made, but ``error`` kept them from becoming files."""
        self.loss = error
        forget_frames(error)

    def note_delivery(self) -> None:
        """Its pictures are files now, and stored where they are to be."""
        self._delivered.set()

    def wait_delivery(self, seconds: float) -> bool:
        """Whether its pictures are files, after at most ``seconds``."""
        return self._delivered.wait(seconds)

    def release(self) -> None:
        """Let go of every picture and of the prompt; what remains is the story in
        short: the newest event of each kind."""
        outcome = self.outcome
        if isinstance(outcome, Failed):
            forget_frames(outcome.error)
        if self._request is not None:
            self._request = dataclasses.replace(
                self._request,
                images=(),
                image_files=(),
                mask_image=None,
                prompt="",
                negative_prompt=None,
            )
        with self._changed:
            self._results.clear()
            newest = {type(event): (n, event) for n, event in self._events}
            for kind in (PartialImage, ImageDone):
                newest.pop(kind, None)
            kept = sorted(newest.values(), key=lambda pair: pair[0])
            if kept and isinstance(kept[-1][1], Completed):
                kept[-1] = (kept[-1][0], Completed(()))
            self._events = kept
        self.note_delivery()

    def _takes_position(self, event: Queued) -> bool:
        """Whether ``event`` is news; the position before it, which is none any more,
        goes: in a long queue there are many."""
        if self._started is not None:
            return False
        if self._events and isinstance(self._events[-1][1], Queued):
            if self._events[-1][1] == event:
                return False
            self._events.pop()
        return True

    def _outcome(self) -> Completed | Failed | None:
        last = self._events[-1][1] if self._events else None
        return last if isinstance(last, (Completed, Failed)) else None


def _always() -> bool:
    return True


def forget_frames(error: BaseException) -> None:
    """Cut ``error`` off from where it was raised: the frames hold whole uploads, and a
    job that failed is kept for a while."""
    error.__traceback__ = error.__context__ = error.__cause__ = None
