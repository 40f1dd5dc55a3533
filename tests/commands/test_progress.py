"""How far several requests are, in one line: what their events add up to."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from flux_api.commands import progress
from flux_api.commands.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """The time, which passes when a test says so."""
    clock = SimpleNamespace(now=100.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(progress, "time", clock)
    return clock


def step(image, done, of):
    return {"type": "step", "image": image, "step": done, "steps": of}


def test_what_is_waited_for_is_said_until_a_step_is_taken():
    shown = Progress([1])
    seen = [shown.line]
    for event in (
        {"type": "waits", "why": "The queue is full."},
        {"type": "accepted"},
        {"type": "queued", "position": 2},
        {"type": "queued", "position": 0},
    ):
        shown.hear(0, event)
        seen.append(shown.line)
    assert seen == [
        "sending ...",
        "The queue is full. ...",
        "waiting ...",
        "waiting, 2 before it ...",
        "waiting ...",
    ]
    shown.hear(0, {"type": "failed"})
    assert shown.line == ""


def test_steps_of_all_pictures_are_counted_and_the_rest_of_the_time_told(clock):
    shown = Progress([2, 1])
    shown.hear(0, {"type": "accepted", "steps": 10})
    shown.hear(0, step(0, 2, 10))
    # The other has not been accepted: it counts like this one. No pace is known yet.
    assert shown.line == "[#-----------------------] 2/30 steps  0 of 2 requests"
    clock.now += 8
    shown.hear(1, step(0, 4, 10))
    # Four more in 8 s, and 24 are left.
    told = "[####--------------------] 6/30 steps  0 of 2 requests  48 s left"
    assert shown.line == told
    shown.hear(0, step(1, 3, 10))
    clock.now += 6
    told = "[#######-----------------] 9/30 steps  0 of 2 requests  42 s left"
    assert shown.line == told
    # One that ends takes no more steps, whatever became of it.
    shown.hear(0, {"type": "cancelled"})
    assert "24/30 steps  1 of 2 requests" in shown.line
    shown.hear(1, {"type": "done"})
    told = f"[{'#' * 24}] 30/30 steps  2 of 2 requests  0 s left"
    assert shown.line == told


def test_one_that_was_refused_has_no_steps_to_come(clock):
    shown = Progress([1, 3])
    shown.hear(0, step(0, 4, 4))
    shown.hear(1, {"type": "ended"})
    assert shown.line.startswith(f"[{'#' * 24}] 4/4 steps  1 of 2 requests")
    shown.hear(0, {"type": "done"})
    shown.hear(0, {"type": "ended"})
    assert shown.line.startswith(f"[{'#' * 24}] 4/4 steps  2 of 2 requests")


def test_of_one_request_it_is_not_said_how_many_have_ended(clock):
    shown = Progress([1])
    shown.hear(0, step(0, 1, 4))
    assert shown.line == "[######------------------] 1/4 steps"


def test_who_stops_is_told_how_not_to_wait(clock):
    shown = Progress([1, 1])
    shown.hear(1, step(0, 1, 4))
    shown.hear(0, {"type": "stopping"})
    assert shown.line == "stopping; Ctrl-C again does not wait"
