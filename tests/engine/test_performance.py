"""FLUX_PERFORMANCE over HTTP: what makes the pictures, and that each answer says so."""

from __future__ import annotations

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import requests
from PIL import Image

from tests.support.servers import run_api

HEART = {"prompt": "a red heart", "seed": 7}


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """The state folder of ``fast``."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def fast(state):
    """A server over the embedded model that is told to be fast, without a compiler:
    with one its start takes half a minute of CPU, see test_tuning.py."""
    with pytest.MonkeyPatch.context() as patch:
        # torch sets it in a process that has compiled.
        patch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
        settings = {"FLUX_PERFORMANCE": "speed", "FLUX_STATE_DIR": state}
        with run_api(**settings, CXX="/no/such/compiler") as server:
            yield server.wait_ready()


def pixels(data):
    """A file's picture as an array."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def raw(server, **fields):
    """The answer of /process/raw."""
    answer = requests.post(f"{server.url}/process/raw", data=fields, timeout=120)
    assert answer.status_code == 200, answer.text
    return answer


def completed_event(server):
    """The last event of a stream."""
    url = f"{server.url}/v1/images/generations"
    answer = requests.post(url, json=HEART | {"stream": True}, timeout=120)
    lines = [line for line in answer.text.splitlines() if line.startswith("data: {")]
    return json.loads(lines[-1].removeprefix("data: "))


@pytest.mark.parametrize(("kind", "word"), [("api", "exact"), ("fast", "speed")])
def test_every_answer_says_what_made_its_picture(kind, word, request):
    server = request.getfixturevalue(kind)
    generations = f"{server.url}/v1/images/generations"
    told = requests.post(f"{server.url}/process", data=HEART, timeout=120)
    assert told.json()["performance"] == word
    for answer in (
        told,
        raw(server, **HEART),
        requests.post(generations, json=HEART, timeout=120),
        requests.get(
            f"{server.url}/jobs/{told.headers['X-Job-Id']}/result", timeout=10
        ),
    ):
        assert answer.headers["X-Flux-Performance"] == word
    assert completed_event(server)["performance"] == word
    ready = requests.get(f"{server.url}/readyz", timeout=10).json()
    assert ready["performance"] == word


def test_exact_pictures_are_those_that_speed_makes_up_to_rounding(api, fast):
    exact, other = (pixels(raw(server, **HEART).content) for server in (api, fast))
    assert np.abs(exact - other).max() <= 1


def test_pictures_of_several_callers_share_forwards(fast):
    def forwards():
        text = requests.get(f"{fast.url}/metrics", timeout=10).text
        numbers = {
            name: float(line.rpartition(" ")[2])
            for line in text.splitlines()
            for name in ("sum", "count")
            if line.startswith(f"flux_batch_size_{name}")
        }
        return np.array([numbers["sum"], numbers["count"]])

    before = forwards()
    with ThreadPoolExecutor(6) as pool:
        answers = list(
            pool.map(lambda seed: raw(fast, prompt="a cat", seed=seed), range(6))
        )
    pictures, run = forwards() - before
    assert run < pictures
    alone = raw(fast, prompt="a cat", seed=5)
    apart = np.abs(pixels(answers[5].content) - pixels(alone.content)).max()
    assert apart <= 1


def test_json_carries_the_same_picture_as_the_raw_file(fast):
    told = requests.post(f"{fast.url}/process", data=HEART, timeout=120).json()
    data = base64.b64decode(told["result_image_base64"])
    assert (pixels(data) == pixels(raw(fast, **HEART).content)).all()


def test_without_a_compiler_it_says_so_and_shares_all_the_same(fast, state):
    ready = requests.get(f"{fast.url}/readyz", timeout=10).json()
    assert ready["performance"] == "speed"
    assert ready["performance_note"].startswith("nothing compiles here (")
    assert str(state) not in ready["performance_note"]
    assert "blocks stay plain" in fast.output
    # Tried again at the next start, when there may be one.
    assert not (state / "verdicts.json").exists()
    assert (state / "compiled").is_dir(), "where compilers work"
