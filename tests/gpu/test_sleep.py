"""Weights that leave the card for the host's memory, or altogether, and come back."""

from __future__ import annotations

import pytest
import requests

from tests.gpu.card_server import run_on, worker
from tests.support.scrape import scrape
from tests.support.wire import post

ADMIN = {"Authorization": "Bearer sk-key-of-the-operator"}
SETTINGS = {"FLUX_ADMIN_KEYS": "operator:sk-key-of-the-operator"}
BODY = {"prompt": "a red heart", "seed": 7, "num_inference_steps": 2}
MOST_LEFT = 1 << 18


@pytest.fixture(scope="module")
def server(card, tmp_path_factory):
    """The embedded model on the card, under a second name too, with an operator."""
    sets = tmp_path_factory.mktemp("sets") / "sets.toml"
    sets.write_text('[second]\nlike = "tiny"\n')
    both = {"MODEL_INFO": sets, "FLUX_MAX_LOADED": 2}
    with run_on(card, **SETTINGS, **both) as running:
        yield running.wait_ready()


def order(server, what):
    answer = requests.post(f"{server.url}/admin/{what}", headers=ADMIN, timeout=60)
    return answer.status_code, answer.json()


def draw(server, **more):
    answer = post(server, "/process/raw", json=BODY | more)
    assert answer.status_code == 200, answer.text
    return answer.content


def loaded(server):
    """How many sets have been loaded."""
    return scrape(server.url)['flux_cache_misses_total{cache="models"}']


def told(server):
    """Where the weights are, by each who says so."""
    ready = requests.get(f"{server.url}/readyz", timeout=10).json()
    status = requests.get(f"{server.url}/v1/status", timeout=10).json()
    numbers = scrape(server.url)
    assert bool(numbers["flux_asleep"]) == status["asleep"] == ("asleep" in ready)
    assert ready.get("weights", "device") == status["weights"]
    assert numbers["flux_asleep_in_host"] == (status["weights"] == "host")
    return status["weights"]


@pytest.mark.parametrize(
    ("how", "kept"),
    [("", "host"), ("?weights=host", "host"), ("?weights=dropped", "dropped")],
)
def test_the_card_is_empty_and_the_same_picture_comes_after(
    server, simulated, how, kept
):
    assert "tiny on cuda" in server.output
    first, before = draw(server), worker(simulated)
    # The weights of the embedded model, in bfloat16.
    assert before["used"] > 2**20
    count = loaded(server)
    assert order(server, f"sleep{how}") == (200, {"asleep": True, "weights": kept})
    assert worker(simulated)["used"] < MOST_LEFT
    assert told(server) == kept
    # Once more it is asleep all the same.
    assert order(server, "sleep") == (200, {"asleep": True, "weights": kept})
    assert draw(server) == first
    assert told(server) == "device"
    # From the host's memory nothing is loaded.
    assert loaded(server) == count + (kept == "dropped")


def test_woken_by_hand_it_is_on_the_card(server, simulated):
    first = draw(server)
    used = worker(simulated)["used"]
    order(server, "sleep")
    assert order(server, "wake") == (200, {"asleep": False, "weights": "device"})
    assert abs(worker(simulated)["used"] - used) < MOST_LEFT
    assert draw(server) == first


def test_what_waits_in_the_host_can_be_dropped_too(server):
    order(server, "sleep?weights=host")
    assert order(server, "sleep?weights=dropped")[1]["weights"] == "dropped"
    # There is nothing left to keep.
    status, answer = order(server, "sleep?weights=host")
    assert status == 400
    assert "no weights are on a GPU" in str(answer)
    draw(server)


def test_a_card_that_others_have_filled_meanwhile_is_503_and_loses_nothing(
    server, simulated
):
    first = draw(server)
    order(server, "sleep?weights=host")
    limit, simulated.limit = simulated.limit, simulated.used + 4096
    try:
        assert post(server, "/process/raw", json=BODY).status_code == 503
        assert told(server) == "host"
    finally:
        simulated.limit = limit
    count = loaded(server)
    assert draw(server) == first
    assert loaded(server) == count


def test_a_set_that_still_waits_when_the_card_is_emptied_again_is_whole(server):
    first = {name: draw(server, model=name) for name in ("second", "tiny")}
    order(server, "sleep")
    draw(server, model="tiny")
    assert order(server, "sleep")[1]["weights"] == "host"
    count = loaded(server)
    for name, picture in first.items():
        assert draw(server, model=name) == picture
    assert loaded(server) == count


def test_a_form_says_how_too(server):
    answer = requests.post(
        f"{server.url}/admin/sleep", {"weights": "dropped"}, headers=ADMIN, timeout=60
    )
    assert answer.json()["weights"] == "dropped"
    draw(server)


def test_an_unknown_way_is_named(server):
    status, answer = order(server, "sleep?weights=disk")
    assert status == 400
    assert "'disk'" in answer["error"]
