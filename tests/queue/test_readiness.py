"""What a client is told while no request is taken."""

from __future__ import annotations

import pytest

from flux_api.errors import Unavailable
from flux_api.queue.readiness import Readiness

REASONS = [
    "memory: mine is not known beforehand; taking none",
    "memory: 12 of 24 GiB are loaded",
    "loading failed: no such file",
    "downloading is shutting down",
    "draining a ready pool that failed",
]


def refusal(readiness):
    """The state, and the error of a request that comes now."""
    with pytest.raises(Unavailable) as refused:
        readiness.check()
    assert refused.value.message == f"Not ready: {readiness.reason}."
    assert refused.value.status == 503
    assert 1 <= refused.value.retry_after <= 60
    return readiness.state, refused.value.code


def test_it_is_loading_from_the_start_on():
    assert refusal(Readiness()) == ("loading", "model_loading")


@pytest.mark.parametrize("reason", REASONS)
def test_the_state_decides_the_code_whatever_the_reason_says(reason):
    readiness = Readiness()
    readiness.report(reason)
    assert readiness.reason == reason
    assert refusal(readiness) == ("loading", "model_loading")
    readiness.fail(reason)
    assert readiness.reason == reason
    assert refusal(readiness) == ("failed", "server_is_overloaded")
    readiness.report(reason)  # the next try
    assert refusal(readiness) == ("loading", "model_loading")


def test_ready_takes_requests_until_something_fails():
    readiness = Readiness()
    readiness.set_ready(lambda: None)
    readiness.check()
    assert (readiness.state, readiness.reason) == ("ready", None)
    readiness.fail("the device failed")
    assert refusal(readiness) == ("failed", "server_is_overloaded")


def test_an_outage_lasts_as_long_as_it_is_told_of():
    readiness, outages = Readiness(), [None, "nobody there", "nobody there", None]
    readiness.set_ready(lambda: outages[0])
    states = []
    while outages:
        states.append((readiness.state, readiness.reason))
        del outages[0]
    lost = ("loading", "nobody there")
    assert states == [("ready", None), lost, lost, ("ready", None)]
    outages = ["nobody there"]
    assert refusal(readiness) == ("loading", "model_loading")
    readiness.fail("the device failed")
    assert readiness.reason == "the device failed"


@pytest.mark.parametrize("when", ["loading", "failed", "ready"])
def test_draining_is_the_end_whatever_comes(when):
    readiness = Readiness()
    go = {
        "loading": lambda: readiness.report("half of it"),
        "failed": lambda: readiness.fail("broken"),
        "ready": lambda: readiness.set_ready(lambda: "nobody there"),
    }
    go[when]()
    readiness.drain()
    for later in go.values():
        later()
        assert readiness.reason == "shutting down"
        assert refusal(readiness) == ("draining", "server_is_overloaded")
