"""URLs of pictures over HTTP: neither API lends a stranger its place in the network."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

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


@pytest.fixture
def slow():
    """A server of pictures whose first header ends only once ``release`` is set."""
    release = threading.Event()

    def handle(seen, conn):
        status, _, rest = answer(make_png()).partition(b"\r\n")
        conn.sendall(status + b"\r\nX-Slow: ")
        with contextlib.suppress(OSError):
            while not release.wait(1):
                conn.sendall(b".")
        return b"\r\n" + rest

    with trap(handle) as seen:
        seen.release = release
        yield seen
        release.set()


@contextlib.contextmanager
def serve(**settings):
    """The API over a backend without torch; its fetches may reach this machine."""
    settings |= {"FLUX_ALLOW_PRIVATE_NETS": "127.0.0.0/8"}
    with run_api(app="tests.support.fake_app:app", **settings) as server:
        server.wait_ready()
        yield server


@pytest.mark.parametrize("path", APIS)
def test_a_fetch_holds_a_place_in_the_queue_and_not_the_model(path, slow):
    with serve(FLUX_MAX_QUEUE=2) as server, ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask, server, path, slow.url(), job_id="fetches-slowly")
        wait_for(lambda: slow.connections == 1, 10)
        state = requests.get(f"{server.url}/jobs/fetches-slowly", timeout=9).json()
        assert (state["state"], state["position"]) == ("queued", 0)
        quick = {"prompt": "a cat"}
        assert post_form(server, quick).status_code == 200
        other = pool.submit(ask, server, path, slow.url())
        wait_for(lambda: slow.connections == 2, 10)
        full = post_form(server, quick)
        assert full.status_code == 429
        assert 1 <= int(full.headers["Retry-After"]) <= 60
        slow.release.set()
        assert first.result().status_code == other.result().status_code == 200
        assert stats(server)["begun"] == 3


def test_who_waits_for_a_plan_with_its_key_gets_one_too(slow):
    values = {"prompt": "a cat", "input_image_url": slow.url(), "dry_run": True}

    def plan(server):
        headers = {"Idempotency-Key": "a-plan"}
        url = f"{server.url}/process"
        return requests.post(url, json=values, headers=headers, timeout=30)

    with serve() as server, ThreadPoolExecutor(2) as pool:
        first = pool.submit(plan, server)
        wait_for(lambda: slow.connections == 1, 10)
        other = pool.submit(plan, server)
        wait_for(lambda: stats(server)["queued"] == 2, 10)
        slow.release.set()
        for answer in (first.result(), other.result()):
            assert answer.json()["dry_run"] is True


def test_a_slow_file_servers_recipe_holds_a_place_too(slow):
    known = {"FILE_SERVER": slow.url(""), "FILE_SERVER_TOKEN": "a-token-of-it"}
    with serve(FLUX_MAX_QUEUE=2, **known) as server, ThreadPoolExecutor(2) as pool:
        form = {"recipe_of": "0123456789abcdef.png"}
        asked = [pool.submit(post_form, server, form) for _ in range(2)]
        wait_for(lambda: slow.connections == 2, 10)
        full = post_form(server, {"prompt": "a cat"})
        assert full.status_code == 429
        assert full.headers["Retry-After"]
        slow.release.set()
        # It gave a picture, which is no recipe.
        assert {one.result().status_code for one in asked} == {400}
        assert post_form(server, {"prompt": "a cat"}).status_code == 200


def test_one_caller_fetches_four_at_a_time_and_all_sixteen(slow):
    keys = {name: f"the-key-of-{name}" for name in "abcdef"}
    listed = ",".join(f"{name}:{key}" for name, key in keys.items())
    with serve(FLUX_API_KEYS=listed) as server, ThreadPoolExecutor(16) as pool:

        def fetch(name):
            return requests.post(
                f"{server.url}/v1/images/edits",
                json={"prompt": "x", "image": slow.url()},
                headers={"Authorization": f"Bearer {keys[name]}"},
                timeout=30,
            )

        waiting = [pool.submit(fetch, "a") for _ in range(4)]
        wait_for(lambda: slow.connections == 4, 10)
        mine = fetch("a")
        assert mine.status_code == 429
        assert mine.json()["error"]["code"] == "concurrency_limit_exceeded"
        waiting += [pool.submit(fetch, name) for name in "bbbbccccdddd"]
        wait_for(lambda: slow.connections == 16, 10)
        full = fetch("e")
        assert full.status_code == 503
        assert full.headers["Retry-After"]
        assert requests.get(f"{server.url}/healthz", timeout=2).status_code == 200
        slow.release.set()
        assert {one.result().status_code for one in waiting} == {200}
        assert fetch("e").status_code == 200


def test_a_fetch_ends_with_its_client_and_with_its_job(slow):
    with serve(FLUX_MAX_QUEUE=1) as server, ThreadPoolExecutor(1) as pool:
        with pytest.raises(requests.Timeout):
            requests.post(
                f"{server.url}/process",
                data={"prompt": "x", "input_image_url": slow.url()},
                timeout=1,
            )
        wait_for(lambda: post_form(server, {"prompt": "x"}).status_code == 200, 5)
        asked = pool.submit(ask, server, "/process", slow.url(), job_id="is-stopped")
        wait_for(lambda: slow.connections == 2, 10)
        requests.delete(f"{server.url}/jobs/is-stopped", timeout=9)
        assert asked.result().status_code == 499
        assert not slow.release.is_set()


def post_form(server, fields):
    """What ``POST /process`` answers to a form."""
    return requests.post(f"{server.url}/process", data=fields, timeout=30)


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
