"""A file server that is away, slow or out of its mind costs nobody a picture (W9)."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import requests
from PIL import Image

from flux_api.errors import ImageFetchFailed, Unavailable
from flux_api.http import pictures
from flux_api.http.outgoing import fetch_policy, file_server
from flux_api.images.codec import EncodedImage
from flux_api.net import file_server as own
from flux_api.net.fetch import Fetcher
from flux_api.net.file_server import FileServer
from flux_api.queue.results import FinishedPicture
from flux_api.settings import Settings
from tests.support.servers import free_port, run_api, wait_for
from tests.support.trap_server import BODY, answer, drip, flood, redirect, trap

STORED = json.dumps({"url": "/i/0123456789abcdef.png"}).encode()
GOOD = answer(STORED)
PICTURE = EncodedImage(b"picture", "image/png")


def says(url):
    """An upload answer that names ``url``."""
    return answer(json.dumps({"url": url}).encode())


def read_body(handle):
    """Take the upload in before ``handle`` answers, as a file server does."""

    def take(seen, conn):
        conn.settimeout(0.1)
        try:
            while conn.recv(65_536):
                pass
        except TimeoutError:
            pass
        conn.settimeout(10)
        return handle(seen, conn) if callable(handle) else handle

    return take


WRONG = {
    "W9-500": answer(b"oops", "500 Internal Server Error"),
    "W9-401": answer(b"{}", "401 Unauthorized"),
    "W9-413": answer(b"{}", "413 Too Large"),
    "W9-507": answer(b"{}", "507 Full"),
    "W9-redirect": redirect("http://127.0.0.1:1/upload"),
    "W9-html": answer(b"<html>It works!</html>", Content_Type="text/html"),
    "W9-empty": answer(b""),
    "W9-closed": b"",
    "W9-no-http": b"220 ftp ready\r\n",
    "W9-cut-off": answer(b'{"url": "/i/0123', Content_Length=300),
    "W9-list": answer(b'["/i/0123456789abcdef.png"]'),
    "W9-no-url": answer(b'{"path": "/i/0123456789abcdef.png"}'),
    "W9-number": answer(b'{"url": 7}'),
    "W9-deep": answer(b"[" * 3000),
    "W9-elsewhere": says("http://evil.example/i/0123456789abcdef.png"),
    "W9-elsewhere-too": says("//evil.example/i/0123456789abcdef.png"),
    "W9-traversal": says("/i/../../etc/passwd"),
    "W9-newline": says("/i/0123456789abcdef.png\r\nX: y"),
    "W9-script": says("javascript:alert(1)"),
    "W9-long": answer(b'{"url": "/i/' + b"a" * 5000 + b'.png"}'),
    "W9-flood": flood(b"HTTP/1.1 200 OK\r\n\r\n"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_answer_is_no_url(case):
    with trap(read_body(WRONG[case])) as seen:
        began = time.monotonic()
        server = FileServer(seen.url(""), "https://files.example", lambda: "t")
        assert server.upload(PICTURE) is None
        assert time.monotonic() - began < 5
        assert seen.connections == 1


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_a_token_that_is_refused_is_named_in_the_log(caplog, status):
    with trap(read_body(answer(b"{}", status))) as seen:
        server = FileServer(seen.url(""), "https://files.example", lambda: "hidden")
        assert server.upload(PICTURE) is None
        with pytest.raises(Unavailable):
            server.recipe("0123456789abcdef.png")
    told = f"status {status[:3]}: FILE_SERVER"
    assert f"{told}_UPLOAD_TOKEN has to be its UPLOAD_TOKEN" in caplog.text
    assert f"{told}_TOKEN has to be its BEARER_TOKEN" in caplog.text
    assert "hidden" not in caplog.text


def test_the_longest_recipe_that_a_file_server_keeps_comes_whole():
    with trap(answer(b"x" * 500_000)) as seen:
        server = FileServer(seen.url(""), "https://files.example")
        assert server.recipe("0123456789abcdef.png") == b"x" * 500_000


def test_an_upload_may_be_called_created():
    with trap(read_body(answer(STORED, "201 Created"))) as seen:
        server = FileServer(seen.url(""), "https://files.example")
        assert server.upload(PICTURE) == "https://files.example/i/0123456789abcdef.png"


@pytest.mark.parametrize("how", ["W9-silent", "W9-drip", "W9-drip-headers"])
def test_a_slow_answer_is_given_up_in_time(how):
    def handle(seen, conn):
        if how == "W9-silent":
            time.sleep(3)
        if how == "W9-drip":
            seen.send(conn, b"HTTP/1.1 200 OK\r\n\r\n")
        if how == "W9-drip-headers":
            seen.send(conn, b"HTTP/1.1 200 OK\r\nX: ")
        drip(b"2" * 100)(seen, conn)

    with trap(handle) as seen:
        began = time.monotonic()
        server = FileServer(seen.url(""), "https://files.example", seconds=0.5)
        assert server.upload(PICTURE) is None
        assert time.monotonic() - began < 2


def test_a_slow_file_server_gets_no_more_pictures_than_there_is_time_for(monkeypatch):
    monkeypatch.setattr(pictures, "DELIVERY_SECONDS", 0.2)

    def handle(seen, conn):
        time.sleep(0.3)
        return GOOD

    made = [FinishedPicture(b"picture", "image/png", {})] * 3
    with trap(read_body(handle)) as seen:
        server = FileServer(seen.url(""), "https://files.example")
        context = SimpleNamespace(file_server=server)
        job = SimpleNamespace(traceparent=None)
        stored, headers = pictures.upload_pictures(context, job, made)
        assert seen.connections == 1
    url = "https://files.example/i/0123456789abcdef.png"
    assert [picture.url for picture in stored] == [url, None, None]
    assert [picture.data for picture in stored] == [b"picture"] * 3
    assert headers == {"X-Flux-Delivery": "fallback"}


def test_a_file_server_that_never_answers_takes_no_more_than_its_threads(monkeypatch):
    monkeypatch.setattr(own, "_PLACE_SECONDS", 0.1)
    release = threading.Event()

    def hang(seen, conn):
        release.wait(30)
        return GOOD

    with trap(read_body(hang)) as seen, ThreadPoolExecutor(24) as pool:
        server = FileServer(seen.url(""), "https://files.example")
        uploads = [pool.submit(server.upload, PICTURE) for _ in range(24)]
        wait_for(lambda: sum(one.done() for one in uploads) == 8, 20)
        wait_for(lambda: seen.connections == 16, 10)
        release.set()
        urls = [one.result() for one in uploads]
        assert len(list(filter(None, urls))) == 16
        # The places are free again.
        assert server.upload(PICTURE) is not None


@pytest.mark.parametrize("token", [None, "an-upload-token"])
def test_an_upload_carries_the_token_and_gives_the_public_url(token):
    with trap(read_body(GOOD)) as seen:
        server = FileServer(seen.url(""), "https://files.example/base", lambda: token)
        url = server.upload(PICTURE)
        assert url == "https://files.example/base/i/0123456789abcdef.png"
        assert seen.header("Authorization") == (f"Bearer {token}" if token else None)


@pytest.mark.parametrize("given", ["", "/", "/files", "/a/b/"])
def test_a_file_server_may_lie_below_a_path(given):
    """Under it are its uploads, the URLs of its pictures and what may be fetched."""
    path = given.rstrip("/")
    with trap(read_body(GOOD)) as seen:
        settings = Settings.from_env({"FILE_SERVER": seen.url(given)})
        url = file_server(settings).upload(PICTURE)
        assert seen.requests[0].startswith(f"POST {path}/upload HTTP/1.1\r\n")
        assert url == seen.url(f"{path}/i/0123456789abcdef.png")
    with trap() as seen:
        settings = Settings.from_env({"FILE_SERVER": seen.url(given)})
        fetcher = Fetcher(fetch_policy(settings))
        assert fetcher.fetch(seen.url(f"{path}/i/a.png")) == BODY
        with pytest.raises(ImageFetchFailed):
            fetcher.fetch(seen.url(f"{path}/x/i/a.png"))
        assert seen.connections == 1


def test_proxies_and_netrc_play_no_part(monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with trap() as proxy, trap(read_body(GOOD)) as seen:
        monkeypatch.setenv("HTTP_PROXY", proxy.url(""))
        monkeypatch.setenv("http_proxy", proxy.url(""))
        assert FileServer(seen.url(""), "https://files.example").upload(PICTURE)
        assert proxy.connections == 0
        assert seen.header("Authorization") is None


def assert_is_picture(data):
    """PNG bytes that decode."""
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.format == "PNG"


@pytest.mark.parametrize("case", ["W9-500", "W9-html", "W9-elsewhere", "W9-away"])
def test_both_apis_then_deliver_the_picture_itself(case):
    with trap(read_body(WRONG.get(case, b""))) as seen:
        base = f"http://127.0.0.1:{free_port()}" if case == "W9-away" else seen.url("")
        settings = {"FILE_SERVER": base, "FILE_SERVER_UPLOAD_TOKEN": "hidden-token"}
        with run_api(app="tests.support.fake_app:app", **settings) as server:
            server.wait_ready()
            values = {"prompt": "a cat", "num_inference_steps": 1}
            one = requests.post(f"{server.url}/process", data=values, timeout=30)
            assert one.status_code == 200
            assert one.headers["X-Flux-Delivery"] == "fallback"
            assert "result_image_url" not in one.json()
            assert_is_picture(one.json()["result_image_base64"])
            two = requests.post(
                f"{server.url}/v1/images/generations",
                json={"prompt": "a cat", "n": 2, "response_format": "url"},
                timeout=30,
            )
            assert two.status_code == 200
            assert two.headers["X-Flux-Delivery"] == "fallback"
            for item in two.json()["data"]:
                assert_is_picture(item["url"].removeprefix("data:image/png;base64,"))
            assert "upload to the file server failed" in server.output
            assert "hidden-token" not in server.output
            assert "Traceback" not in server.output
