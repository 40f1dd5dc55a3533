"""``traceparent``: logged here, and passed on to whom we ask."""

from __future__ import annotations

import json

import pytest
import requests

from tests.support.pictures import make_png
from tests.support.servers import run_api, run_files, wait_for
from tests.support.trap_server import answer, trap

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
FAKE = "tests.support.fake_app:app"
FORM = {"prompt": "a cat", "num_inference_steps": 1, "width": 64, "height": 64}


def lines(server, message="request"):
    """The traces in the log of ``server``, None for a line without one."""
    found = [
        json.loads(line)
        for line in server.output.splitlines()
        if line.startswith("{") and json.loads(line)["message"] == message
    ]
    return [line.get("traceparent") for line in found]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    with run_files(tmp_path_factory.mktemp("traced")) as server:
        yield server


@pytest.fixture(scope="module")
def api(files):
    settings = {"FILE_SERVER": files.url, "FLUX_ALLOW_PRIVATE_URLS": 1}
    with run_api(app=FAKE, **settings) as server:
        yield server.wait_ready()


def test_it_is_logged_here_and_by_the_file_server(api, files):
    headers = {"traceparent": TRACE}
    assert requests.post(
        f"{api.url}/process", data=FORM, headers=headers, timeout=10
    ).ok
    wait_for(lambda: lines(api)[-1:] == [TRACE], 10, api)
    assert lines(files)[-1] == TRACE


def test_it_goes_with_a_job_that_nobody_waits_for(api, files):
    headers = {"traceparent": TRACE, "Prefer": "respond-async"}
    answer = requests.post(f"{api.url}/process", data=FORM, headers=headers, timeout=10)
    assert answer.status_code == 202
    wait_for(lambda: lines(api, "job ended") == [TRACE], 10, api)
    assert lines(files)[-1] == TRACE


def test_it_goes_along_to_the_host_of_a_picture(api):
    with trap(answer(make_png())) as seen:
        form = {"input_image_url": seen.url(), "num_inference_steps": 1}
        headers = {"traceparent": TRACE}
        assert requests.post(
            f"{api.url}/process", data=form, headers=headers, timeout=10
        ).ok
        assert seen.header("traceparent") == TRACE


WRONG = pytest.mark.parametrize(
    "wrong",
    [
        *("", "x", TRACE.upper(), TRACE + "-00", TRACE + "\tx", TRACE[:-1]),
        f"ff{TRACE[2:]}",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01",
    ],
)


@WRONG
def test_what_is_no_trace_is_neither_logged_nor_passed_on(api, wrong):
    with trap(answer(make_png())) as seen:
        form = {"input_image_url": seen.url(), "num_inference_steps": 1}
        before = len(lines(api))
        headers = {"traceparent": wrong}
        assert requests.post(
            f"{api.url}/process", data=form, headers=headers, timeout=10
        ).ok
        wait_for(lambda: len(lines(api)) > before, 10, api)
        assert lines(api)[-1] is None
        assert seen.header("traceparent") is None


@WRONG
def test_the_file_server_logs_none_of_them_either(files, wrong):
    before = len(lines(files))
    headers = {"traceparent": wrong}
    assert requests.get(f"{files.url}/healthz", headers=headers, timeout=10).ok
    wait_for(lambda: len(lines(files)) > before, 10, files)
    assert lines(files)[-1] is None
