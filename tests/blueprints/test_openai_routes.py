"""Addresses of the OpenAI API: every prefix that clients use, and what each tells."""

from __future__ import annotations

import re
import time

import pytest
import requests

from tests.support.servers import wait_for
from tests.support.wire import begin, generate, post, stats


@pytest.mark.parametrize("prefix", ["/v1", "", "/openai/v1", "/openai/deployments/m/x"])
def test_images_are_served_under_every_prefix(fake, png, prefix):
    query = "?api-version=2025-04-01-preview"
    values = {"prompt": "a duck", "size": "64x64"}
    for path, body in (
        (f"{prefix}/images/generations{query}", {"json": values}),
        (f"{prefix}/images/edits{query}", {"data": values, "files": {"image": png}}),
    ):
        answer = post(fake, path, **body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["size"] == "64x64"


@pytest.mark.parametrize("prefix", ["/v1", "", "/openai", "/openai/v1"])
def test_models_are_listed_and_told(fake, prefix):
    base = f"{fake.url}{prefix}/models"
    listed = requests.get(base, params={"api-version": "1"}, timeout=5).json()
    assert listed["object"] == "list"
    for model in listed["data"]:
        assert set(model) >= {"id", "object", "created", "owned_by"}
        # Nobody knows when, and the SDKs want a time since 1970.
        assert (type(model["created"]), model["created"]) == (int, 0)
        told = requests.get(f"{base}/{model['id']}", timeout=5).json()
        assert ("known_words" in told) == (model["id"] == "tiny")
        assert model.items() <= told.items()
    # As POST takes the name: another app's default means this server's.
    told = requests.get(f"{base}/gpt-image-1", timeout=5).json()
    assert (told["id"], told["root"]) == ("gpt-image-1", "tiny")
    for name in ("a%20b", "a%3Fb"):
        answer = requests.get(f"{base}/{name}", timeout=5)
        assert answer.status_code == 404
        error = answer.json()["error"]
        assert (error["code"], error["param"]) == ("model_not_found", "model")
    answer = requests.delete(f"{base}/tiny", timeout=5)
    assert answer.status_code == 405
    assert answer.json()["error"]["code"] == "method_not_allowed"


def test_unknown_addresses_answer_openai_errors(fake):
    for path in ("/v1/nope", "/v1/chat/completions", "/images/nope", "/openai/nope"):
        answer = requests.get(fake.url + path, timeout=5)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "not_found"
        assert answer.headers["X-Request-Id"]


def test_health_under_every_name(fake):
    for path in ("/healthz", "/health", "/v1/health"):
        assert requests.get(fake.url + path, timeout=5).json() == {"status": "ok"}


def test_options_tells_the_methods(fake):
    answer = requests.options(f"{fake.url}/v1/images/generations", timeout=5)
    assert answer.status_code == 200
    assert set(answer.headers["Allow"].split(", ")) == {"OPTIONS", "POST"}
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_request_id_of_the_client_comes_back(fake):
    headers = {"X-Request-Id": "mine-1"}
    for path in ("/v1/models", "/v1/nope", "/healthz"):
        answer = requests.get(fake.url + path, headers=headers, timeout=5)
        assert answer.headers["X-Request-Id"] == "mine-1"
    headers = {"X-Request-Id": "not/good"}
    answer = requests.get(f"{fake.url}/v1/models", headers=headers, timeout=5)
    assert answer.headers["X-Request-Id"].startswith("req_")


def test_headers_of_an_answer_tell_of_its_job(fake):
    began = time.monotonic()
    answer = generate(fake, prompt="pause=0.1", steps=2, seed=5)
    spent = 1000 * (time.monotonic() - began)
    assert answer.headers["X-Flux-Seed"] == "5"
    assert answer.headers["X-Flux-Model"] == "tiny"
    assert 200 <= int(answer.headers["OpenAI-Processing-Ms"]) <= spent + 1
    # 128 random bits: where no keys are asked, whoever knows it may have the picture.
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Job-Id"])


def test_a_job_id_in_use_is_409_and_not_retried(fake):
    connection = begin(fake, {"prompt": "a duck hold", "job_id": "my-job-1"})
    wait_for(lambda: stats(fake)["running"] == 1, 10)
    answer = generate(fake, job_id="my-job-1")
    connection.close()
    assert answer.status_code == 409
    assert answer.json()["error"]["param"] == "job_id"
    assert answer.headers["X-Should-Retry"] == "false"
