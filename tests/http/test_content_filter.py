"""FLUX_FILTER: what it refuses nobody gets, and what becomes of its failures."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openai
import pytest
import requests
from PIL import Image

from flux_api.net.content_filter import open_filter
from tests.net.test_delivery import read_body
from tests.support.servers import QUIET, ROOT, run_api, wait_for
from tests.support.trap_server import answer, trap

FAKE = "tests.support.fake_app:app"
FUNCTION = "tests.support.filters:review"
RED = 255  # the seed that fake_app makes a red of


class Endpoint(BaseHTTPRequestHandler):
    """Answers what the prompt says."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with Image.open(io.BytesIO(base64.b64decode(asked["image_base64"]))) as image:
            red = image.getpixel((0, 0))[0] == 255
        answer = {"allowed": not red, "reason": "too red\r\nfor\x1b us\n"}
        if "wordy" in asked["prompt"]:
            answer = {"allowed": False, "reason": "no " * 1000}
        data = json.dumps(answer).encode()
        wrong = "break" in asked["prompt"] or self.path != "/check/"
        status = 500 if wrong else 200
        if "odd" in asked["prompt"]:
            data = b'{"allowed": "yes"}'
        if "long" in asked["prompt"]:
            data = b" " * 100_000 + data
        if "stall" in asked["prompt"]:
            self.server.released.wait(30)
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def endpoint():
    """The address of an endpoint on this machine, which is a private one."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        server.released = threading.Event()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/check/"
        server.released.set()
        server.shutdown()


@pytest.fixture(scope="module", params=["function", "endpoint"])
def server(request, endpoint):
    """A server with each kind of filter."""
    where = FUNCTION if request.param == "function" else endpoint
    settings = {"FLUX_FILTER": where, "FLUX_FILTER_TIMEOUT": 1}
    with run_api(app=FAKE, **settings) as running:
        running.kind = request.param
        yield running.wait_ready()


def raw(server, **fields):
    return requests.post(f"{server.url}/process/raw", data=fields, timeout=60)


def test_what_is_refused_is_400_in_each_dialect(server):
    refused = raw(server, prompt="a cat", seed=RED)
    assert refused.status_code == 400
    reason = "too red" if server.kind == "function" else "too red for us"
    told = f"The content filter refused this picture: {reason}."
    assert refused.json()["error"] == told
    assert refused.headers["Content-Type"] == "application/json"
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0)
    with pytest.raises(openai.BadRequestError) as caught:
        # One of several is enough.
        client.images.generate(prompt="a cat", n=2, extra_body={"seed": RED - 1})
    assert caught.value.code == "content_filtered"
    body = {"prompt": "a cat", "width": 64, "height": 64, "seed": RED}
    url = f"{server.url}/sdapi/v1/txt2img"
    answer = requests.post(url, json=body, timeout=60)
    assert (answer.status_code, answer.json()["error"]) == (400, "content_filtered")
    params = {"name": "generate_image", "arguments": body}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    told = requests.post(f"{server.url}/mcp", json=call, timeout=60).json()["result"]
    assert told["isError"] and "too red" in told["content"][0]["text"]
    assert raw(server, prompt="a cat", seed=RED - 1).ok


def test_of_a_reason_without_end_the_beginning_is_told(server):
    refused = raw(server, prompt="wordy", seed=1)
    told = "The content filter refused this picture: " + ("no " * 1000)[:300] + "."
    assert (refused.status_code, refused.json()["error"]) == (400, told)


def test_no_preview_and_no_job_shows_it(server):
    headers = {"X-Job-Id": f"refused-{server.process.pid}", "Prefer": "respond-async"}
    data = {"prompt": "a cat", "seed": RED, "partial_images": 2, "steps": 4}
    url = f"{server.url}/v1/images/generations"
    answer = requests.post(url, json=data, headers=headers, timeout=60)
    job = f"{server.url}{answer.headers['Location']}"
    events = requests.get(f"{job}/events", timeout=60).text
    assert "event: failed" in events and "content_filtered" in events
    assert "partial_image" not in events
    result = requests.get(f"{job}/result", timeout=60)
    assert (result.status_code, result.json()["error"]["code"]) == (
        400,
        "content_filtered",
    )
    stream = requests.post(url, json=data | {"stream": True, "seed": 1}, timeout=60)
    assert "partial_image" not in stream.text
    assert "No previews" in stream.text


def test_the_hosted_api_calls_it_moderated(server):
    body = {"prompt": "a cat", "seed": RED}
    task = requests.post(f"{server.url}/v1/flux-dev", json=body, timeout=60).json()

    def told():
        return requests.get(task["polling_url"], timeout=60).json()

    wait_for(lambda: told()["status"] != "Pending", 30, server)
    assert told()["status"] == "Content Moderated"
    assert told()["details"]["code"] == "content_filtered"


@pytest.mark.parametrize("word", ["break", "odd", "stall", "long"])
def test_a_filter_that_fails_refuses(server, word):
    answer = raw(server, prompt=f"{word} secret words", seed=1)
    if (word, server.kind) == ("long", "function"):
        # Only an endpoint can say too much.
        assert answer.ok
        return
    assert answer.status_code == 503
    assert "content filter gave no answer" in answer.json()["error"]
    assert "secret words" not in server.output
    assert raw(server, prompt="a cat", seed=1).ok


def test_it_delivers_where_the_operator_wants_it(endpoint):
    settings = {"FLUX_FILTER": endpoint, "FLUX_FILTER_FAIL": "open"}
    with run_api(app=FAKE, **settings) as server:
        server.wait_ready()
        assert raw(server, prompt="break", seed=1).ok
        assert raw(server, prompt="a cat", seed=RED).status_code == 400
        assert "the content filter failed" in server.output


def test_a_filter_that_is_down_keeps_nobody_from_waking():
    settings = {"FLUX_FILTER": "http://127.0.0.1:9/", "FLUX_ADMIN_KEYS": "me:sk-op-key"}
    with run_api(app=FAKE, **settings) as server:
        server.wait_ready()
        headers = {"Authorization": "Bearer sk-op-key"}
        for order, asleep in (("sleep", True), ("wake", False)):
            url = f"{server.url}/admin/{order}"
            answer = requests.post(url, headers=headers, timeout=60)
            assert (answer.status_code, answer.json()["asleep"]) == (200, asleep)
        assert raw(server, prompt="a cat", seed=1).status_code == 503


@pytest.mark.parametrize(("path", "asked"), [("", "/"), ("/", "/"), ("/a/b", "/a/b")])
def test_an_endpoint_is_asked_at_its_path(path, asked):
    verdict = b'{"allowed": false, "reason": null}'
    with trap(read_body(answer(verdict))) as seen:
        review = open_filter(seen.url(path), 5)
        assert review("a cat", Image.new("RGB", (8, 8))) == ""
        assert seen.requests[0].startswith(f"POST {asked} HTTP/1.1\r\n")


def test_what_it_does_to_its_picture_changes_none(server):
    with Image.open(io.BytesIO(raw(server, prompt="paint", seed=7).content)) as image:
        assert image.getpixel((0, 0)) == (7, 0, 99)


@pytest.mark.parametrize(
    "where",
    [
        *("no_such_module:f", "tests.support.filters:none", "json:__name__"),
        "tests.support.ended:f",
    ],
)
def test_what_cannot_be_used_stops_the_start(where):
    code = (
        "from flux_api.http.outgoing import content_filter\n"
        "from flux_api.settings import Settings\n"
        f"content_filter(Settings.from_env({{'FLUX_FILTER': {where!r}}}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=QUIET,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"BadSetting: FLUX_FILTER={where!r}" in done.stderr
