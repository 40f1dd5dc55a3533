"""What the headers of every answer tell of its job."""

from __future__ import annotations

from flask import Response, g

from flux_api.core import ImageResult
from flux_api.http.clients import tell_of_job
from tests.queue.test_results import a_job
from tests.support.fuzz_requests import ready_client


def headers_of(job):
    """The headers of an answer to the client of ``job``."""
    with ready_client().application.test_request_context("/process"):
        g.job = job
        return tell_of_job(Response()).headers


def test_a_picture_that_was_begun_again_says_how_often():
    """So it was where a process died over it."""
    for attempts, told in ((1, None), (2, "2"), (3, "3")):
        job = a_job()
        job.finish_image(0, ImageResult(None, 1, attempts=attempts))
        assert headers_of(job).get("X-Flux-Attempts") == told


def test_while_it_runs_no_seconds_are_told():
    """A stream's headers go out before its times are known."""
    job = a_job()
    assert not [name for name, _ in headers_of(job) if "Seconds" in name]
    job.finish_image(0, ImageResult(None, 1))
    told = headers_of(job)
    assert told["X-Flux-Queue-Seconds"] == f"{job.queue_seconds:.3f}"
    assert told["X-Flux-Performance"] == "exact"
