"""Logs: one JSON object a line, one line a request, and no secret in any of them."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pty
import socket
import struct
import subprocess
import sys
import time

import pytest
import requests

from log_lines import JsonFormatter, configure
from tests.support.raw_http import exchange, send
from tests.support.raw_http import post as raw_post
from tests.support.servers import ROOT, run_api, wait_for
from tests.support.trap_server import trap

PROMPT = "a very private \u732b \x1b[31m"
TOKEN = "sk-do-not-log-0123456789"


def lines(server):
    """Everything that was logged so far; each line is an object."""
    return [json.loads(line) for line in server.output.splitlines()]


def requests_of(server, **wanted):
    """The lines of requests that have these fields."""
    return [
        line
        for line in lines(server)
        if line["message"] == "request" and wanted.items() <= line.items()
    ]


def line_of(server, request_id):
    """The one line of this request."""
    wait_for(lambda: requests_of(server, request_id=request_id), 10)
    [line] = requests_of(server, request_id=request_id)
    return line


@pytest.fixture(scope="module")
def keyed():
    """The API with a key, over the scripted backend."""
    settings = {"FLUX_API_KEYS": f"alice:{TOKEN}", "FLUX_LOG_LEVEL": "debug"}
    with run_api(app="tests.support.fake_app:app", **settings) as server:
        yield server.wait_ready()


def call(server, method, path, request_id, **options):
    """A request with an id and the key."""
    headers = {"X-Request-Id": request_id, "Authorization": f"Bearer {TOKEN}"}
    headers |= options.pop("headers", {})
    return requests.request(
        method, server.url + path, headers=headers, timeout=30, **options
    )


def test_a_picture_is_one_line_that_tells_its_story(keyed):
    form = {"prompt": PROMPT, "seed": "7", "width": "64", "height": "64"}
    form["negative_prompt"] = f"no {PROMPT}"
    answer = call(keyed, "POST", "/process?secret=hidden", "one", data=form)
    line = line_of(keyed, "one")
    digest = hashlib.sha256(PROMPT.encode()).hexdigest()[:8]
    expected = {
        "level": "info",
        "method": "POST",
        "route": "/process",
        "status": 200,
        "bytes": len(answer.content),
        "remote": "127.0.0.1",
        "caller": "key alice",
        "mode": "generate",
        "model": "tiny",
        "size": "64x64",
        "seed": 7,
        "images": 1,
        "job_id": answer.headers["X-Job-Id"],
        "state": "done",
        "prompt_length": len(PROMPT),
        "prompt_sha256": digest,
        "negative_prompt_length": len(PROMPT) + 3,
    }
    assert expected.items() <= line.items()
    for name in ("ms", "queue_seconds", "run_seconds"):
        assert line[name] >= 0
    assert not {"prompt", "negative_prompt"} & set(line)
    assert line["time"].endswith("+00:00")


def test_a_stream_is_logged_at_its_end(keyed):
    body = {"prompt": "a cat pause=0.05", "stream": True, "steps": 4}
    began = time.monotonic()
    answer = call(keyed, "POST", "/v1/images/generations", "stream", json=body)
    line = line_of(keyed, "stream")
    assert line["state"] == "done"
    assert 200 <= line["ms"] <= 1000 * (time.monotonic() - began) + 1
    assert line["bytes"] == len(answer.content)


def test_refusals_and_failures_say_their_code(keyed):
    for name, form, code, level in (
        ("refused", {"prompt": ""}, "missing_required_parameter", "info"),
        ("failed", {"prompt": "fail=memory"}, "insufficient_storage", "error"),
        ("broke", {"prompt": "fail=pipeline"}, "generation_failed", "error"),
        # Whoever asks has only to wait.
        ("busy", {"prompt": "fail=busy"}, "server_is_overloaded", "warning"),
    ):
        call(keyed, "POST", "/process", name, data=form)
        line = line_of(keyed, name)
        assert (line["error"], line["level"]) == (code, level)
    call(keyed, "GET", "/nothing%0ahere?x=hidden", "lost")
    line = line_of(keyed, "lost")
    assert (line["status"], line["path"]) == (404, "/nothing\nhere")
    assert "route" not in line


def test_strangers_fill_no_line_without_end(keyed):
    answer = exchange(
        keyed,
        f"{'A' * 20} /{'p' * 300} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        "X-Request-Id: endless\r\n\r\n".encode(),
    )
    assert answer.status == 404
    line = line_of(keyed, "endless")
    assert (line["method"], line["path"]) == ("A" * 16, "/" + "p" * 199)


def test_a_body_whose_connection_breaks_is_no_failure_of_the_server(keyed):
    head = raw_post(
        "/process",
        b"prompt=",
        Content_Length=1000,
        Authorization=f"Bearer {TOKEN}",
        X_Request_Id="broken-off",
    )
    with send(keyed, head) as connection:
        # Closed so, it is reset.
        now = struct.pack("ii", 1, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
    line = line_of(keyed, "broken-off")
    assert (line["status"], line["error"]) == (400, "invalid_request")


def test_probes_are_for_the_debug_level_only(keyed, fake):
    call(keyed, "GET", "/healthz", "probe")
    assert line_of(keyed, "probe")["level"] == "debug"
    requests.get(f"{fake.url}/healthz", headers={"X-Request-Id": "quiet"}, timeout=5)
    requests.get(f"{fake.url}/v1/models", headers={"X-Request-Id": "loud"}, timeout=5)
    line_of(fake, "loud")
    assert not requests_of(fake, request_id="quiet")


def test_prompts_are_logged_in_full_when_asked_for():
    with run_api(app="tests.support.fake_app:app", FLUX_LOG_PROMPTS=1) as server:
        server.wait_ready()
        requests.post(
            f"{server.url}/process",
            data={"prompt": PROMPT},
            headers={"X-Request-Id": "open"},
            timeout=10,
        )
        assert line_of(server, "open")["prompt"] == PROMPT
        assert "\x1b" not in server.output
        # As letters, so that they can be searched for.
        assert "\u732b" in server.output


def test_no_caller_can_forge_a_line(keyed):
    forged = 'x"}\\r\\n{"level": "error"'
    for value in (forged, "a\tb", "\xff\xfe", "x" * 5000):
        exchange(
            keyed,
            raw_post(f"/process?{forged.replace(' ', '')}", X_Request_Id=value)
            + b"\r\n",
        )
    call(keyed, "GET", "/%0d%0a%7b%22level%22:%22critical%22%7d", "forger")
    line_of(keyed, "forger")
    for line in lines(keyed):
        assert line["level"] in ("debug", "info", "warning", "error")
        assert line["logger"].startswith(("flux_api", "gunicorn"))


def test_no_token_key_prompt_or_query_is_ever_logged(keyed):
    with trap(b"HTTP/1.1 404 No\r\n\r\n") as seen:
        for name, form in (
            ("a", {"prompt": PROMPT, "input_image_url": seen.url("/x?sig=hidden-1")}),
            ("b", {"bearer_token": "hidden-2", "input_image_url": "http://10.0.0.1/"}),
            ("c", {"prompt": "hidden-3 fail=unexpected"}),
            ("d", {"prompt": "hidden-4 fail=pipeline"}),
            ("e", {"input_image_url": "http://me:hidden-5@example.com/"}),
        ):
            call(keyed, "POST", "/process", f"no-{name}", data=form)
            line_of(keyed, f"no-{name}")
    call(
        keyed,
        "GET",
        "/v1/models",
        "wrong-key",
        headers={"Authorization": "Bearer hidden-6", "Cookie": "hidden-7"},
    )
    line_of(keyed, "wrong-key")
    assert "hidden" not in keyed.output
    assert TOKEN not in keyed.output
    assert "private" not in keyed.output


def test_gunicorns_own_lines_hold_no_query_and_no_referrer():
    """Neither where the application fails, nor in the access log, should somebody turn
    it on."""
    app = "tests.support.broken_app:application"
    secret = {"Referer": "http://pages.test/?token=hidden-1", "User-Agent": "hidden-2"}
    with run_api("--access-logfile", "-", app=app) as server:
        for path, status in (("/process", 500), ("/healthz", 200)):
            url = f"{server.url}{path}?token=hidden-3"
            answer = requests.get(url, headers=secret, timeout=10)
            assert answer.status_code == status
        wait_for(lambda: server.output.count("/healthz HTTP/1.1") >= 2, 10)
        assert "Error handling request GET /process" in server.output
        assert "hidden" not in server.output


def test_every_line_of_gunicorns_own_is_json_too(fake):
    own = [line for line in lines(fake) if line["logger"] == "gunicorn.error"]
    assert any("Booting worker" in line["message"] for line in own)


def test_the_formatter_survives_what_no_encoding_takes():
    odd = "\\\ud800\r\n\x85\u2028\u2029\x9b\U000e0001\u732b"
    record = logging.LogRecord("n", logging.INFO, "", 0, odd, (), None)
    record.fields = {"odd": {1, 2}, odd: "\udfff"}
    text = JsonFormatter().format(record)
    assert text.encode().splitlines() == [text.encode()] and text.isprintable()
    assert "\u732b" in text
    told = json.loads(text)
    assert told["message"] == odd and told[odd] == "\udfff"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "euc-jp"])
def test_where_an_encoding_lacks_letters_lines_are_ascii(encoding):
    code = (
        "import logging, log_lines; log_lines.configure('flux_api');"
        "logging.getLogger('flux_api').error('\\xe9\\u732b')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stderr.decode("ascii"))["message"] == "\xe9\u732b"


def on_a_terminal(code):
    """What the code writes to standard error when that is a terminal."""
    master, slave = pty.openpty()
    command = [sys.executable, "-c", code]
    subprocess.run(command, cwd=ROOT, stderr=slave, check=True)
    os.close(slave)
    with os.fdopen(master, "rb", buffering=0) as terminal:
        return terminal.read(65536).decode()


@pytest.mark.parametrize("package", ["flux_api", "file_server"])
def test_on_a_terminal_lines_are_for_people(package):
    fields = {"method": "POST", "route": "/process", "status": 200, "ms": 1234}
    fields |= {"prompt": "\u732b\x1b[31m\r\nforged"}
    text = on_a_terminal(
        f"import logging, log_lines; log_lines.configure('{package}');"
        f"log = logging.getLogger('{package}.x');"
        f"log.info('request', extra={{'fields': {fields!r}}});"
        "log.warning('low on memory')"
    )
    first, second, rest = text.split("\r\n")
    assert rest == ""
    assert first[8:] == (" POST /process 200 1.23 s prompt=\u732b\\x1b[31m\\r\\nforged")
    assert second[8:] == " WARNING low on memory"


def test_an_application_that_logs_already_is_left_alone(caplog):
    before = list(logging.getLogger().handlers)
    assert before  # pytest's own
    configure("flux_api", "warning")
    assert logging.getLogger().handlers == before
    configure("flux_api")


def test_warnings_come_out_as_lines_too():
    code = (
        "import warnings, log_lines; log_lines.configure('flux_api');"
        "warnings.warn('two\\nlines'); import logging;"
        "logging.getLogger('other').warning('x'); logging.getLogger('other').info('y')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["logger"] for line in found] == ["py.warnings", "other"]
