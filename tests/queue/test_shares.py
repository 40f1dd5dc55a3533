"""Places that all share, of which one caller may hold only some."""

from __future__ import annotations

import threading

import pytest

from flux_api.errors import Cancelled, QueueFull, Unavailable
from flux_api.queue.shares import Shares


def always():
    return True


def test_one_caller_leaves_places_for_others():
    shares = Shares(2, 1, seconds=0.1, purpose="are decoded")
    with shares.hold("greedy", always):
        refused = pytest.raises(QueueFull, match="of your pictures are decoded")
        with refused as caught, shares.hold("greedy", always):
            pass
        assert caught.value.code == "concurrency_limit_exceeded"
        with shares.hold("other", always):
            refused = pytest.raises(Unavailable, match="Too many pictures are decoded")
            with refused, shares.hold("third", always):
                pass
    with shares.hold("greedy", always), shares.hold("third", always):
        pass


def test_who_waits_gets_the_place_that_becomes_free():
    shares = Shares(1, 1, seconds=10, purpose="are decoded")
    inside = threading.Event()

    def hold():
        with shares.hold("later", always):
            inside.set()

    with shares.hold("first", always):
        thread = threading.Thread(target=hold)
        thread.start()
        assert not inside.wait(0.2)
    assert inside.wait(10)
    thread.join(10)


def test_who_is_no_longer_wanted_does_not_wait():
    shares = Shares(1, 1, seconds=60, purpose="are decoded")
    refused = pytest.raises(Cancelled)
    with shares.hold("first", always), refused, shares.hold("left", lambda: False):
        pass
