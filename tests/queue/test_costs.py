"""What a request costs in the manager, in lines of Python that run: that does not grow
with those that wait."""

from __future__ import annotations

import sys
import threading

import pytest

from flux_api.errors import QueueFull
from tests.queue.small_requests import request
from tests.queue.test_manager import start
from tests.support.servers import wait_for
from tests.support.submitting import submit


def lines_of(work):
    """How many lines of flux_api run in this thread during ``work()``."""
    count = 0

    def on_line(frame, event, _):
        nonlocal count
        count += event == "line"
        return on_line

    def on_call(frame, event, argument):
        ours = "flux_api" in frame.f_code.co_filename
        return on_line(frame, event, argument) if ours else None

    before = sys.gettrace()
    sys.settrace(on_call)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.fixture
def busy():
    """Makes a manager that takes 1001 requests and makes one picture without end."""
    gate = threading.Event()

    def make(**settings):
        settings = {"max_queue": 1001, **settings}
        manager = start(lambda _: gate.wait(), **settings)
        submit(manager, request(10, steps=10), caller="runs")
        wait_for(lambda: manager.running == 1, 10)
        return manager

    yield make
    gate.set()


def filled(manager, caller_of, count=1):
    """``manager`` with 999 jobs more that wait."""
    for number in range(999):
        submit(manager, request(count), caller=caller_of(number))


@pytest.mark.parametrize("count", [1, 10])
@pytest.mark.parametrize("caller_of", [str, lambda _: "one"], ids=["many", "one"])
def test_a_submit_with_a_thousand_waiting_is_as_cheap_as_with_one(
    busy, caller_of, count
):
    manager = busy(max_per_caller=1100)

    def come(caller):
        submit(manager, request(), caller=caller)

    first = lines_of(lambda: come(caller_of(-1)))
    filled(manager, caller_of, count)
    assert lines_of(lambda: come(caller_of(1000))) <= 1.5 * first


def test_so_is_a_cancellation(busy):
    manager = busy()
    jobs = [submit(manager, request(), caller=str(-n)) for n in range(1, 4)]
    first = lines_of(lambda: manager.cancel(jobs[1]))
    filled(manager, str)
    assert lines_of(lambda: manager.cancel(jobs[2])) <= 1.5 * first


def test_so_is_a_refusal(busy):
    def refused(manager):
        with pytest.raises(QueueFull):
            submit(manager, request(), caller="one too many")

    short, long = busy(max_queue=1), busy(max_queue=1000)
    submit(short, request(), caller="waits")
    filled(long, str)
    submit(long, request(), caller="waits")
    first = lines_of(lambda: refused(short))
    assert lines_of(lambda: refused(long)) <= 1.5 * first
