"""Whether requests are taken at the moment, and if not, why."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal, Protocol

from flux_api.errors import Unavailable

logger = logging.getLogger(__name__)

State = Literal["loading", "ready", "failed", "draining"]

# By state, never by the wording of a reason, which may come from a library: it tells a
# client that waiting helps. Other states have the error's own code.
_CODES: dict[State, str | None] = {"loading": "model_loading"}


class Handover(Protocol):
    """Where a new worker and the old one meet, when one takes over from the other."""

    waits: bool
    """Whether the old one goes on until this one is ready."""
    placement: str
    """How the last worker that loaded holds its weights."""
    broken_loads: int
    """How many workers, one after the other, lost the device while they loaded."""

    @property
    def beside(self) -> bool:
        """Whether an older worker is still there."""

    @property
    def older(self) -> tuple[int, ...]:
        """The process ids of the older workers."""

    @property
    def failed_update(self) -> str:
        """Why the last new worker did not take over from this one; empty where none
        failed."""

    def say_ready(self) -> None:
        """This worker takes requests from now on: the older ones are to end."""

    def make_room(self, seconds: float) -> bool:
        """Have the older workers end now; whether they have within ``seconds``."""


class Readiness:
    """Loading from the start on, until :meth:`set_ready`, and during an outage; at the
    end it drains."""

    def __init__(self) -> None:
        # One tuple, so that a reader without a lock never sees half a change.
        self._now: tuple[State, str | None] = ("loading", "starting")
        self._find_outage: Callable[[], str | None] = lambda: None
        # Apart from the rest, so that a late success of loading does not undo it.
        self._draining = False

    @property
    def state(self) -> State:
        """The one word for it."""
        return self._seen[0]

    @property
    def reason(self) -> str | None:
        """Why no request is taken, None when they are."""
        return self._seen[1]

    def report(self, progress: str) -> None:
        """Still loading: what is going on."""
        self._set("loading", progress)

    def fail(self, reason: str) -> None:
        """Loading or the device failed."""
        self._set("failed", reason)

    def set_ready(self, find_outage: Callable[[], str | None]) -> None:
        """Requests are taken from now on, but for times when ``find_outage`` says why
        not."""
        logger.info("ready")
        self._find_outage = find_outage
        self._now = "ready", None

    def drain(self) -> None:
        """No request is taken any more, whatever comes. Safe in a signal's handler."""
        # No lock and no log line: the signal may have come while this thread held one.
        self._draining = True

    def check(self) -> None:
        """Unavailable, with the reason, when no request is taken."""
        state, reason = self._seen
        if reason is not None:
            message = f"Not ready: {reason}."
            raise Unavailable(message, retry_after=5, code=_CODES.get(state))

    @property
    def _seen(self) -> tuple[State, str | None]:
        if self._draining:
            return "draining", "shutting down"
        now = self._now
        if now[1] is None and (outage := self._find_outage()) is not None:
            return "loading", outage
        return now

    def _set(self, state: State, reason: str) -> None:
        if self._now != (state, reason):
            logger.info("%s", reason)
        self._now = state, reason
