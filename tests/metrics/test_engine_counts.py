"""What a real model's pictures move, step by step and forward by forward."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.support.scrape import moved, scrape
from tests.support.servers import run_api

STEPS = 12
# ``tiny`` looks at each step twice: with the prompt and without it.
FORWARDS = 2 * STEPS
STAGES = ("load", "encode", "denoise", "decode", "encode_file")


@pytest.fixture(scope="module")
def server():
    """``tiny``, where pictures share forwards."""
    with run_api(FLUX_BATCH_TOKENS=100_000) as running:
        yield running.wait_ready()


def draw(server, seed):
    form = {"prompt": "a cat", "seed": seed, "num_inference_steps": STEPS}
    return requests.post(f"{server.url}/process/raw", data=form, timeout=120)


def test_every_stage_step_and_forward_is_counted(server):
    before = scrape(server.url)
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda seed: draw(server, seed), range(3)))
    assert [answer.status_code for answer in answers] == [200] * 3
    changes = moved(before, scrape(server.url))
    for stage in STAGES:
        assert changes[f'flux_stage_seconds_count{{stage="{stage}"}}'] == 3
    assert changes["flux_denoise_step_seconds_count"] == 3 * STEPS
    # Each picture is in all of its forwards; as they are shared, those are fewer.
    assert changes["flux_batch_size_sum"] == 3 * FORWARDS
    assert FORWARDS <= changes["flux_batch_size_count"] < 3 * FORWARDS
    assert changes["flux_images_total"] == 3
    assert changes['flux_cache_hits_total{cache="models"}'] == 3


def test_steps_take_the_time_of_denoising(server):
    before = scrape(server.url)
    draw(server, 7)
    after = scrape(server.url)

    def spent(name):
        return after[name] - before[name]

    steps = spent("flux_denoise_step_seconds_sum")
    denoise = spent('flux_stage_seconds_sum{stage="denoise"}')
    # What is left is what a pipeline does before its first step and after its last.
    assert 0.5 * denoise < steps <= denoise
    run = spent("flux_request_latency_seconds_sum")
    stages = sum(
        spent(f'flux_stage_seconds_sum{{stage="{stage}"}}') for stage in STAGES
    )
    assert denoise < stages < run


def test_before_the_first_request_everything_is_there(server):
    numbers = scrape(server.url)
    assert numbers["flux_model_ready"] == 1
    assert numbers['flux_cache_misses_total{cache="models"}'] == 1
    for stage in ("upload", "fetch"):
        assert numbers[f'flux_stage_seconds_count{{stage="{stage}"}}'] == 0
