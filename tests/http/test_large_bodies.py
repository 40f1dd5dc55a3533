"""Large bodies: text that is no picture is bounded, and memory goes back."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import os
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import requests
from PIL import Image

from tests.support import hostile_images
from tests.support.pictures import make_png, save
from tests.support.processes import memory_of
from tests.support.servers import run_api, wait_for
from tests.support.wire import message_of, pid, release, stats

PATHS = ["/process", "/v1/images/edits"]
FORM = "application/x-www-form-urlencoded"
MIB = 1 << 20
ESCAPED = "%41"  # "A", as no client writes it


@pytest.fixture(scope="module")
def server():
    """A server of its own: its memory is looked at."""
    with run_api(app="tests.support.fake_app:app") as server:
        yield server.wait_ready()


def memory(server, name):
    """``VmHWM`` (the most ever) or ``VmRSS`` (now) of the workers, in MiB."""
    return sum(memory_of(pid(one), name) for one in server.instances)


def post_form(server, path, text):
    """What is answered to a form of this text."""
    headers = {"Content-Type": FORM}
    return requests.post(server.url + path, data=text, headers=headers, timeout=60)


LARGE = {
    "urlencoded": lambda size: {"data": {"prompt": "a" * size}},
    "urlencoded name": lambda size: {"data": {"a" * size: "b"}},
    "several fields": lambda size: {"data": {f"f{n}": "a" * 600_000 for n in range(2)}},
    "multipart": lambda size: {"files": {"prompt": (None, "a" * size)}},
    "json": lambda size: {"json": {"prompt": "a" * size}},
    "json, deep": lambda size: {"json": {"x": [{"y": ["a" * size]}]}},
    "json name": lambda size: {"json": {"a" * size: 1}},
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", LARGE)
def test_text_that_is_no_picture_is_a_mebibyte_at_most(server, path, kind):
    answer = requests.post(server.url + path, **LARGE[kind](MIB + 1), timeout=60)
    assert answer.status_code == 413
    assert "1 MiB" in message_of(answer)


@pytest.mark.parametrize("path", PATHS)
def test_escapes_are_undone_however_many_there_are(server, path):
    noise = save(Image.frombytes("RGB", (700, 700), os.urandom(700 * 700 * 3)))
    assert len(noise) > MIB
    text = base64.b64encode(noise).decode()
    for image in (text, urllib.parse.quote(text, safe=""), _all_escaped(text)):
        answer = post_form(server, path, f"prompt=100%+%C3%A9&image={image}")
        assert answer.status_code == 200, answer.text
        newest = stats(server)["requests"][-1]
        assert newest["images"] == [[700, 700]]
        assert newest["prompt"] == "100% \xe9"


def _all_escaped(text):
    return "".join(f"%{ord(character):02x}" for character in text)


@pytest.mark.parametrize("path", PATHS)
def test_large_text_takes_a_few_times_its_size(server, path):
    # Of each that may be asked.
    most = 30 * len(server.instances)
    before = memory(server, "VmHWM")
    for text in ("image=" + ESCAPED * (10 * MIB), "a=" + ESCAPED * (10 * MIB)):
        assert post_form(server, path, text).status_code in (400, 413)
    assert memory(server, "VmHWM") - before < 4 * most
    for odd in ("\N{GRINNING FACE}" + "A" * (30 * MIB), "AA " * (10 * MIB)):
        answer = post_form(server, path, f"image={odd}".encode())
        assert answer.status_code == 400
        answer = requests.post(
            server.url + path, files={"image": (None, odd)}, timeout=60
        )
        assert answer.status_code == 400
    assert memory(server, "VmHWM") - before < 5 * most
    percent = "%" * (20 * MIB)
    assert "escaped" in message_of(post_form(server, path, f"image={percent}"))
    answer = requests.post(
        server.url + path, json={"prompt": "x", "image": "%2B" * (7 * MIB)}, timeout=60
    )
    assert answer.status_code == 400


HEADERS = {
    "lines": b"\r\n" + b"a\n" * (8 * MIB) + b"z: z",
    "a name": b'; name="' + b"a" * (16 * MIB) + b'"',
    "escapes": b'; name="' + b"\\\\" * (8 * MIB) + b'"',
    "percent": b"; name*=utf-8''" + b"%61" * (5 * MIB),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", HEADERS)
def test_a_parts_headers_are_a_few_kibibytes(server, path, kind):
    before = memory(server, "VmHWM")
    part = b'--X\r\nContent-Disposition: form-data; name="prompt"%s\r\n\r\na cat\r\n'
    form = {"Content-Type": "multipart/form-data; boundary=X"}
    body = part % HEADERS[kind] + b"--X--"
    answer = requests.post(server.url + path, body, headers=form, timeout=60)
    assert answer.status_code == 413
    assert "64 KiB" in message_of(answer)
    # Nor in several parts.
    body = part % HEADERS[kind][:32_000] * 100 + b"--X--"
    answer = requests.post(server.url + path, body, headers=form, timeout=60)
    assert answer.status_code in (400, 413)
    # The body itself, as it comes.
    assert memory(server, "VmHWM") - before < 100


@pytest.mark.parametrize("path", PATHS)
def test_a_few_bytes_of_gzip_do_not_take_a_whole_bodys_memory(server, path):
    before = memory(server, "VmHWM")
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}

    def post(text):
        data = gzip.compress(json.dumps({"prompt": "x", "image": text}).encode())
        return requests.post(server.url + path, data, headers=headers, timeout=60)

    answer = post("A" * (60 * MIB))
    assert answer.status_code == 413
    assert "without gzip" in message_of(answer)
    assert memory(server, "VmHWM") - before < 60 * len(server.instances)
    # A picture is worth it, however well it packs.
    for data in (
        make_png(),
        make_png((2000, 1500)),
        save(Image.new("RGB", (640, 640)), "BMP"),
    ):
        assert post(base64.b64encode(data).decode()).status_code == 200


def test_the_memory_of_large_uploads_goes_back(server):
    before = memory(server, "VmRSS")
    large = b"\x89PNG" + os.urandom(20 * MIB)
    text = json.dumps({"prompt": "x", "image": "A" * (20 * MIB)})

    def send(number):
        if number % 2:
            files = {"image": ("a.png", large)}
            return requests.post(f"{server.url}/process", files=files, timeout=60)
        headers = {"Content-Type": "application/json"}
        url = f"{server.url}/process"
        return requests.post(url, data=text, headers=headers, timeout=60)

    with ThreadPoolExecutor(16) as pool:
        assert {one.status_code for one in pool.map(send, range(32))} == {400}
    assert memory(server, "VmHWM") > before + 200
    wait_for(lambda: memory(server, "VmRSS") < before + 200, 20)


def _tool(name, **arguments):
    params = {"name": name, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


@pytest.mark.parametrize(
    ("path", "body_of"),
    [
        ("/process", lambda text: {"prompt": "hold", "input_file": text}),
        ("/v1/images/edits", lambda text: {"prompt": "hold", "image": text}),
        ("/v1/flux-kontext-pro", lambda text: {"prompt": "hold", "input_image": text}),
        ("/sdapi/v1/img2img", lambda text: {"prompt": "hold", "init_images": [text]}),
        ("/mcp", lambda text: _tool("edit_image", prompt="hold", image=text)),
    ],
)
def test_a_large_text_is_not_held_while_its_job_waits(server, path, body_of):
    requests.post(f"{server.url}/fake/reset", timeout=9)
    body = body_of(base64.b64encode(make_png() + bytes(15 * MIB)).decode())
    before = memory(server, "VmRSS")
    with ThreadPoolExecutor(4) as pool:
        asked = [
            pool.submit(requests.post, server.url + path, json=body, timeout=200)
            for _ in range(4)
        ]
        wait_for(lambda: len(stats(server)["requests"]) == 1, 120)
        wait_for(lambda: stats(server)["queued"] == 3, 30)
        wait_for(lambda: memory(server, "VmRSS") < before + 40, 10)
        release(server)
        assert {one.result().status_code for one in asked} == {200}
        # Some are answered before they are drawn, and would hold the next test's place.
        idle = {"running": 0, "queued": 0}
        wait_for(lambda: idle.items() <= stats(server).items(), 10)


def test_a_size_off_the_grid_is_refused_before_anything_is_decoded(server):
    for path, size in (
        ("/process", {"width": 65}),
        ("/v1/images/edits", {"size": "65x65"}),
        ("/v1/images/variations", {"size": "65x65"}),
    ):
        answer = requests.post(
            server.url + path,
            data={"prompt": "x"} | size,
            files={"image": ("a.png", b"no picture")},
            timeout=60,
        )
        assert answer.status_code == 400
        assert "multiples of 16" in message_of(answer)


def test_one_callers_endless_pictures_leave_a_decoder_to_others():
    keys = "greedy:the-key-of-greedy,other:the-key-of-other"
    costly = hostile_images.zeros_png(6300, 6300)

    def edit(name, data):
        return requests.post(
            f"{server.url}/v1/images/edits",
            data={"prompt": "x"},
            files={"image": ("a.png", data)},
            headers={"Authorization": f"Bearer the-key-of-{name}"},
            timeout=20,
        )

    def stop_decoders(count):
        """Let those that are there come to no end."""
        decoders = psutil.Process(stats_of(server, greedy)["pid"]).children()
        for decoder in decoders:
            decoder.suspend()
        return len(decoders) >= count

    greedy = "the-key-of-greedy"
    with (
        run_api(app="tests.support.fake_app:app", FLUX_API_KEYS=keys) as server,
        ThreadPoolExecutor(2) as pool,
    ):
        server.wait_ready()
        endless = [pool.submit(edit, "greedy", costly) for _ in range(2)]
        wait_for(lambda: stop_decoders(1), 20)
        wait_for(lambda: stats_of(server, greedy)["queued"] == 2, 20)
        with contextlib.suppress(AssertionError):
            wait_for(lambda: stop_decoders(2), 1)  # There is no second one of theirs.
        assert edit("other", make_png()).status_code == 200
        assert not any(one.done() for one in endless)
        for decoder in psutil.Process(stats_of(server, greedy)["pid"]).children():
            decoder.kill()
        statuses = {one.result().status_code for one in endless}
        assert statuses <= {200, 400, 503}  # 503: killed before it could begin


def stats_of(server, key):
    """As :func:`stats`, where keys are needed."""
    headers = {"Authorization": f"Bearer {key}"}
    return requests.get(f"{server.url}/fake/stats", headers=headers, timeout=9).json()
