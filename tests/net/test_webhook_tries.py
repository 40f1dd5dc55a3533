"""A webhook that nobody takes is tried again, later and later; what is none goes."""

from __future__ import annotations

import json
import resource
import threading
import time
from ipaddress import ip_network

import pytest

from flux_api.errors import WebhookRefused
from flux_api.net import webhooks
from flux_api.net.fetch import Fetcher, FetchPolicy, Refused
from flux_api.net.webhooks import Webhooks
from tests.net.test_delivery import read_body
from tests.support.servers import wait_for
from tests.support.trap_server import answer, trap

LOCAL = Fetcher(FetchPolicy(1, allowed_networks=(ip_network("127.0.0.0/8"),)))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Pauses that a test can wait for."""
    monkeypatch.setattr(webhooks, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(webhooks, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(webhooks, "_LONGEST_PAUSE", 0.05)


def test_the_pause_doubles_up_to_the_longest(tmp_path):
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


def test_only_a_success_takes_it(tmp_path):
    statuses = ["500 Oh", "404 Gone", "302 Found", "300 Several", "299 Odd"]
    left = list(statuses)

    def handle(seen, conn):
        return answer(b"", left.pop(0), Location="/other")

    with trap(read_body(handle)) as seen:
        told = Webhooks(LOCAL, ("127.0.0.1",), tmp_path)
        told.promise(seen.url("/hook"), None, "lost").keep("done")
        told.start()
        wait_for(lambda: not list(tmp_path.iterdir()), 20)
        asked = [head.split(" HTTP")[0] for head in seen.requests]
    # Nor is a redirect followed.
    assert asked == ["POST /hook"] * len(statuses)


def test_one_whose_file_somebody_removed_meanwhile_is_no_fault(tmp_path):
    def handle(seen, conn):
        [file] = tmp_path.iterdir()
        file.unlink()
        return answer(b"")

    with trap(read_body(handle)) as seen:
        told = Webhooks(LOCAL, ("127.0.0.1",), tmp_path)
        told.promise(seen.url("/hook"), None, "lost").keep("done")
        told.start()
        # Its thread ends; one that ended by an exception would fail this test.
        wait_for(lambda: seen.requests and not +told._running, 20)


def test_what_is_no_webhook_goes_and_keeps_no_other_waiting(tmp_path):
    texts = ["", "{", "[]", "7", "{}", '{"url": "x"}', "[" * 100_000]
    whole = {"url": "http://x/", "secret": None, "body": "x", "until": 9e9}
    wrong = {"url": 5, "secret": 5, "body": None, "until": "later"}
    texts += [json.dumps(whole | {name: value}) for name, value in wrong.items()]
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.json").write_text(text)
    with trap(read_body(answer(b""))) as seen:
        told = Webhooks(LOCAL, ("127.0.0.1",), tmp_path)
        told.promise(seen.url("/hook"), None, "lost").keep("done")
        told.start()
        wait_for(lambda: not list(tmp_path.iterdir()), 20)
        assert len(seen.requests) == 1


def test_a_receiver_that_never_answers_leaves_a_place_to_others(tmp_path):
    ended = threading.Event()

    def hang(seen, conn):
        ended.wait(30)
        return answer(b"")

    with trap(read_body(hang)) as silent, trap(read_body(answer(b""))) as other:
        told = Webhooks(LOCAL, ("127.0.0.1",), tmp_path)
        for _ in range(8):
            told.promise(silent.url("/hook"), None, "lost").keep("done")
        told.promise(other.url("/hook"), None, "lost").keep("done")
        told.start()
        wait_for(lambda: other.requests, 20)
        ended.set()
        wait_for(lambda: not list(tmp_path.iterdir()), 20)
    assert len(silent.requests) == 8


def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path):
    told = Webhooks(LOCAL, ("127.0.0.1",), tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
        with pytest.raises(WebhookRefused, match="cannot keep webhooks"):
            told.promise("http://127.0.0.1/hook", None, "lost")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_where_no_thread_is_to_be_had_it_is_tried_again(tmp_path, monkeypatch):
    # More often than there are places for one receiver, or at all.
    lacking = ["webhooks", *["webhook"] * 6]
    start = threading.Thread.start

    def start_later(thread):
        if thread.name in lacking:
            lacking.remove(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_later)
    with trap(read_body(answer(b""))) as seen:
        told = Webhooks(LOCAL, ("127.0.0.1",), tmp_path)
        told.promise(seen.url("/hook"), None, "lost").keep("done")
        with pytest.raises(RuntimeError, match="new thread"):
            told.start()
        told.start()
        wait_for(lambda: not list(tmp_path.iterdir()), 20)
        assert len(seen.requests) == 1
    assert lacking == []
