"""Refusals and failures of the OpenAI routes: status, fields, headers, reason."""

from __future__ import annotations

import time

import pytest
import requests

from flux_api.errors import FluxError, InvalidRequest
from flux_api.http.reason_phrases import BY_CODE, reason_of
from flux_api.settings import Settings
from tests.support.servers import run_api, wait_for
from tests.support.wire import NUMBERS, begin, generate, post, stats
from tests.test_troubleshooting import codes, kinds

GENERATIONS = "/v1/images/generations"

REFUSED = [
    ({"prompt": None}, "prompt", "missing_required_parameter"),
    ({"prompt": "  "}, "prompt", "missing_required_parameter"),
    ({"prompt": 5}, "prompt", "invalid_type"),
    ({"prompt": "x" * 32_001}, "prompt", "string_above_max_length"),
    ({"n": 0}, "n", "integer_below_min_value"),
    ({"n": 11}, "n", "integer_above_max_value"),
    ({"n": "two"}, "n", "invalid_type"),
    ({"n": True}, "n", "invalid_type"),
    ({"n": [1, 2]}, "n", "invalid_type"),
    ({"size": "65x64"}, "size", "invalid_value"),
    ({"size": "huge"}, "size", "invalid_value"),
    ({"size": "4096x4096"}, "size", "invalid_value"),
    ({"quality": "best"}, "quality", "invalid_value"),
    ({"background": "transparent"}, "background", "invalid_value"),
    ({"background": "green"}, "background", "invalid_value"),
    ({"output_format": "gif"}, "output_format", "invalid_value"),
    ({"output_format": "svg"}, "output_format", "invalid_value"),
    ({"output_compression": 101}, "output_compression", "integer_above_max_value"),
    ({"output_compression": 50}, "output_compression", "invalid_value"),
    ({"response_format": "png"}, "response_format", "invalid_value"),
    ({"moderation": "high"}, "moderation", "invalid_value"),
    ({"style": "bold"}, "style", "invalid_value"),
    ({"input_fidelity": "most"}, "input_fidelity", "invalid_value"),
    ({"stream": "maybe"}, "stream", "invalid_type"),
    ({"stream": True, "response_format": "url"}, "response_format", "invalid_value"),
    ({"partial_images": 4}, "partial_images", "integer_above_max_value"),
    ({"complexity": "low"}, "complexity", "unsupported_parameter"),
    ({"frame_count": 3}, "frame_count", "unsupported_parameter"),
    ({"frame_duration_ms": 100}, "frame_duration_ms", "unsupported_parameter"),
    ({"svg": {"model": "x"}}, "svg", "unsupported_parameter"),
    ({"markup": "data:,"}, "markup", "unsupported_parameter"),
    ({"seed": 2**64}, "seed", "integer_above_max_value"),
    ({"steps": 0}, "steps", "integer_below_min_value"),
    ({"num_inference_steps": 201}, "num_inference_steps", "integer_above_max_value"),
    ({"guidance_scale": "much"}, "guidance_scale", "invalid_value"),
    ({"strength": 0.5}, "strength", "invalid_value"),
    ({"user": 5}, "user", "invalid_type"),
]


@pytest.mark.parametrize(
    ("values", "param", "code"), REFUSED, ids=[str(r[0])[:40] for r in REFUSED]
)
def test_what_cannot_be_honoured_is_a_400_that_names_it(fake, values, param, code):
    answer = generate(fake, **values)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert set(answer.json()) == {"error"}
    assert set(error) - NUMBERS == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert (error["param"], error["code"]) == (param, code)
    assert param in error["message"] or code == "invalid_value"
    assert param in answer.reason
    assert answer.headers["X-Request-Id"].startswith("req_")
    assert "Retry-After" not in answer.headers
    assert stats(fake)["begun"] == 0


@pytest.mark.parametrize(
    ("path", "values", "reason"),
    [
        (GENERATIONS, {"size": "1920x1080"}, "Invalid size, try 1920x1088"),
        (GENERATIONS, {"size": "1:1"}, "Invalid size"),
        (GENERATIONS, {"n": 11}, "Invalid n, at most 10"),
        (GENERATIONS, {"steps": 0}, "Invalid steps, at least 1"),
        ("/process", {"n": 2}, "Unsupported n"),
        ("/process", {"height": 1080}, "Invalid height, try 512x1088"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_who_sees_only_the_status_line_reads_what_would_do(fake, path, values, reason):
    answer = post(fake, path, json={"prompt": "a duck"} | values)
    assert (answer.status_code, answer.reason) == (400, reason)


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        ({"steps": 0}, {"minimum": 1, "given": 0}),
        ({"n": 11}, {"maximum": 10, "given": 11}),
        ({"guidance_scale": 101}, {"minimum": 0, "maximum": 100, "given": 101}),
        ({"prompt": "x" * 32_001}, {"maximum": 32_000, "given": 32_001}),
        (
            {"size": "65x64"},
            {"minimum": 64, "maximum": 2048, "multiple": 16, "given": "65x64"},
        ),
        ({"n": "two"}, {}),
    ],
    ids=lambda value: str(value)[:40],
)
def test_the_numbers_of_a_message_stand_beside_it(fake, values, numbers):
    error = generate(fake, **values).json()["error"]
    told = error.keys() - {"message", "type", "param", "code"}
    assert {name: error[name] for name in told} == numbers


@pytest.mark.parametrize(
    ("word", "status", "type_", "code", "retried"),
    [
        ("unexpected", 500, "server_error", "generation_failed", False),
        ("pipeline", 500, "server_error", "generation_failed", False),
        ("busy", 503, "service_unavailable_error", "server_is_overloaded", True),
        ("deadline", 504, "server_error", "timeout", False),
        ("memory", 507, "server_error", "insufficient_storage", False),
    ],
)
def test_failures_of_the_run_say_whether_to_try_again(
    fake, word, status, type_, code, retried
):
    answer = generate(fake, prompt=f"a duck fail={word}")
    assert answer.status_code == status
    error = answer.json()["error"]
    assert (error["type"], error["code"], error["param"]) == (type_, code, None)
    assert answer.headers.get("X-Should-Retry") == (None if retried else "false")
    assert ("Retry-After" in answer.headers) == retried
    assert "secret" not in answer.text
    assert answer.reason == BY_CODE[code]


def test_every_code_says_something_in_the_status_line():
    for code, status in codes().items():
        error = InvalidRequest("a message", param="seed", code=code)
        error.status = int(status)
        assert code in BY_CODE or "seed" in reason_of(error), code


def test_every_error_has_a_reason_phrase_of_plain_ascii():
    for kind in kinds(FluxError):
        phrase = reason_of(kind("a message", param="seed"))
        assert phrase.isascii() and 5 < len(phrase) < 60, kind
        hostile = reason_of(kind("a message", param="x\r\nSet-Cookie: y"))
        assert "Cookie" not in hostile


def test_bodies_that_are_no_request(fake):
    url = f"{fake.url}/v1/images/generations"
    for data, kind, status in (
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'{"n": NaN}', "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"prompt", "text/plain", 415),
        (b"--x--", "multipart/form-data; boundary=x", 400),
        (b"", "multipart/form-data", 400),
    ):
        answer = requests.post(
            url, data=data, headers={"Content-Type": kind}, timeout=10
        )
        assert answer.status_code == status, (data[:20], answer.text)
        assert answer.json()["error"]["type"] == "invalid_request_error"


def test_too_large_a_body_is_read_and_then_refused():
    with run_api(app="tests.support.fake_app:app", FLUX_MAX_UPLOAD_MB=1) as server:
        server.wait_ready()
        for path in ("/v1/images/edits", "/images/edits", "/process"):
            answer = post(server, path, files={"image": ("a.png", b"x" * (8 << 20))})
            assert answer.status_code == 413
            assert answer.reason == "The upload is too large"
        many = {f"image[{i}]": (None, "7") for i in range(1100)}
        answer = post(server, "/v1/images/edits", files=many)
        assert answer.status_code == 413
        assert "1000 parts" in answer.json()["error"]["message"]
        few = {f"image[{i}]": (None, str(i)) for i in range(10)} | {
            "prompt": (None, "x")
        }
        answer = post(server, "/v1/images/edits", files=few)
        assert answer.status_code == 400
        assert "as a file" in answer.json()["error"]["message"]


def test_full_queue_is_429_with_retry_after(full_queue):
    answer = generate(full_queue)
    assert answer.status_code == 429
    error = answer.json()["error"]
    assert error["type"] == "rate_limit_error"
    assert error["code"] == "rate_limit_exceeded"
    assert answer.reason == "The queue is full, try again later"
    wait = int(answer.headers["Retry-After"])
    assert 1 <= wait <= 60 and error["message"].endswith(f"try again in {wait} s.")
    streamed = generate(full_queue, stream=True)
    assert streamed.status_code == 429
    assert streamed.headers["Content-Type"] == "application/json"


def test_plain_requests_end_in_time():
    with run_api(app="tests.support.fake_app:app", FLUX_REQUEST_TIMEOUT=1) as server:
        server.wait_ready()
        began = time.monotonic()
        answer = generate(server, prompt="a duck hold")
        other = post(server, "/process", data={"prompt": "pause=0.1", "steps": "200"})
        for late in (answer, other):
            assert late.status_code == 504
            assert late.headers["X-Should-Retry"] == "false"
        assert time.monotonic() - began < 9
        assert Settings().request_timeout < 300
        wait_for(lambda: stats(server)["running"] == 0, 10)
        # A stream shows life all the time: it may take longer.
        answer = generate(server, prompt="a duck pause=0.15", stream=True)
        assert "event: image_generation.completed" in answer.text


def test_a_client_that_leaves_stops_its_run(fake):
    connection = begin(fake, {"prompt": "a duck hold"})
    wait_for(lambda: stats(fake)["running"] == 1, 10)
    connection.close()
    wait_for(lambda: stats(fake)["running"] == 0, 10)
    assert stats(fake)["finished"] == 0
