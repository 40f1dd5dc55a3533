"""The official Python SDK when things go wrong: classes, retries, leaving."""

from __future__ import annotations

import asyncio

import openai
import pytest

from tests.support.coroutines import run_coroutine
from tests.support.sdk import BOTH, SMALL, call, stream
from tests.support.servers import free_port, run_api, wait_for
from tests.support.wire import begin, stats

ERRORS = [
    ("fail=pipeline", openai.InternalServerError, 500, 1),
    ("fail=unexpected", openai.InternalServerError, 500, 1),
    ("fail=busy", openai.InternalServerError, 503, 3),
    ("fail=deadline", openai.InternalServerError, 504, 1),
    ("fail=memory", openai.InternalServerError, 507, 1),
]


def tries(server):
    """The retry counts that the SDK has put into its requests."""
    arrived = [headers for _, headers in stats(server)["arrived"]]
    return [int(headers["X_STAINLESS_RETRY_COUNT"]) for headers in arrived]


@BOTH
@pytest.mark.parametrize(("words", "error", "status", "runs"), ERRORS)
def test_failures_run_as_often_as_it_helps(fake, kind, words, error, status, runs):
    with pytest.raises(error) as caught:
        call(
            kind,
            fake,
            lambda client: client.images.generate(prompt=f"x {words}", **SMALL),
            max_retries=2,
        )
    assert caught.value.status_code == status
    assert tries(fake) == list(range(runs))
    assert stats(fake)["begun"] == runs


@BOTH
def test_a_passing_shortage_is_overcome(fake, kind):
    answer = call(
        kind,
        fake,
        lambda client: client.images.generate(prompt="x fail=busy times=1", **SMALL),
        max_retries=2,
    )
    assert answer.data[0].b64_json
    assert tries(fake) == [0, 1]


@BOTH
def test_bad_requests_are_sent_once(fake, kind):
    with pytest.raises(openai.BadRequestError) as caught:
        call(
            kind,
            fake,
            lambda client: client.images.generate(prompt="x", size="63x64"),
            max_retries=2,
        )
    error = caught.value
    assert (error.param, error.code) == ("size", "invalid_value")
    assert error.type == "invalid_request_error"
    assert "multiples of 16" in str(error)
    assert error.request_id.startswith("req_")
    assert tries(fake) == [0]


@BOTH
@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"loras": ["no-such-lora"]}, "loras"),
        ({"loras": [{"name": "ink", "adapter_weight": 0.8}]}, "loras"),
        ({"extra_body": {"seed": 7}}, "extra_body"),
        ({"seed": {"low": 1}}, "seed"),
    ],
    ids=str,
)
def test_what_the_sdk_makes_of_lists_and_objects_in_forms_is_read(
    fake, png, kind, extra, param
):
    """As ``loras[]``, ``loras[][name]`` and ``extra_body[seed]``."""
    with pytest.raises(openai.BadRequestError) as caught:
        call(
            kind,
            fake,
            lambda c: c.images.edit(image=png, prompt="x", extra_body=extra),
        )
    assert caught.value.param == param


def test_a_wrong_base_url_is_told_in_words_that_the_sdk_shows(fake):
    client = openai.OpenAI(api_key="none", base_url=f"{fake.url}/api/v1")
    with client, pytest.raises(openai.NotFoundError, match="GET / lists") as caught:
        client.images.generate(prompt="x")
    assert caught.value.code == "not_found"


def test_other_statuses_have_their_classes(fake):
    def raw(path, **options):
        return call("sync", fake, lambda c: c.post(path, cast_to=object, **options))

    with pytest.raises(openai.NotFoundError):
        raw("/nope", body={})
    with pytest.raises(openai.APIStatusError, match="does not take that method"):
        raw("/models", body={})
    headers = {"Content-Type": "text/plain"}
    with pytest.raises(
        openai.APIStatusError, match="Send a form, or JSON with the header"
    ):
        raw("/images/generations", content=b"x", options={"headers": headers})
    held = begin(fake, {"prompt": "x hold", "job_id": "sdk-job-1"})
    wait_for(lambda: stats(fake)["running"] == 1, 10)
    with pytest.raises(openai.ConflictError, match="job id is in use"):
        raw("/images/generations", body={"prompt": "x", "job_id": "sdk-job-1"})
    held.close()


def test_a_key_of_another_request_is_unprocessable(fake):
    headers = {"Idempotency-Key": "of-the-sdk-test"}
    for size in ("64x64", "80x80"):
        try:
            call(
                "sync",
                fake,
                lambda c, s=size: c.images.generate(
                    prompt="x", size=s, extra_headers=headers
                ),
            )
        except openai.UnprocessableEntityError as error:
            assert (size, error.code) == ("80x80", "idempotency_key_reused")
            return
    raise AssertionError("the second request was taken")


def test_too_large_an_upload_is_413(fake):
    with pytest.raises(openai.APIStatusError) as caught:
        call(
            "sync",
            fake,
            lambda c: c.images.edit(image=b"x" * (65 << 20), prompt="x"),
        )
    assert caught.value.status_code == 413
    assert "larger than 64 MiB" in caught.value.message


@BOTH
def test_errors_in_a_stream_are_raised(fake, kind):
    with pytest.raises(openai.APIError, match="too large for the memory") as caught:
        stream(kind, fake, "generate", prompt="x fail=memory at=2", **SMALL)
    assert caught.value.code == "insufficient_storage"
    assert caught.value.type == "server_error"
    with pytest.raises(openai.BadRequestError, match="integer above maximum"):
        stream(kind, fake, "generate", prompt="x", n=11, **SMALL)


@BOTH
def test_nobody_there_is_a_connection_error(kind):
    url = f"http://127.0.0.1:{free_port()}/v1"
    with pytest.raises(openai.APIConnectionError):
        call(kind, url, lambda client: client.images.generate(prompt="x"))


# -- leaving ---------------------------------------------------------------------


@BOTH
def test_a_timeout_stops_the_run_before_the_retry_runs(fake, kind):
    with pytest.raises(openai.APITimeoutError):
        call(
            kind,
            fake,
            lambda client: client.images.generate(prompt="x hold", **SMALL),
            timeout=0.6,
            max_retries=1,
        )
    wait_for(lambda: stats(fake)["running"] == 0, 10)
    assert tries(fake) == [0, 1]
    assert (stats(fake)["begun"], stats(fake)["finished"]) == (2, 0)


def test_closing_a_stream_stops_its_run(fake):
    with openai.OpenAI(api_key="none", base_url=f"{fake.url}/v1") as client:
        events = client.images.generate(
            prompt="x pause=0.1", stream=True, partial_images=1, **SMALL
        )
        with events:
            assert next(events).partial_image_index == 0
        wait_for(lambda: stats(fake)["running"] == 0, 10)
    assert stats(fake)["finished"] == 0


def test_cancelling_a_task_stops_its_run(fake):
    async def run():
        async with openai.AsyncOpenAI(api_key="x", base_url=f"{fake.url}/v1") as client:
            task = asyncio.create_task(client.images.generate(prompt="x hold", **SMALL))
            await asyncio.to_thread(wait_for, lambda: stats(fake)["running"] == 1, 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run_coroutine(run())
    wait_for(lambda: stats(fake)["running"] == 0, 10)
    assert stats(fake)["finished"] == 0


def test_the_sdk_reads_answers_behind_a_key(keyed_fake):
    for kind in (openai.OpenAI, openai.AzureOpenAI):
        with connect(kind, keyed_fake, "wrong-key") as client:
            with pytest.raises(openai.AuthenticationError) as caught:
                client.images.generate(prompt="x", **SMALL)
            assert caught.value.code == "invalid_api_key"
        with connect(kind, keyed_fake, KEY) as client:
            assert client.images.generate(prompt="x", **SMALL).data[0].b64_json


KEY = "sk-of-the-sdk-test"


def connect(kind, server, key):
    """A client of that class with that key."""
    if kind is openai.AzureOpenAI:
        options = {"azure_endpoint": server.url, "api_version": "2025-04-01"}
    else:
        options = {"base_url": f"{server.url}/v1"}
    return kind(api_key=key, max_retries=0, **options)


@pytest.fixture(scope="module")
def keyed_fake():
    """The fake server behind a key."""
    with run_api(
        app="tests.support.fake_app:app", FLUX_API_KEYS=f"sdk:{KEY}"
    ) as server:
        yield server.wait_ready()


def test_a_full_queue_is_a_rate_limit_error(full_queue):
    with pytest.raises(openai.RateLimitError) as caught:
        call("sync", full_queue, lambda c: c.images.generate(prompt="x", **SMALL))
    assert caught.value.code == "rate_limit_exceeded"
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 60
