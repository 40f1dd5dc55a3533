"""A GPU that is short of memory, shared or broken: told to callers, and outlived."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from flux_api.loading.footprint import footprint_of
from flux_api.loading.plan import RESERVE, Machine, plan_memory
from flux_api.models.catalog import MODEL_INFO
from flux_api.models.toml_file import load_models
from tests.engine.test_families import draw
from tests.gpu.card_server import run_on, worker
from tests.gpu.simulated import GIB, Card
from tests.support.servers import QUIET, ROOT, wait_for
from tests.support.tiny_sets import write_sets

KLEIN = "klein-4b"
# Long pictures that keep a card at work while an update starts.
MOST = 4
LOST = "CUDA error: an illegal memory access was encountered"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The MODEL_INFO file of two sets over tiny checkpoints."""
    return write_sets(tmp_path_factory.mktemp("sets"), (KLEIN, "schnell"), 256)


@pytest.fixture(scope="module")
def server(card, models):
    """Two sets, one in memory at a time; nothing is tried in tiles by itself."""
    if card is None:
        pytest.skip("a real GPU does not fail on command")
    settings = {"MODEL_INFO": models, "FLUX_MODELS": f"{KLEIN},schnell"}
    with run_on(card, **settings) as running:
        yield running.wait_ready()


def ask(server, name=KLEIN):
    """The answer to a request for a picture."""
    form = {"prompt": "a duck", "size": "64x64", "num_inference_steps": 2, "seed": 7}
    url = f"{server.url}/v1/images/generations"
    return requests.post(url, json=form | {"model": name}, timeout=60)


def code_of(answer):
    """Its status, and its error's code."""
    return answer.status_code, answer.json()["error"]["code"]


def test_a_picture_that_does_not_fit_leaves_nothing_behind(server, card):
    picture = draw(server, KLEIN, "generate")[1]
    held = worker(card)["used"]
    card.limit = held + 2**18
    answer = ask(server)
    assert answer.status_code == 507, answer.text
    assert "too large for the device's memory" in answer.json()["error"]["message"]
    assert worker(card)["used"] == held
    card.limit = 16 * GIB
    assert (draw(server, KLEIN, "generate")[1] == picture).all()


def test_what_another_program_holds_is_not_the_pictures_fault(server, card):
    held = worker(card)["used"]
    with card.held(card.limit - held - 2**18):
        answer = ask(server)
        assert answer.status_code == 503, answer.text
        assert "Other programs hold" in answer.json()["error"]["message"]
        assert answer.headers["Retry-After"]
    assert worker(card)["used"] == held
    assert ask(server).status_code == 200


def test_a_card_that_another_program_holds_is_said(server, card):
    held = card.limit - worker(card)["used"] - 2**18
    with card.held(held):
        assert ask(server).status_code == 503
        told = requests.get(f"{server.url}/v1/status", timeout=5).json()["memory"]
        assert told["used"] > held and told["total"] == card.limit
        # Not even CUDA's own memory is left for one more process.
        doctor = subprocess.run(
            [sys.executable, "-m", "tests.gpu", "flux_api", "doctor"],
            env=QUIET | {"SIMULATED_GPU_CARD": str(card.path)},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    assert doctor.returncode == 0, doctor.stderr
    assert "0.0 of 16.0 GiB free" in doctor.stdout
    assert "other programs hold 16.0 GiB" in doctor.stdout
    assert "the GPU has too little memory free" in doctor.stdout


def test_a_set_that_does_not_fit_makes_room_for_the_next(server, card):
    picture = draw(server, KLEIN, "generate")[1]
    card.limit = 2**18
    answer = ask(server, "schnell")
    assert answer.status_code == 503, answer.text
    # Neither the half that was loaded nor the set that went before.
    assert worker(card)["used"] < 2**12
    card.limit = 16 * GIB
    assert ask(server, "schnell").status_code == 200
    assert (draw(server, KLEIN, "generate")[1] == picture).all()


def test_a_lost_device_is_said_and_a_new_worker_draws(server, card):
    """The last test of this server, whose worker it ends."""
    picture = draw(server, KLEIN, "generate")[1]
    lost = worker(card)["pid"]
    card.set(lost, "lost", 1)
    answer = ask(server)
    assert answer.status_code == 503, answer.text
    assert answer.headers["Retry-After"]
    ready = requests.get(f"{server.url}/readyz", timeout=5)
    assert ready.status_code == 503
    assert LOST in ready.text and "restarting in 10 s" in ready.text
    assert f"restarting this worker in 10 s: {LOST}" in server.output
    wait_for(lambda: lost not in card.processes, 30, server)
    server.wait_ready()
    assert (draw(server, KLEIN, "generate")[1] == picture).all()


def test_a_device_that_fails_at_every_start_is_tried_less_and_less_often(
    card, tmp_path
):
    if card is None:
        pytest.skip("a real GPU does not fail on command")
    broken = Card(tmp_path / "card")
    broken.fail()
    with run_on(broken, FLUX_STEP_TIMEOUT=5) as server:
        for pause in ("5", "10"):
            said = f"restarting this worker in {pause} s: {LOST}"
            wait_for(lambda said=said: said in server.output, 60, server)
        ready = requests.get(f"{server.url}/readyz", timeout=5)
        assert f"{LOST}; restarting in 10 s" in ready.text


def test_an_update_is_never_held_worse_than_before(card, models, tmp_path):
    """Its worker comes while the old one holds the card and draws: it waits for the old
    one's end rather than be satisfied with less."""
    if card is None:
        pytest.skip("a real card is not filled to the last byte")
    footprint = footprint_of(load_models(models, MODEL_INFO)[KLEIN])
    plan = plan_memory(footprint, Machine(64 * GIB, 64 * GIB))
    assert (plan.quantization, plan.offload) == ("none", "none")
    small = Card(tmp_path / "card")
    # Enough for one, with less to spare than its weights.
    small.limit = plan.peak + RESERVE + footprint.total("none") // 2
    settings = {"MODEL_INFO": models, "FLUX_MODEL": KLEIN, "FLUX_MEMORY": "auto"}
    with run_on(small, **settings) as server, ThreadPoolExecutor(MOST) as pool:
        server.wait_ready()
        said = "quantization none, offload none"
        assert said in server.output
        before, picture = worker(small), draw(server, KLEIN, "generate")[1]
        at = len(server.output)
        taken = [pool.submit(draw_long, server) for _ in range(MOST)]
        wait_for(lambda: jobs(server) == MOST, 20, server)
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "waiting for the old" in server.output[at:], 300, server)
        pictures = [long.result() for long in taken]
        assert all((long == pictures[0]).all() for long in pictures)
        wait_for(lambda: before["pid"] not in small.processes, 60, server)
        server.wait_ready()
        plans = [line for line in server.output[at:].splitlines() if "memory:" in line]
        assert said in plans[-1]
        assert (draw(server, KLEIN, "generate")[1] == picture).all()
        assert worker(small)["used"] == before["used"]


def draw_long(server):
    """A picture of many steps."""
    return draw(server, KLEIN, "generate", num_inference_steps=200)[1]


def jobs(server):
    """How many run, and wait."""
    told = requests.get(f"{server.url}/v1/status", timeout=5).json()
    return told["running"] + told["waiting"]
