"""Failures that nobody foresaw: told in the caller's dialect, and nothing of the
inside with it."""

from __future__ import annotations

import errno
import math
import os
import threading

import pytest
from flask import abort

from flux_api import create_app
from flux_api.queue.manager import PipelineManager
from flux_api.settings import Settings

WRONG = "Something went wrong in the server."


@pytest.fixture(scope="module")
def app():
    """The API with views that fail as the last part of their address says."""
    # Loading never ends, and nobody takes it for hung.
    manager = PipelineManager(threading.Event().wait, step_timeout=math.inf)
    app = create_app(Settings(), manager=manager)

    def fail(how):
        failures = {
            "bug": lambda: KeyError("/secret/path"),
            "memory": MemoryError,
            "disk": lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        }
        if how in failures:
            raise failures[how]()
        abort(int(how))

    for prefix in ("", "/v1", "/sdapi", "/mcp", "/v1/flux-"):
        app.add_url_rule(f"{prefix}/broken/<how>", prefix or "plain", fail)
    return app


@pytest.mark.parametrize(
    ("prefix", "read"),
    [
        ("", lambda told: told["error"]),
        ("/v1", lambda told: told["error"]["message"]),
        ("/sdapi", lambda told: told["errors"]),
        ("/v1/flux-", lambda told: told["message"]),
        ("/mcp", lambda told: told["error"]["message"]),
    ],
)
def test_a_bug_is_a_500_without_a_word_of_it(app, caplog, prefix, read):
    caplog.set_level("INFO", "flux_api")
    headers = {"X-Request-Id": "find-me-again"}
    answer = app.test_client().get(f"{prefix}/broken/bug", headers=headers)
    assert answer.status == "500 Something went wrong in the server"
    assert read(answer.json) == WRONG
    assert "secret" not in answer.text
    # Who runs the server finds all of it.
    [record] = [r for r in caplog.records if r.message == "a request failed"]
    assert record.fields == {"request_id": "find-me-again"}
    assert "/secret/path" in caplog.text


@pytest.mark.parametrize(
    ("how", "words"), [("memory", "short of resources"), ("disk", "disk is full")]
)
def test_a_shortage_is_worth_another_try(app, caplog, how, words):
    caplog.set_level("WARNING", "flux_api")
    answer = app.test_client().get(f"/v1/broken/{how}")
    error = answer.json["error"]
    assert (answer.status_code, error["code"]) == (503, "server_is_overloaded")
    assert words in error["message"]
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert "a request was refused" in caplog.text


def test_a_status_that_has_no_words_of_ours_has_its_own(app):
    answer = app.test_client().get("/v1/broken/418")
    assert answer.status == "418 I'm a Teapot"
    assert answer.json["error"]["message"] == "I'm a teapot."
