"""A VAE's weights on a card lie as its convolutions read them, after a sleep too."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.servers import QUIET, ROOT

PROGRAM = """
from tests.gpu.simulated import switch_on
switch_on()
import torch
from flux_api.loading.model_sets import ModelSets
from flux_api.loading.placement import Placement
from flux_api.models.catalog import MODEL_INFO

sets = ModelSets(MODEL_INFO, lambda *_: Placement(torch.device("cuda")))
for _ in range(2):
    vae = sets.use("tiny", str).load("generate", (), str).pipeline.vae
    convolutions = [m.weight for m in vae.modules() if isinstance(m, torch.nn.Conv2d)]
    order = torch.channels_last
    print(all(w.is_cuda and w.is_contiguous(memory_format=order) for w in convolutions))
    print(sets.rest() or "rests")
    waiting = {weight.untyped_storage().data_ptr() for weight in vae.parameters()}
    print(all(weight.is_pinned() for weight in vae.parameters()), len(waiting))
"""


@pytest.fixture(scope="module")
def told(card):
    """What the program prints, the same each time."""
    if card is None:
        pytest.skip("a real card does not run beside this one")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=QUIET | {"SIMULATED_GPU_CARD": str(card.path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    lines = done.stdout.splitlines()
    assert lines[:3] == lines[3:]
    return lines[:3]


def test_channels_come_last(told):
    assert told[0] == "True"


def test_weights_that_wait_share_their_pinned_memory(told):
    """torch rounds each piece up to a power of two: by themselves they would take half
    as much again."""
    assert told[1:] == ["rests", "True 1"]
