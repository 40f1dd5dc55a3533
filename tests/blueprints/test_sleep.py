"""Weights that leave the memory on request or unused, and come back by themselves."""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import replace

import pytest
import requests

from flux_api.models.catalog import MODEL_INFO
from tests.support.fake_app import make_app
from tests.support.scrape import scrape
from tests.support.servers import run_api, wait_for
from tests.support.wire import begin, generate, post, release, seen, stats

FAKE = "tests.support.fake_app:app"
ADMIN = {"Authorization": "Bearer sk-key-of-the-operator"}
SETTINGS = {"FLUX_ADMIN_KEYS": "operator:sk-key-of-the-operator"}


@pytest.fixture(scope="module")
def server():
    """The scripted backend with an operator."""
    with run_api(app=FAKE, **SETTINGS) as running:
        yield running.wait_ready()


def admin(server, what, headers=ADMIN):
    """The answer to one of the operator's orders."""
    return requests.post(f"{server.url}/admin/{what}", headers=headers, timeout=60)


def told(server):
    """Whether it is asleep, by each who says so."""
    ready = requests.get(f"{server.url}/readyz", timeout=10)
    assert ready.status_code == 200  # Requests are taken.
    status = requests.get(f"{server.url}/v1/status", timeout=10).json()
    numbers = scrape(server.url)
    # Only in the host's memory they are soon back.
    assert numbers["flux_asleep_in_host"] == (status["weights"] == "host")
    asleep = bool(numbers["flux_asleep"])
    return ready.json().get("asleep", False), status["asleep"], asleep


def test_it_sleeps_and_the_next_request_wakes_it(server):
    assert told(server) == (False,) * 3
    assert admin(server, "sleep").json() == {"asleep": True, "weights": "host"}
    assert told(server) == (True,) * 3
    assert generate(server).status_code == 200
    assert told(server) == (False,) * 3


def test_how_is_read_wherever_it_stands(server):
    for how in ("params", "data", "json"):
        sent = {how: {"weights": "dropped"}}
        url = f"{server.url}/admin/sleep"
        answer = requests.post(url, headers=ADMIN, timeout=60, **sent)
        assert answer.json() == {"asleep": True, "weights": "dropped"}
        assert told(server) == (True,) * 3
        sent = {how: {"weights": "nowhere"}}
        answer = requests.post(url, headers=ADMIN, timeout=60, **sent)
        assert (answer.status_code, "weights" in answer.text) == (400, True)
        sent = {how: {"weight": "dropped"}}
        answer = requests.post(url, headers=ADMIN, timeout=60, **sent)
        assert (answer.status_code, "did you mean" in answer.text) == (400, True)
        admin(server, "wake")


def test_it_is_woken_by_hand(server):
    admin(server, "sleep")
    before = stats(server)["begun"]
    assert admin(server, "wake").json() == {"asleep": False, "weights": "device"}
    assert told(server) == (False,) * 3
    assert stats(server)["begun"] == before + 1
    # As little as can be drawn.
    drawn = seen(server)
    assert (drawn["size"], drawn["num_inference_steps"]) == ([64, 64], 1)
    # Awake already, nothing is drawn.
    assert admin(server, "wake").json() == {"asleep": False, "weights": "device"}
    assert stats(server)["begun"] == before + 1


@pytest.fixture(scope="module")
def own():
    """The API in this process, over the scripted backend, with an operator."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLUX_ADMIN_KEYS", SETTINGS["FLUX_ADMIN_KEYS"])
        app = make_app()
    client = app.test_client()
    client.post("/admin/wake", headers=ADMIN)
    wait_for(lambda: client.get("/readyz").status_code == 200, 10)
    return client


@pytest.mark.parametrize(
    ("task", "mode", "pictures", "mask"),
    [
        ("generate", "generate", [], None),
        ("edit", "edit", [[64, 64]], None),
        ("variation", "variation", [[64, 64]], None),
        ("inpaint", "edit", [[64, 64]], [255, 255]),
    ],
)
def test_a_model_of_any_one_task_can_be_woken(own, task, mode, pictures, mask):
    app = own.application
    context = app.extensions["flux_api"]
    tiny = MODEL_INFO["tiny"]
    single = {"tiny": replace(tiny, tasks={task: tiny.tasks[task]})}
    app.extensions["flux_api"] = replace(context, models=single)
    own.post("/admin/sleep", headers=ADMIN)
    answer = own.post("/admin/wake", headers=ADMIN)
    assert answer.json == {"asleep": False, "weights": "device"}
    drawn = own.get("/fake/stats").json["requests"][-1]
    assert [drawn[name] for name in ("mode", "images", "mask")] == [
        *(mode, pictures, mask)
    ]


def test_nothing_leaves_while_somebody_needs_it(server):
    with closing(begin(server, {"prompt": "hold"})) as held:
        wait_for(lambda: stats(server)["running"] == 1, 10)
        answer = admin(server, "sleep")
        assert (answer.status_code, answer.headers["Retry-After"]) == (409, "5")
        assert "worked on" in answer.json()["error"]
        release(server)
        assert held.getresponse().status == 200
    assert told(server) == (False,) * 3


def test_orders_under_load_lose_nothing(server):
    answers, orders = [], []

    def load():
        for seed in range(15):
            answers.append(generate(server, seed=seed).status_code)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        orders.append(admin(server, "sleep").status_code)
        orders.append(admin(server, "wake").status_code)
    for thread in threads:
        thread.join()
    assert answers == [200] * 60
    assert set(orders) <= {200, 409}


def test_others_have_no_say(server, fake):
    for headers in ({}, {"Authorization": "Bearer sk-key-of-nobody"}):
        assert admin(server, "sleep", headers).status_code == 401
    # Without keys for it there is nothing at that address.
    for what in ("sleep", "wake"):
        assert admin(fake, what).status_code == 404
    paths = requests.get(f"{fake.url}/openapi.json", timeout=10).json()["paths"]
    assert "/admin/sleep" not in paths
    paths = requests.get(f"{server.url}/openapi.json", timeout=10).json()["paths"]
    assert "409" in paths["/admin/sleep"]["post"]["responses"]


def test_an_api_key_is_none_of_the_operators():
    settings = SETTINGS | {"FLUX_API_KEYS": "alice:sk-key-of-alice"}
    with run_api(app=FAKE, **settings) as server:
        server.wait_ready()
        alice = {"Authorization": "Bearer sk-key-of-alice"}
        assert admin(server, "sleep", alice).status_code == 401
        assert admin(server, "sleep").status_code == 200
        body = {"prompt": "x", "size": "64x64"}
        answer = post(server, "/process", json=body, headers=ADMIN)
        assert answer.status_code == 401


def test_unused_it_falls_asleep():
    with run_api(app=FAKE, FLUX_IDLE_UNLOAD=0.01) as server:
        server.wait_ready()

        def asleep():
            return requests.get(f"{server.url}/v1/status", timeout=5).json()["asleep"]

        wait_for(asleep, 20, server)
        assert generate(server).status_code == 200
        wait_for(asleep, 20, server)
        assert stats(server)["sleeps"] >= 2


def test_the_same_picture_comes_from_weights_that_were_away():
    with run_api(**SETTINGS) as server:
        server.wait_ready()
        body = {"prompt": "a red heart", "seed": 7, "num_inference_steps": 2}

        def drawn():
            answer = post(server, "/process/raw", json=body)
            assert answer.status_code == 200
            return answer.content

        def loaded():
            return scrape(server.url)['flux_cache_misses_total{cache="models"}']

        first, before = drawn(), loaded()
        assert admin(server, "sleep").json() == {"asleep": True, "weights": "dropped"}
        assert drawn() == first
        assert loaded() == before + 1
        assert admin(server, "sleep").json() == {"asleep": True, "weights": "dropped"}
        assert admin(server, "wake").json() == {"asleep": False, "weights": "device"}
        assert drawn() == first
        # The host's memory is where they are.
        kept = admin(server, "sleep?weights=host")
        assert kept.status_code == 400
        assert "no weights are on a GPU" in kept.json()["error"]
