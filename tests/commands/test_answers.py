"""What the commands make of a server's answers, and of what is no server."""

from __future__ import annotations

import json

import pytest

from flux_api.commands.api import Api
from flux_api.commands.connecting import connect
from flux_api.commands.transport import FAILED, NO_SERVER, REFUSED, Failure, Remote
from tests.support.trap_server import answer, redirect, trap


def refusal(status, **headers):
    """An error as the API words it."""
    body = json.dumps({"error": {"message": "No.", "code": "refused"}}).encode()
    return answer(body, f"{status} Reason", **headers)


def failure(call, *arguments):
    """What ``call`` raises."""
    with pytest.raises(Failure) as raised:
        call(*arguments)
    return raised.value


@pytest.mark.parametrize(
    ("status", "code"),
    [
        # The request or the key has to be another one.
        *((status, REFUSED) for status in (400, 401, 403, 404, 413, 415, 422)),
        # The same may succeed the next time.
        *((status, FAILED) for status in (408, 409, 410, 429, 499, 500, 507)),
        (503, NO_SERVER),
    ],
)
def test_the_exit_code_says_who_can_mend_it(status, code):
    with trap(refusal(status, Retry_After=7)) as seen:
        told = failure(Api(Remote(seen.url(""), None)).jobs)
    assert (told.exit_code, told.status, told.retry_after) == (code, status, 7.0)
    assert told.error["code"] == "refused"
    assert str(told).startswith("No.")
    assert ("--key" in str(told)) is (status == 401)


@pytest.mark.parametrize("wait", ["soon", "", "-1"])
def test_a_time_that_is_none_is_not_waited(wait):
    with trap(refusal(429, Retry_After=wait)) as seen:
        assert failure(Api(Remote(seen.url(""), None)).jobs).retry_after is None


@pytest.mark.parametrize(
    "reply",
    [
        answer(b"<html>It works!</html>"),
        answer(b"<html>Not here</html>", "404 Not Found"),
        answer(b'{"error": "no object"}', "400 Bad"),
        answer(b'["no", "object"]', "400 Bad"),
        answer(b'{"error": {}}', "400 Bad"),
        # JSON, but nothing that this API says of itself.
        answer(b'{"status": "ok"}'),
        # The key would go there, too.
        redirect("/elsewhere"),
    ],
)
def test_another_program_at_that_address_is_no_server(reply):
    with trap(reply) as seen:
        told = failure(Api(Remote(seen.url(""), None)).capabilities)
        assert seen.connections == 1
    assert told.exit_code == NO_SERVER
    assert "what runs there?" in str(told)


def test_what_headers_tell_of_a_picture_is_read_as_what_it_is():
    headers = {
        "Content_Type": "image/webp",
        "X_Flux_Seed": 7,
        "X_Flux_Run_Seconds": 0.5,
        "X_Flux_Revision": "0123abcd",
        "X_Flux_Url": "",
        # By name, whatever it looks like.
        **{"X_Flux_Model": "7", "X_Flux_Warning": "true"},
    }
    with trap(answer(b"picture", **headers)) as seen:
        made = Api(Remote(seen.url(""), None)).result("a b/c", 2)
        assert seen.requests[0].startswith(
            "GET /v1/jobs/a%20b%2Fc/result?index=2 HTTP/1.1"
        )
    assert made == (
        b"picture",
        {
            **{"format": "webp", "seed": 7, "run_seconds": 0.5},
            **{"revision": "0123abcd", "url": None, "model": "7", "warning": "true"},
        },
    )


@pytest.mark.parametrize(
    "url", ["ftp://x", "http://", "http://x:0", "http://x:99999", "http://[", "x:y"]
)
def test_what_is_no_address_is_refused(url):
    told = failure(Remote, url, None)
    assert told.exit_code == REFUSED
    assert str(told).startswith(repr(url))


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("http://{}", "/v1/jobs"),
        ("{}", "/v1/jobs"),
        ("http://{}/", "/v1/jobs"),
        # As clients of OpenAI's know it.
        ("http://{}/v1", "/v1/jobs"),
        ("http://{}/flux/v1/", "/flux/v1/jobs"),
    ],
)
def test_an_address_may_be_written_in_several_ways(written, path):
    with trap(answer(b'{"data": []}')) as seen:
        api = Api(Remote(written.format(f"127.0.0.1:{seen.port}"), "a-key"))
        assert api.jobs() == []
        assert seen.requests[0].startswith(f"GET {path} HTTP/1.1\r\n")
        assert seen.header("Authorization") == "Bearer a-key"


def test_an_address_needs_no_port():
    for url in ("https://flux.example", "flux.example/v1"):
        Remote(url, None)


def test_nobody_there_is_said_in_words_for_a_person():
    with trap() as seen:
        pass
    told = failure(Api(Remote(seen.url(""), None)).jobs)
    assert (told.exit_code, told.status) == (NO_SERVER, 0)
    start = f"no answer from http://127.0.0.1:{seen.port}: "
    assert str(told).startswith(start)
    assert "Connection refused" in str(told) and "object at" not in str(told)


def test_a_server_that_keeps_no_pictures_is_told_of_at_once():
    offer = {"limits": {"keeps_results": False}, "models": []}
    with trap(answer(json.dumps(offer).encode())) as seen:
        told = failure(connect, {}, seen.url(""), None, None)
    assert told.exit_code == NO_SERVER
    assert "FLUX_RESULTS_MB=0" in str(told)
