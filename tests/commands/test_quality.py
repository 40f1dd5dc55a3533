"""``flux-api quality``: what it measures, what it keeps, and who heeds it."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import requests

from flux_api.core import Performance
from flux_api.engine.quality import MOST_PSNR, Quality, psnr, ssim
from tests.commands.program import run
from tests.support.servers import run_api

# Compiling tiny takes half a minute of CPU; that is in tests/engine/test_tuning.py.
PLAIN = {"CXX": "/no/such/compiler"}
ROW = re.compile(
    r"^(speed|max) +([\d.]+) +([\d.]+) +([\d.]+)  (good|not used: .*)$", re.M
)


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """The state folder."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def measured(state):
    """What the command said of tiny."""
    return run(state, "quality", FLUX_STATE_DIR=state, **PLAIN)


def test_it_draws_eight_pictures_each_way_and_compares_them(measured):
    found = {row[0]: row for row in ROW.findall(measured.stdout.decode())}
    assert set(found) == {"speed", "max"}, measured.stderr.decode()
    # Without a compiler and one picture at a time nothing is rounded otherwise.
    assert float(found["speed"][1]) == MOST_PSNR
    assert all(0 < float(row[2]) <= 1 for row in found.values())
    # Nor does max leave out steps of so few: it is refused, which is no fault.
    assert found["max"][4] == "not used: it changes nothing here"
    # The clock may say more of the machine than of the setting.
    good = found["speed"][4] == "good"
    assert good or found["speed"][4] == "not used: it is slower than exact"
    assert measured.returncode == (0 if good else 1)


def test_a_server_does_not_use_what_failed_and_says_so(measured, state):
    file = state / "verdicts.json"
    verdicts = json.loads(file.read_text())
    for level, refusal in (("max", "it is too far"), ("speed", "")):
        [key] = [key for key in verdicts if key.startswith(f"{level} of tiny (")]
        verdicts[key] = {"refusal": refusal, "found": "PSNR 12.0 dB"}
    file.write_text(json.dumps(verdicts))
    settings = {"FLUX_PERFORMANCE": "max", "FLUX_STATE_DIR": state}
    with run_api(**settings, **PLAIN) as server:
        server.wait_ready()
        ready = requests.get(f"{server.url}/readyz", timeout=10).json()
        form = {"prompt": "a red heart"}
        answer = requests.post(f"{server.url}/process/raw", data=form, timeout=60)
        output = server.output
    assert ready["performance"] == answer.headers["X-Flux-Performance"] == "speed"
    reason = "max is not used for tiny: it is too far (PSNR 12.0 dB)"
    assert reason in ready["performance_note"]
    assert reason in output


@pytest.mark.parametrize(
    ("level", "near", "passes"),
    [
        ("speed", (35.0, 0.98), True),
        ("speed", (34.9, 0.99), False),
        ("speed", (40.0, 0.97), False),
        ("max", (20.0, 0.80), True),
        ("max", (19.9, 0.99), False),
    ],
)
def test_what_is_good_enough(level: Performance, near, passes):
    quicker = Quality(*near, exact_seconds=1.0, seconds=0.5)
    assert (not quicker.refusal(level)) is passes
    assert Quality(*near, exact_seconds=1.0, seconds=2.0).refusal(level)


def test_psnr_and_ssim_are_those_of_the_literature():
    rng = np.random.default_rng(1)
    one = rng.integers(0, 256, (48, 40, 3), dtype=np.uint8)
    assert psnr(one, one) == MOST_PSNR
    assert ssim(one, one) == pytest.approx(1)
    grey, lighter = (np.full((48, 40, 3), v, np.uint8) for v in (100, 110))
    # 10 off everywhere is a mean squared error of 100; without structure SSIM is its
    # first factor alone, (2ab + C1) / (a^2 + b^2 + C1).
    assert psnr(grey, lighter) == pytest.approx(10 * np.log10(255**2 / 100))
    c1 = (0.01 * 255) ** 2
    wanted = (2 * 100 * 110 + c1) / (100**2 + 110**2 + c1)
    assert ssim(grey, lighter) == pytest.approx(wanted)
    # The negative has the opposite structure.
    assert ssim(one, 255 - one) < 0


def test_a_set_that_cannot_be_loaded_is_said_in_one_line(tmp_path):
    done = run(tmp_path, "quality", "--model", "klein-4b", FLUX_STATE_DIR=tmp_path)
    assert done.returncode == 1
    [line] = done.stderr.decode().splitlines()
    assert line.startswith("flux-api: ")
