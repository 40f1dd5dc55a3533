"""Strangers at the door: what they send and get, and that the next one is served.

Every case goes to both APIs where both take it; each answer has its API's form, tells
nothing of the inside, and is followed by a good request. The numbers in the ids name
the facts of ``facts.py``.
"""

from __future__ import annotations

import concurrent.futures
import gzip
import json
import re
import resource
import sys
import time

import pytest
import requests

from tests.support.pictures import make_png
from tests.support.programs import need
from tests.support.raw_http import (
    Received,
    chunked,
    exchange,
    exchange_to_the_end,
    read_all,
    send,
)
from tests.support.raw_http import post as raw_post
from tests.support.servers import ROOT, free_port, run, run_api, wait_for
from tests.support.wire import NUMBERS, stats

PROCESS, OPENAI = "/process", "/v1/images/generations"
APIS = [PROCESS, OPENAI]
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
MULTI = "multipart/form-data; boundary=XX"
SEALED = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
INSIDE = re.compile(
    rf"Traceback|File \"|\.py\b|{re.escape(str(ROOT))}|/tmp/|packages/|0x[0-9a-f]{{8}}"
)

answers: list[bytes] = []


@pytest.fixture(scope="module")
def server():
    """The API over the scripted backend, with small limits."""
    settings = {"FLUX_MAX_UPLOAD_MB": 1, "FLUX_BODY_TIMEOUT": 1, "FLUX_MAX_QUEUE": 4}
    with run_api(app="tests.support.fake_app:app", **settings) as it:
        yield it.wait_ready()


def good_request_works(server, path=PROCESS):
    """A plain request, by a client of its own."""
    body = {"prompt": "a cat", "num_inference_steps": 1}
    answer = requests.post(server.url + path, data=body, timeout=30)
    assert answer.status_code == 200, answer.text


def running(server):
    """How many requests it is at, as it says itself."""
    return requests.get(f"{server.url}/v1/status", timeout=5).json()["running"]


def assert_refused(answer, path, status, code=None):
    """The status, the form of the API of ``path``, and nothing of the inside."""
    assert answer.status == status, answer.data[:500]
    answers.append(answer.data)
    assert answer.headers["Content-Type"] == "application/json"
    assert SEALED.items() <= answer.headers.items()
    error = json.loads(answer.body)
    assert list(error) == ["error"]
    if path.startswith("/v1"):
        assert set(error["error"]) - NUMBERS == {"message", "type", "param", "code"}
        assert code in (None, error["error"]["code"])
        text = error["error"]["message"]
    else:
        text = error["error"]
    assert isinstance(text, str)
    assert 5 < len(text) < 400
    assert not INSIDE.search(answer.data.decode("latin-1"))


def part(name, data=b"x", *, file=None):
    """One part of a form with the boundary XX."""
    head = f'--XX\r\nContent-Disposition: form-data; name="{name}"'
    head += f'; filename="{file}"' if file else ""
    return head.encode("utf-8") + b"\r\n\r\n" + data + b"\r\n"


END = b"--XX--\r\n"


def values(**given):
    """A JSON body; the prompt is there unless given."""
    return json.dumps({"prompt": "a cat"} | given).encode()


NINES = b"9" * 5000
BODIES = {
    "0-5-nothing-in-the-form": (MULTI, b"", 400, None),
    "0-5-only-the-end": (MULTI, END, 400, None),
    "0-5-no-boundary": ("multipart/form-data", part("prompt") + END, 400, None),
    "0-5-other-boundary": (MULTI, b"--YY\r\n\r\nx\r\n--YY--\r\n", 400, None),
    "2-form-nameless-part": (MULTI, part("a").replace(b"name", b"n") + END, 400, None),
    "2-form-nameless-file": (
        MULTI,
        part("a", file="b").replace(b" name", b" n") + END,
        400,
        None,
    ),
    "2-form-too-many-parts": (MULTI, part("a") * 1001 + END, 413, "payload_too_large"),
    "2-form-too-large": (MULTI, part("prompt", b"x" * 2**20) + END, 413, None),
    "2-urlencoded-too-large": (FORM, b"prompt=" + b"x" * 2**20, 413, None),
    "2-json-too-large": (JSON, values(prompt="x" * 2**20), 413, "payload_too_large"),
    "2-json-deep": (JSON, b"[" * 100_000, 400, None),
    "2-json-deep-objects": (JSON, b'{"a":' * 50_000 + b"1" + b"}" * 50_000, 400, None),
    "2-json-33-deep": (JSON, values(x=json.loads("[" * 33 + "]" * 33)), 400, None),
    "2-json-many-values": (JSON, b'{"x": [' + b"0," * 100_001 + b"0]}", 400, None),
    "2-urlencoded-many-fields": (FORM, b"a&" * 1001 + b"prompt=x", 400, None),
    "2-json-many-fields": (
        JSON,
        json.dumps({f"f{n}": 1 for n in range(1001)}).encode(),
        400,
        None,
    ),
    "2-json-nan": (JSON, b'{"prompt": "x", "seed": NaN}', 400, None),
    "2-json-infinity": (JSON, b'{"prompt": "x", "seed": -Infinity}', 400, None),
    "2-json-list": (JSON, b'["prompt"]', 400, None),
    "2-json-text": (JSON, b'"prompt"', 400, None),
    "2-json-number": (JSON, b"7", 400, None),
    "2-json-nothing": (JSON, b"", 400, None),
    "2-json-not-utf8": (JSON, b'{"prompt": "\xff\xfe"}', 400, None),
    "2-json-gzip": (JSON, gzip.compress(values()), 400, None),
    "2-json-1e999": (JSON, b'{"prompt": "x", "seed": 1e999}', 400, None),
    "2-json-5000-digits": (
        JSON,
        b'{"prompt": "x", "seed": %s}' % NINES,
        400,
        None,
    ),
    "2-json-4000-digits": (
        JSON,
        b'{"prompt": "x", "seed": %s}' % NINES[:4000],
        400,
        None,
    ),
    "2-json-guidance-1e999": (
        JSON,
        b'{"prompt":"x","guidance_scale":1e999}',
        400,
        None,
    ),
    "2-json-guidance-digits": (
        JSON,
        b'{"prompt": "x", "guidance_scale": %s}' % NINES[:4000],
        400,
        None,
    ),
    "2-json-surrogate-prompt": (JSON, b'{"prompt": "a \\ud800 cat"}', 400, None),
    "2-json-surrogate-model": (JSON, b'{"prompt": "x", "model": "\\udfff"}', 400, None),
    "2-json-surrogate-seed": (JSON, b'{"prompt": "x", "seed": "\\ud800"}', 400, None),
    "2-json-surrogate-job": (JSON, b'{"prompt": "x", "job_id": "\\ud800"}', 400, None),
    "2-json-nul-prompt": (JSON, values(prompt="a\0cat"), 400, None),
    "2-json-object-prompt": (JSON, values(prompt={"a": 1}), 400, None),
    "2-json-list-seed": (JSON, values(seed=[7]), 400, None),
    "2-json-object-seed": (JSON, values(seed={"$gt": 0}), 400, None),
    "2-json-boolean-seed": (JSON, values(seed=True), 400, None),
    "2-form-nul-prompt": (FORM, b"prompt=a%00cat", 400, None),
    "2-form-two-prompts": (FORM, b"prompt=a&prompt=b", 400, None),
    "2-form-two-seeds": (FORM, b"prompt=a&seed=1&seed=2", 400, None),
    "2-form-5000-digits": (FORM, b"prompt=a&seed=" + b"9" * 5000, 400, None),
    "2-form-other-digits": (FORM, "prompt=a&seed=\u0661".encode(), 400, None),
    "2-form-1e9-steps": (FORM, b"prompt=a&num_inference_steps=1000000000", 400, None),
    "2-form-201-steps": (FORM, b"prompt=a&num_inference_steps=201", 400, None),
    "2-form-0-steps": (FORM, b"prompt=a&num_inference_steps=0", 400, None),
    "2-form-guidance-nan": (FORM, b"prompt=a&guidance_scale=nan", 400, None),
    "2-form-guidance-inf": (FORM, b"prompt=a&guidance_scale=-inf", 400, None),
    "2-form-job-crlf": (FORM, b"prompt=a&job_id=a%0d%0aX-Evil:1", 400, None),
    "2-form-job-path": (FORM, b"prompt=a&job_id=../../etc/passwd", 400, None),
    "2-prompt-of-32001": (FORM, b"prompt=" + b"x" * 32_001, 400, None),
    "2-prompt-of-32001-json": (JSON, values(prompt="\u732b" * 32_001), 400, None),
    "2-prompt-as-a-file": (MULTI, part("prompt", file="a.txt") + END, 400, None),
    "2-model-very-long": (FORM, b"prompt=a&model=" + b"m" * 300, 400, None),
    "2-no-type": (None, b"prompt=a", 415, "unsupported_media_type"),
    "2-text-type": ("text/plain", b"prompt=a", 415, "unsupported_media_type"),
    "2-xml-type": ("application/xml", b"<prompt/>", 415, None),
    "2-nonsense-type": ("\xff\xfe;;;=", b"prompt=a", 415, None),
    "2-nothing": (None, b"", 400, None),
}


@pytest.mark.parametrize("path", APIS)
@pytest.mark.parametrize("case", BODIES)
def test_a_hostile_body_is_refused(server, case, path):
    kind, body, status, code = BODIES[case]
    answer = exchange(server, raw_post(path, body, Content_Type=kind))
    assert_refused(answer, path, status, code)
    good_request_works(server, path)


ACCEPTED = {
    "form-unknown-charset": (f"{FORM}; charset=utf-32", b"prompt=a"),
    "json-surrogate-name": (JSON, b'{"prompt": "a cat", "\\ud800": "\\udfff"}'),
    "json-same-name-twice": (JSON, b'{"prompt": "a dog", "prompt": "a cat"}'),
    "json-32-deep": (JSON, values(x=json.loads("[" * 31 + "]" * 31))),
    "json-whole-float": (JSON, b'{"prompt": "a cat", "seed": 7.0}'),
    "json-control-characters": (JSON, b'{"prompt": "\\u001b[31m\\r\\nX: y"}'),
    "names-of-the-inside": (FORM, b"prompt=a&__class__=x&self=y&settings=z&%00=1"),
    "file-name-traversal": (
        MULTI,
        part("prompt") + part("other", b"\0") + END,
    ),
    "no-end-but-whole": (MULTI, part("prompt") + b"--XX--"),
}


@pytest.mark.parametrize("path", APIS)
@pytest.mark.parametrize("case", ACCEPTED)
def test_an_odd_body_is_taken_as_it_says(server, case, path):
    kind, body = ACCEPTED[case]
    answer = exchange(server, raw_post(path, body, Content_Type=kind))
    assert answer.status == 200, answer.data[:500]
    assert {**SEALED}.items() <= answer.headers.items()
    good_request_works(server, path)


# Bodies that end too early, or not at all

FILE_FORM = part("prompt") + part("input_file", make_png(), file="a.png") + END
CUTS = [0, 3, 30, 90, 200, len(FILE_FORM) - 9]


@pytest.mark.parametrize("path", APIS)
@pytest.mark.parametrize("kept", CUTS, ids=lambda kept: f"0-5-cut-{kept}")
def test_a_cut_off_form_is_400(server, kept, path):
    data = raw_post(path, b"", Content_Type=MULTI, Content_Length=len(FILE_FORM))
    answer = exchange(server, data + FILE_FORM[:kept], half_close=True)
    assert_refused(answer, path, 400)
    assert running(server) == 0
    good_request_works(server, path)


CHUNKED_CUTS = {
    "0-5-chunked-nothing": b"",
    "0-5-chunked-in-a-chunk": chunked(FILE_FORM)[:100],
    "0-5-chunked-between": chunked(FILE_FORM[:200], end=b""),
    "0-5-chunked-bad-size": b"zz\r\n" + FILE_FORM,
    "0-5-chunked-ends-in-a-part": chunked(FILE_FORM[:150]),
}


@pytest.mark.parametrize("path", APIS)
@pytest.mark.parametrize("case", CHUNKED_CUTS)
def test_a_cut_off_chunked_form_is_400(server, case, path):
    data = raw_post(
        path,
        CHUNKED_CUTS[case],
        Content_Type=MULTI,
        Content_Length=None,
        Transfer_Encoding="chunked",
    )
    answer = exchange(server, data, half_close=True)
    assert_refused(answer, path, 400)
    good_request_works(server, path)


@pytest.mark.parametrize("path", APIS)
def test_a_cut_off_json_body_is_400(server, path):
    data = raw_post(path, b'{"prompt": "a', Content_Type=JSON, Content_Length=30)
    answer = exchange(server, data, half_close=True)
    assert_refused(answer, path, 400)
    # Whole in itself, but shorter than announced.
    data = raw_post(path, values(), Content_Type=JSON, Content_Length=300)
    assert_refused(exchange(server, data, half_close=True), path, 400)
    good_request_works(server, path)


@pytest.mark.parametrize("path", APIS)
def test_a_chunked_form_works_and_is_limited_too(server, path):
    options = {
        "Content_Type": MULTI,
        "Content_Length": None,
        "Transfer_Encoding": "chunked",
    }
    whole = chunked(part("prompt"), part("steps", b"1"), END)
    assert exchange(server, raw_post(path, whole, **options)).status == 200
    large = chunked(part("prompt"), *[b"x" * 65_536] * 40)
    answer = exchange(server, raw_post(path, large, **options))
    assert_refused(answer, path, 413, "payload_too_large")
    good_request_works(server, path)


# More than gunicorn itself reads on before it closes a connection.
UNREAD_BYTES = 8 << 20
UNREAD = {
    "no-such-route": ("/nothing", FORM, 404),
    "no-such-method": ("/v1/models", FORM, 405),
    "no-such-job": ("/jobs/never-heard-of/result", FORM, 405),
    # What has no known type may be JSON all the same, so it is read, and too large.
    "other-type": (PROCESS, "text/plain", 413),
    "other-type-openai": (OPENAI, "text/plain", 413),
    "too-large-form": (PROCESS, FORM, 413),
    "too-large-json": (OPENAI, "application/json", 413),
    "too-large": (PROCESS, MULTI, 413),
    "too-large-openai": (OPENAI, MULTI, 413),
}


@pytest.mark.parametrize("case", UNREAD)
@pytest.mark.parametrize("how", ["length", "chunked"])
def test_a_refused_body_is_read_all_the_same(server, case, how):
    """A client that still sends would meet a reset, and never see the answer."""
    path, kind, status = UNREAD[case]
    headers, body = {"Content_Type": kind}, b"x" * UNREAD_BYTES
    if how == "chunked":
        body = chunked(*[body[i : i + 65_536] for i in range(0, len(body), 65_536)])
        headers |= {"Content_Length": None, "Transfer_Encoding": "chunked"}
    answer = exchange_to_the_end(server, raw_post(path, body, **headers))
    assert_refused(answer, path, status)


@pytest.mark.parametrize("length", [10**9, 2**63, 10**40])
def test_an_absurd_length_is_413_without_waiting_for_it(server, length):
    for path in APIS:
        data = raw_post(path, b"x", Content_Type=FORM, Content_Length=length)
        began = time.monotonic()
        assert_refused(exchange(server, data, half_close=True), path, 413)
        assert time.monotonic() - began < 5
    good_request_works(server)


@pytest.mark.parametrize("path", APIS, ids=lambda path: f"0-3-{path}")
def test_half_sent_bodies_hold_nobody_up_and_are_shut_off(server, path):
    head = raw_post(path, b"prompt=", Content_Type=FORM, Content_Length=1000)
    waiting = [send(server, head) for _ in range(40)]
    began = time.monotonic()
    try:
        good_request_works(server, path)
        assert requests.get(f"{server.url}/healthz", timeout=5).ok
        assert time.monotonic() - began < 5
        for connection in waiting:
            answer = Received(read_all(connection))
            assert_refused(answer, path, 408, "request_timeout")
        assert time.monotonic() - began < 30
    finally:
        for connection in waiting:
            connection.close()
    good_request_works(server, path)


@pytest.mark.parametrize("kind", [FORM, MULTI, JSON], ids=lambda k: f"0-3-drip-{k}")
def test_a_drip_is_shut_off_though_it_never_stops(server, kind):
    head = raw_post(PROCESS, b"", Content_Type=kind, Content_Length=100_000)
    began = time.monotonic()
    with send(server, head) as connection:
        connection.settimeout(0.2)
        received = b""
        while time.monotonic() - began < 15 and not received:
            connection.sendall(b" ")
            try:
                received = connection.recv(65_536)
            except TimeoutError:
                continue
        connection.settimeout(20)
        assert_refused(Received(received + read_all(connection)), PROCESS, 408)
    assert time.monotonic() - began < 10
    good_request_works(server)


def test_half_sent_heads_hold_no_thread_for_good(server):
    """More of them than the server has threads."""
    beginnings = (b"G", b"GET /healthz HTTP/1.1\r\nHost: local")
    waiting = [send(server, beginnings[n % 2]) for n in range(80)]
    try:
        assert requests.get(f"{server.url}/healthz", timeout=20).ok
        for connection in waiting:
            assert read_all(connection) == b""
    finally:
        for connection in waiting:
            connection.close()
    good_request_works(server)


def test_connections_that_say_nothing_make_room(server):
    """More of them than the server takes at a time."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 4096 if hard == resource.RLIM_INFINITY else min(hard, 4096)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    silent = [send(server, b"") for _ in range(1100)]
    try:
        for _ in range(3):
            assert requests.get(f"{server.url}/healthz", timeout=15).ok
    finally:
        for connection in silent:
            connection.close()
    good_request_works(server)


def test_a_drip_of_a_head_is_shut_off_too(server):
    with send(server, b"GET /healthz HTTP/1.1\r\n") as connection:
        connection.settimeout(0.2)
        received = None
        for _ in range(100):
            try:
                connection.sendall(b"X: y\r\n")
                received = connection.recv(65_536)
            except TimeoutError:
                continue
            except OSError:
                received = b""
            break
        assert received == b""
    good_request_works(server)


def test_clients_that_do_not_close_hold_up_nobody(server):
    asks = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    waiting = [send(server, asks) for _ in range(20)]
    try:
        for connection in waiting:
            assert Received(read_all(connection)).status == 200
        # It lingers for each of them, and takes others meanwhile.
        for _ in range(3):
            assert requests.get(f"{server.url}/healthz", timeout=5).ok
    finally:
        for connection in waiting:
            connection.close()


def test_a_slow_but_honest_body_is_taken(server):
    body = b"prompt=a&num_inference_steps=1&x=" + b"y" * 300_000
    head = raw_post(PROCESS, b"", Content_Type=FORM, Content_Length=len(body))
    with send(server, head) as connection:
        for start in range(0, len(body), 50_000):
            time.sleep(0.3)
            connection.sendall(body[start : start + 50_000])
        assert Received(read_all(connection)).status == 200


@pytest.mark.parametrize(
    "name", ["x", "input_file"], ids=["2-disk-field", "2-disk-file"]
)
def test_a_body_needs_no_disk(name):
    port = free_port()
    command = [
        *(need("prlimit"), "--fsize=600000", sys.executable, "-m", "gunicorn"),
        *(
            "-c",
            "gunicorn.conf.py",
            "-b",
            f"127.0.0.1:{port}",
            "tests.support.fake_app:app",
        ),
    ]
    with run(command, url=f"http://127.0.0.1:{port}", settings={}) as server:
        wait_for(lambda: requests.get(f"{server.url}/readyz", timeout=5).ok, 60, server)
        for path in APIS:
            answer = requests.post(
                server.url + path,
                data={"prompt": "a cat"},
                files={name: ("a.png", b"x" * 900_000)},
                timeout=30,
            )
            assert answer.status_code == 400
            good_request_works(server, path)
        assert "Traceback" not in server.output


# Requests that are no requests

RAW = {
    "two-lengths": (
        b"POST /process HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n"
        b"Content-Length: 80\r\n\r\nprompt=a",
        400,
    ),
    "negative-length": (raw_post("/process", b"", Content_Length=-1), 400),
    "length-of-words": (raw_post("/process", b"", Content_Length="ten"), 400),
    "length-and-chunks": (
        raw_post("/process", b"0\r\n\r\n", Transfer_Encoding="chunked"),
        400,
    ),
    "chunks-twice": (
        raw_post(
            "/process",
            b"0\r\n\r\n",
            Content_Length=None,
            Transfer_Encoding="chunked, chunked",
        ),
        400,
    ),
    "unknown-coding": (
        raw_post("/process", Content_Length=None, Transfer_Encoding="gzip"),
        (400, 501),
    ),
    "folded-header": (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n", 400),
    "underscores": (
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX_Evil: a\r\nConnection: close\r\n\r\n",
        200,
    ),
    "nul-in-a-header": (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n", 400),
    "no-http": (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n", (400, None)),
    "token-in-a-broken-line": (
        b"GET /?token=hidden-1 HTTP/x\r\nAuthorization: Bearer hidden-2\r\n\r\n",
        400,
    ),
    "token-in-a-broken-header": (
        b"GET / HTTP/1.1\r\nHost: localhost\r\nAuth orization: Bearer hidden-3\r\n\r\n",
        400,
    ),
    "token-in-a-wrong-value": (
        b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer hidden-4\0\r\n\r\n",
        400,
    ),
    "http-9": (b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", (400, 505)),
    "long-line": (
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        414,
    ),
    "large-header": (b"GET / HTTP/1.1\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431),
    "many-headers": (b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 200 + b"\r\n", 431),
}


@pytest.mark.parametrize("case", RAW)
def test_broken_http_is_refused_by_the_server_itself(server, case):
    data, expected = RAW[case]
    answer = exchange(server, data, half_close=True)
    answers.append(answer.data)
    allowed = expected if isinstance(expected, tuple) else (expected,)
    assert answer.status in allowed, answer.data[:300]
    if answer.status not in (200, None):
        error = json.loads(answer.body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
    assert not INSIDE.search(answer.data.decode("latin-1"))
    good_request_works(server)


ROUTES = {
    "unknown": ("GET", "/nothing", 404),
    "unknown-openai": ("POST", "/v1/nothing", 404),
    "get-process": ("GET", "/process", 405),
    "head-process": ("HEAD", "/process", 405),
    "put-generations": ("PUT", "/v1/images/generations", 405),
    "invented-method": ("BREW", "/process", 405),
    "trace": ("TRACE", "/v1/models", 405),
    "long-method": ("A" * 20, "/process", 405),
    "dots": ("GET", "/../../etc/passwd", 404),
    "dots-encoded": ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404),
    "double-slash": ("POST", "//process", 400),
    "double-slash-host": ("GET", "//evil.example/v1/models", 404),
    "upper-case": ("POST", "/PROCESS", 404),
    "semicolon": ("POST", "/process;x=1", 404),
    "nul": ("GET", "/%00", 404),
    "bad-utf8": ("GET", "/%ff%fe", 404),
    "asterisk": ("OPTIONS", "*", 404),
    "model-dots": ("GET", "/v1/models/../../../etc/passwd", 404),
    "model-dots-encoded": ("GET", "/v1/models/..%2f..%2fetc%2fpasswd", 404),
    "model-nul": ("GET", "/v1/models/tiny%00", 404),
    "model-newline": ("GET", "/v1/models/tiny%0d%0aX-Evil:1", 404),
    "model-bad-utf8": ("GET", "/v1/models/%ff%fe%ed%a0%80", 404),
    "model-markup": ("GET", "/v1/models/%3Cscript%3Ealert(1)%3C/script%3E", 404),
    "model-very-long": ("GET", "/v1/models/" + "m" * 4000, 404),
    "deployment-dots": ("GET", "/openai/deployments/../x/images/generations", 405),
    "job-dots": ("GET", "/jobs/..%2f..%2fetc", 404),
    "job-unknown": ("DELETE", "/jobs/never-heard-of", 404),
    "events-unknown": ("GET", "/jobs/never-heard-of/events", 404),
    "static": ("GET", "/static/../wsgi.py", 404),
    "environment": ("GET", "/.env", 404),
    "git": ("GET", "/.git/config", 404),
}


@pytest.mark.parametrize("case", ROUTES)
def test_wrong_addresses_and_methods_answer_in_their_form(server, case):
    method, target, status = ROUTES[case]
    head = f"{method} {target} HTTP/1.1\r\nHost: evil.localhost\r\n"
    answer = exchange(server, f"{head}Connection: close\r\n\r\n".encode("latin-1"))
    answers.append(answer.data)
    assert answer.status == status
    assert b"evil" not in answer.data.lower() or "evil" in target.lower()
    assert "Location" not in answer.headers
    assert "X-Evil" not in answer.headers
    assert not INSIDE.search(answer.data.decode("latin-1"))
    if status == 405:
        assert answer.headers["Allow"]
    if method == "HEAD":
        assert answer.body == b""
        return
    assert answer.headers["Content-Type"] == "application/json"
    error = json.loads(answer.body)["error"]
    # Some SDK may have been given a wrong base URL.
    openai = target.startswith(("/v1/", "/openai/")) or target.endswith("/v1/models")
    assert isinstance(error, dict if openai else str)


def test_head_and_options_are_answered(server):
    head = requests.head(f"{server.url}/v1/models", timeout=5)
    assert (head.status_code, head.content) == (200, b"")
    assert requests.head(f"{server.url}/healthz", timeout=5).status_code == 200
    for path in APIS:
        answer = requests.options(server.url + path, timeout=5)
        assert answer.status_code == 200
        assert set(answer.headers["Allow"].split(", ")) == {"OPTIONS", "POST"}


# Headers that claim something

FORGED_IDS = ["a b", "a/b", "\xff", "a" * 129, "x\ty", "", "<script>", "a,b", '"']


@pytest.mark.parametrize("sent", FORGED_IDS, ids=lambda sent: f"2-id-{sent[:9]!r}")
def test_a_forged_request_id_is_replaced(server, sent):
    data = raw_post(PROCESS, b"", Content_Type=FORM, X_Request_Id=sent)
    answer = exchange(server, data)
    assert re.fullmatch(r"req_[0-9a-f]{32}", answer.headers["X-Request-Id"])


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:99", "a\\b", "", "[::1"]
)
@pytest.mark.parametrize("path", [*APIS, "/v1/models", "/nothing", "//process"])
def test_forged_hosts_do_nothing(server, host, path):
    expected = exchange(server, raw_post(path, b"prompt=+", Content_Type=FORM))
    data = raw_post(path, b"prompt=+", Content_Type=FORM, Host=host)
    answer = exchange(server, data)
    if host in ("", "[::1"):
        assert (answer.status, answer.body) == (expected.status, expected.body)
    else:
        assert answer.status == 403
        assert b"FLUX_TRUSTED_HOSTS" in answer.body
    assert b"evil" not in answer.data
    assert "Location" not in answer.headers


CLAIMS = {
    "X-Forwarded-For": "203.0.113.1, 203.0.113.2, 203.0.113.3",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "gopher",
    "X-Forwarded-Port": "1",
    "X-Forwarded-Prefix": "/evil",
    "X-Real-Ip": "203.0.113.9",
    "Forwarded": "for=203.0.113.8;host=evil.example;proto=gopher",
    "True-Client-Ip": "203.0.113.7",
    "X-Original-Url": "/v1/models",
    "X-Rewrite-Url": "/v1/models",
    "X-Http-Method-Override": "DELETE",
    "Script-Name": "/evil",
    "Remote-User": "admin",
}


@pytest.mark.parametrize(
    ("hops", "caller"),
    [(0, "127.0.0.1"), (1, "203.0.113.3"), (2, "203.0.113.2"), (3, "203.0.113.1")],
    ids=lambda value: f"2-hops-{value}",
)
def test_only_the_hops_that_are_trusted_count(hops, caller):
    with run_api(app="tests.support.fake_app:app", FLUX_TRUSTED_PROXIES=hops) as server:
        server.wait_ready()
        for path in APIS:
            answer = requests.post(
                server.url + path,
                data={"prompt": "a cat", "num_inference_steps": 1},
                headers=CLAIMS,
                timeout=10,
            )
            assert answer.status_code == 200
            assert "evil" not in answer.text + str(answer.headers)
            assert stats(server)["requests"][-1]["caller"] == caller
        # With fewer entries than hops nothing is believed.
        requests.post(
            f"{server.url}/process",
            data={"prompt": "a cat", "num_inference_steps": 1},
            headers={"X-Forwarded-For": "203.0.113.77"},
            timeout=10,
        )
        expected = "203.0.113.77" if hops == 1 else "127.0.0.1"
        assert stats(server)["requests"][-1]["caller"] == expected


def test_each_key_is_bounded_for_itself():
    keys = {"alice": "alices-key-01", "bob": "bobs-key-0001"}
    settings = {
        "FLUX_API_KEYS": ",".join(f"{name}:{key}" for name, key in keys.items()),
        "FLUX_MAX_PER_CALLER": 1,
    }
    with run_api(app="tests.support.fake_app:app", **settings) as server:
        server.wait_ready()

        def ask(name, path, prompt):
            return requests.post(
                server.url + path,
                data={"prompt": prompt, "num_inference_steps": 1},
                headers={"Authorization": f"Bearer {keys[name]}"},
                timeout=30,
            )

        def fake(method, path):
            bearer = {"Authorization": f"Bearer {keys['bob']}"}
            return requests.request(
                method, f"{server.url}/fake/{path}", headers=bearer, timeout=10
            ).json()

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            held = pool.submit(ask, "alice", PROCESS, "hold")
            wait_for(lambda: fake("GET", "stats")["running"] == 1, 10)
            for path in APIS:
                refused = ask("alice", path, "a cat")
                assert refused.status_code == 429
                assert 1 <= int(refused.headers["Retry-After"]) <= 60
            other = pool.submit(ask, "bob", PROCESS, "a cat")
            wait_for(lambda: fake("GET", "stats")["queued"] == 1, 10)
            fake("POST", "release")
            assert held.result().status_code == other.result().status_code == 200
            assert ask("alice", OPENAI, "a cat").status_code == 200


def test_every_answer_is_sealed(server):
    for method, path in (
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/v1/models"),
        ("GET", "/nothing"),
        ("OPTIONS", "/process"),
        ("POST", "/process"),
    ):
        answer = requests.request(method, server.url + path, timeout=10)
        for name in ("X-Content-Type-Options", "Content-Security-Policy"):
            assert answer.headers[name] == SEALED[name], (method, path)
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert "Python" not in answer.headers["Server"]
        assert "Set-Cookie" not in answer.headers
    stream = requests.post(
        server.url + OPENAI, json={"prompt": "a cat", "stream": True}, timeout=30
    )
    assert stream.headers["Cache-Control"] == "no-cache"
    assert stream.headers["Content-Security-Policy"]


def test_nothing_of_all_this_leaked(server):
    """The last of this file: what was said and logged in the whole run."""
    wait_for(lambda: running(server) == 0, 10)
    assert not INSIDE.search(b"\n".join(answers).decode("latin-1"))
    lines = [json.loads(line) for line in server.output.splitlines()]
    failures = [line for line in lines if line["level"] in ("error", "critical")]
    assert failures == [], failures
    assert "Traceback" not in server.output
    assert "a cat" not in server.output
    assert "hidden" not in server.output
    # It is the process of the start that still serves.
    assert server.output.count("Booting worker") == len(server.instances)
