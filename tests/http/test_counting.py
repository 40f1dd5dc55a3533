"""By which word a request is counted: whose fault it was, and whether a picture was
begun."""

from __future__ import annotations

import pytest
from flask import Response, g

from flux_api.core import ImageResult
from flux_api.errors import PipelineFailed
from flux_api.http import counting, request_log
from flux_api.http.counting import outcome_of
from flux_api.metrics.instruments import REGISTRY
from flux_api.queue.jobs import Job
from tests.queue.test_results import a_job
from tests.support.fuzz_requests import ready_client


@pytest.mark.parametrize(
    ("status", "fresh", "started"),
    [
        (200, "done", "done"),
        (304, "done", "done"),
        (400, "refused", "refused"),
        (429, "refused", "refused"),
        (499, "cancelled", "cancelled"),
        (408, "timeout", "timeout"),
        (504, "timeout", "timeout"),
        (500, "failed", "failed"),
        # Out of room before a picture was begun, nothing is lost.
        (503, "refused", "failed"),
        (507, "refused", "failed"),
    ],
)
def test_a_status_is_a_word(status, fresh, started):
    assert outcome_of(status, started=False) == fresh
    assert outcome_of(status, started=True) == started


def waited_for():
    """A job whose client waits for it."""
    return Job(a_job().request, id="is-waited-for", caller="me", is_wanted=lambda: True)


def counted():
    """How many requests for tiny's pictures have ended, by how."""
    found = {}
    for outcome in ("done", "cancelled", "refused", "failed"):
        labels = {"route": "/process", "mode": "generate", "model": "tiny"}
        value = REGISTRY.get_sample_value(
            "flux_requests_total", labels | {"outcome": outcome}
        )
        found[outcome] = value or 0
    return found


def follow(job, *, method="POST", streamed=True, status=200):
    """By which words an answer of ``status`` to the client of ``job`` is counted: at
    once, and when it has been closed."""
    before = counted()

    def more():
        return [name for name, count in counted().items() if count > before[name]]

    app = ready_client().application
    with app.test_request_context("/process", method=method):
        request_log.begin()
        g.job = job
        response = Response(iter([b"x"]) if streamed else b"x", status)
        counting.follow(response)
        at_once = more()
        response.close()
    return at_once, more()


def test_a_stream_is_counted_when_it_is_over_by_how_its_job_is():
    # This client has left, and the job goes on for another.
    assert follow(waited_for()) == ([], ["cancelled"])
    done, failed = waited_for(), waited_for()
    done.finish_image(0, ImageResult(None, 1))
    failed.fail(PipelineFailed("It failed."))
    assert follow(done) == ([], ["done"])
    assert follow(failed) == ([], ["failed"])


def test_all_else_is_counted_once_by_its_status():
    assert follow(waited_for(), streamed=False) == (["done"], ["done"])
    assert follow(waited_for(), streamed=False, status=400) == (
        ["refused"],
        ["refused"],
    )
    # What only looks makes no pictures, and what goes on is counted at its end.
    assert follow(waited_for(), method="OPTIONS") == ([], [])
    later = waited_for()
    later.outlive_clients()
    assert follow(later) == ([], [])
    # Unless it does not go on after all.
    assert follow(later, streamed=False, status=503) == (["refused"], ["refused"])


def test_what_asks_for_no_picture_is_not_counted():
    def all_counted():
        return REGISTRY.get_sample_value("flux_request_latency_seconds_count")

    client, before = ready_client(), all_counted()
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    plan = {"prompt": "a cat", "dry_run": True}
    for path, body in (
        ("/mcp", ping),
        ("/sdapi/v1/interrupt", {}),
        ("/process", plan),
    ):
        assert client.post(path, json=body).status_code == 200
    assert all_counted() == before
    # A refusal of one is.
    assert client.post("/process", json={}).status_code == 400
    assert all_counted() == before + 1
