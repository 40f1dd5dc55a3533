"""How far several requests are, in one line."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from flux_api.commands.api import Json

_BAR = 24


@dataclass
class _Request:
    """What is known of one request."""

    pictures: int
    steps: int = 0
    done: dict[int, int] = field(default_factory=dict)
    """Steps by picture."""
    state: str = "sending"


class Progress:
    """What the events of requests add up to; ``pictures`` are to be made by each."""

    def __init__(self, pictures: list[int]) -> None:
        self._requests = [_Request(count) for count in pictures]
        self._began: tuple[float, int] | None = None
        self._stopping = False

    def hear(self, number: int, event: Json) -> None:
        """Take an event of request ``number``."""
        request = self._requests[number]
        match event["type"]:
            case "stopping":
                self._stopping = True
            case "waits":
                request.state = event["why"]
            case "accepted":
                request.steps = event.get("steps", request.steps)
                request.state = "waiting"
            case "queued":
                ahead = event["position"]
                request.state = f"waiting, {ahead} before it" if ahead else "waiting"
            case "step":
                request.steps = event["steps"]
                request.done[event["image"]] = event["step"]
                request.state = "running"
                # From the first step on: loading says nothing of the pace.
                self._began = self._began or (time.monotonic(), self._done)
            case "done" | "failed" | "cancelled":
                request.done = dict.fromkeys(range(request.pictures), request.steps)
                request.state = "ended"
            case "ended":
                # One that was refused has no steps to come.
                request.pictures, request.state = len(request.done), "ended"

    @property
    def line(self) -> str:
        """The state of all."""
        if self._stopping:
            return "stopping; Ctrl-C again does not wait"
        total = self._total
        if not self._done or not total:
            states = [r.state for r in self._requests if r.state != "ended"]
            return f"{states[0]} ..." if states else ""
        full = _BAR * self._done // total
        parts = [f"[{'#' * full}{'-' * (_BAR - full)}] {self._done}/{total} steps"]
        ended = sum(request.state == "ended" for request in self._requests)
        if len(self._requests) > 1:
            parts.append(f"{ended} of {len(self._requests)} requests")
        if (left := self._seconds_left) is not None:
            parts.append(f"{left:.0f} s left")
        return "  ".join(parts)

    @property
    def _done(self) -> int:
        return sum(sum(request.done.values()) for request in self._requests)

    @property
    def _total(self) -> int:
        """Requests that have not been accepted count like those that have."""
        # Most are alike: else the share would jump each time that one is accepted.
        known = max((request.steps for request in self._requests), default=0)
        return sum(r.pictures * (r.steps or known) for r in self._requests)

    @property
    def _seconds_left(self) -> float | None:
        """By the pace since the first step."""
        if self._began is None:
            return None
        when, done = self._began
        steps = self._done - done
        if steps <= 0:
            return None
        return (time.monotonic() - when) / steps * (self._total - self._done)
