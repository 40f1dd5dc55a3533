"""What becomes of a job that nobody waits for, once its pictures are made."""

from __future__ import annotations

import json
import threading

import pytest
from flask import g

from flux_api.blueprints.accepted import finish_later
from flux_api.core import ImageResult
from flux_api.errors import PipelineFailed, ResultExpired
from flux_api.http import request_log
from flux_api.metrics.instruments import REGISTRY
from tests.queue.test_results import a_job, picture
from tests.support.fuzz_requests import ready_client

ROUTE = "/process"


@pytest.fixture(autouse=True)
def log(caplog):
    """All that is logged, whatever another test of this process has left behind."""
    caplog.set_level("INFO", "flux_api")
    return caplog


def counted(outcome):
    """How many requests have ended so."""
    labels = {"route": ROUTE, "mode": "generate", "model": "tiny", "outcome": outcome}
    return REGISTRY.get_sample_value("flux_requests_total", labels) or 0


def run(job, finish, tell=lambda: None):
    """Let ``finish`` make files of what ``job`` made, and wait until that is over."""
    app = ready_client().application
    over = threading.Event()

    def told():
        try:
            tell()
        finally:
            over.set()

    with app.test_request_context(ROUTE, method="POST"):
        request_log.begin()
        g.job = job
        finish_later(app.extensions["flux_api"], job, finish, told)
        assert over.wait(10)
    return app.extensions["flux_api"].results


def made():
    """A job whose picture is made."""
    job = a_job()
    job.finish_image(0, ImageResult(None, 1))
    return job


def test_what_is_made_is_kept_and_counted():
    before, file = counted("done"), picture()
    job = made()
    results = run(job, lambda _: [file])
    assert results.find(job, 0) is file
    assert counted("done") == before + 1


@pytest.mark.parametrize(
    ("error", "told"),
    [
        # The caller is told why, as far as it may be.
        (PipelineFailed("It could not be signed."), PipelineFailed),
        (RuntimeError("a secret"), ResultExpired),
    ],
    ids=["foreseen", "unforeseen"],
)
def test_what_is_lost_on_its_way_is_counted_as_a_failure(log, error, told):
    before, done = counted("failed"), counted("done")

    def fail(_):
        raise error

    job = made()
    results = run(job, fail)
    with pytest.raises(told) as caught:
        results.find(job, 0)
    assert "secret" not in caught.value.message
    assert (counted("failed"), counted("done")) == (before + 1, done)
    assert f"the pictures of job {job.id} were lost" in log.text


def test_an_end_that_cannot_be_told_is_logged_and_changes_nothing(log):
    def tell():
        raise OSError("the webhook's file is gone")

    job = made()
    results = run(job, lambda _: [picture()], tell)
    assert results.find(job, 0)
    ended = [r for r in log.records if r.message == "job ended"]
    assert json.dumps(ended[-1].fields).count(job.id) == 1
    assert "traceparent" not in ended[-1].fields


@pytest.mark.parametrize("path", ["/process", "/v1/flux-dev"])
def test_where_no_thread_is_to_be_had_nothing_is_made(path, tmp_path, monkeypatch):
    start = threading.Thread.start

    def refuse(thread):
        if thread.name.startswith("flux-finish"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setenv("FLUX_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("FLUX_WEBHOOK_HOSTS", "127.0.0.1")
    monkeypatch.setenv("FLUX_ALLOW_PRIVATE_NETS", "127.0.0.0/8")
    client = ready_client.__wrapped__()  # One of its own, of these settings.
    body = {"prompt": "hold", "width": 64, "height": 64}
    if path != "/process":
        body["webhook_url"] = "http://127.0.0.1:9/hook"
    with client.post(path, json=body, headers={"Prefer": "respond-async"}) as answer:
        assert answer.status_code == 503
    manager = client.application.extensions["flux_api"].manager
    job = manager.find(answer.headers["X-Job-Id"])
    assert (job.state, job.request.prompt) == ("cancelled", "")
    # Nor does it tell anybody.
    assert list(tmp_path.rglob("*.json")) == []
