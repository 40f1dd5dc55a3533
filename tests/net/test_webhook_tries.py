"""A webhook that nobody takes is tried again, later and later."""

from __future__ import annotations

import time

from flux_api.net import webhooks
from flux_api.net.fetch import Refused
from flux_api.net.webhooks import Webhooks
from tests.support.servers import wait_for


def test_the_pause_doubles_up_to_the_longest(tmp_path, monkeypatch):
    monkeypatch.setattr(webhooks, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(webhooks, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(webhooks, "_LONGEST_PAUSE", 0.05)
    seen, began = [], time.monotonic()

    class Nowhere:
        """A fetcher that would go nowhere, and notes how long is waited after it."""

        def checked_addresses(self, url, deadline):
            now = time.monotonic()
            seen.extend((pause, due - pause, now) for due, pause in told._due.values())
            raise Refused("nowhere")

    told = Webhooks(Nowhere(), ("example.org",), tmp_path)
    told.promise("http://example.org/", None, "lost").keep("done")
    told.start()
    wait_for(lambda: len(seen) >= 5, 20)
    assert [pause for pause, _, _ in seen[:5]] == [0.01, 0.02, 0.04, 0.05, 0.05]
    # Each begins with its try.
    assert all(began <= begin <= now for _, begin, now in seen)
