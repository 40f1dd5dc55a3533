"""URLs of pictures over HTTP: neither API lends a stranger its place in the network."""

from __future__ import annotations

import concurrent.futures
import threading

import pytest
import requests

from tests.support.pictures import make_png
from tests.support.servers import run_api, wait_for
from tests.support.trap_server import answer, redirect, trap
from tests.support.wire import stats

HOSTS = [
    *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "localhost"),
    *("0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "[::127.0.0.1]", "[2002:7f00:1::]"),
    *("127.0.0.1.", "\uff11\uff12\uff17.0.0.1", "127\u30020\u30020\u30021"),
]
APIS = ["/process", "/v1/images/edits"]


def ask(server, path, url, **more):
    """An edit of the picture at ``url``, as each API asks for it."""
    values = {"prompt": "a cat", "num_inference_steps": 1} | more
    if path == "/process":
        values["input_image_url"] = url
    else:
        values["images"] = [{"image_url": url}]
    return requests.post(server.url + path, json=values, timeout=30)


def assert_refused(answer, path, seen):
    """The one sentence there is for all failures, and nobody was called."""
    assert answer.status_code == 400
    error = answer.json()["error"]
    if path == "/process":
        assert error.startswith("cannot fetch input_image_url")
        assert error.endswith("private networks need FLUX_ALLOW_PRIVATE_NETS.")
    else:
        assert error["message"].startswith("cannot fetch image")
        assert error["code"] == "image_fetch_failed"
    assert seen.connections == 0
    assert str(seen.port) not in answer.text


@pytest.mark.parametrize("path", APIS)
@pytest.mark.parametrize("host", HOSTS, ids=lambda host: f"3-http-{host}")
def test_no_spelling_of_this_machine_is_called(fake, host, path):
    with trap() as seen:
        assert_refused(ask(fake, path, seen.url(host=host)), path, seen)
    good = requests.post(f"{fake.url}/process", data={"prompt": "a cat"}, timeout=30)
    assert good.status_code == 200
    assert seen.connections == 0


@pytest.mark.parametrize("path", APIS)
def test_the_own_file_server_opens_pictures_only_and_no_way_on(path):
    with trap() as inside:
        with trap(redirect(inside.url("/secret"))) as files:
            settings = {"FILE_SERVER": files.url("")}
            with run_api(app="tests.support.fake_app:app", **settings) as server:
                server.wait_ready()
                ask(server, path, files.url("/i/0123.png"))
                assert files.connections == 1
                files.connections = 0
                for target in ("/upload", "/healthz", "/latest", "/i/../latest"):
                    assert_refused(ask(server, path, files.url(target)), path, files)
        assert inside.connections == 0


@pytest.mark.parametrize("path", APIS)
def test_a_slow_fetch_keeps_nobody_from_the_model(path):
    fetched = threading.Event()

    def slow(seen, conn):
        fetched.wait(30)
        return answer(make_png())

    with trap(slow) as seen:
        settings = {"FLUX_ALLOW_PRIVATE_NETS": "127.0.0.0/8", "FLUX_MAX_QUEUE": 1}
        with run_api(app="tests.support.fake_app:app", **settings) as server:
            server.wait_ready()
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                slow_ones = [
                    pool.submit(ask, server, path, seen.url()) for _ in range(4)
                ]
                wait_for(lambda: seen.connections == 4, 10)
                quick = requests.post(
                    f"{server.url}/process", data={"prompt": "a cat"}, timeout=30
                )
                assert quick.status_code == 200
                assert stats(server)["begun"] == 1
                fetched.set()
                answers = [one.result() for one in slow_ones]
            # The queue of one fills up only now.
            assert {a.status_code for a in answers} <= {200, 429}
            assert 200 in {a.status_code for a in answers}


def test_the_token_goes_to_its_host_and_into_no_answer_or_log():
    with trap(answer(make_png())) as seen:
        settings = {"FLUX_ALLOW_PRIVATE_URLS": 1}
        with run_api(app="tests.support.fake_app:app", **settings) as server:
            server.wait_ready()
            done = ask(
                server, "/process", seen.url("/a?sig=hidden"), bearer_token="t0k"
            )
            assert done.status_code == 200
            assert seen.header("Authorization") == "Bearer t0k"
            refused = ask(server, "/process", "http://[", bearer_token="t0k")
            assert refused.status_code == 400
            for text in (done.text, refused.text, server.output):
                assert "t0k" not in text
                assert "hidden" not in text
