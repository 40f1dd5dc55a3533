"""Weights that leave a card and come back: in which order, to where, or why not."""

from __future__ import annotations

import pytest

from tests.gpu.card_server import run_program

PROGRAM = """
from tests.gpu.simulated import switch_on
switch_on()
import torch
from flux_api.loading import host_copy, model_sets
from flux_api.loading.host_copy import HostCopy
from flux_api.loading.model_sets import ModelSets
from flux_api.loading.placement import Placement
from flux_api.models.catalog import MODEL_INFO

def fail(_):
    raise RuntimeError("a library fails\\nand says more")

sets = ModelSets(MODEL_INFO, lambda *_: Placement(torch.device("cuda")))
for room_to_pin in (True, False):
    if not room_to_pin:
        host_copy.free_host_bytes = lambda: 0
    vae = sets.use("tiny", str).load("generate", (), str).pipeline.vae
    convolutions = [m.weight for m in vae.modules() if isinstance(m, torch.nn.Conv2d)]
    print(all(w.is_cuda and w.is_contiguous() for w in convolutions))
    vae.is_loaded_in_8bit, room = True, model_sets.free_host_bytes
    print(sets.rest(), sets.rests)
    vae.is_loaded_in_8bit, model_sets.free_host_bytes = False, lambda: 0
    print(sets.rest(), sets.rests)
    model_sets.free_host_bytes, leave = room, HostCopy.leave
    HostCopy.leave = fail
    print(sets.rest(), sets.rests)
    HostCopy.leave = leave
    print(sets.rest() or "rests", sets.rest() or "still rests", sets.rests)
    waiting = {weight.untyped_storage().data_ptr() for weight in vae.parameters()}
    pinned = {weight.is_pinned() for weight in vae.parameters()}
    print(*pinned, len(waiting) == 1)
"""


@pytest.fixture(scope="module")
def told(card):
    """What the program prints of a sleep, the same each time but for the last line."""
    if card is None:
        pytest.skip("a real card does not run beside this one")
    lines = run_program(PROGRAM, card)
    assert lines[:5] == lines[6:11]
    return [*lines[:6], lines[11]]


def test_weights_of_a_vae_lie_as_diffusers_has_them(told):
    assert told[0] == "True"


def test_weights_that_wait_share_their_pinned_memory(told):
    """torch rounds each piece up to a power of two: by themselves they would take half
    as much again."""
    assert told[4:6] == ["rests still rests True", "True True"]


def test_what_others_would_miss_is_not_pinned(told):
    assert told[6] == "False False"


def test_what_keeps_weights_from_leaving_is_said(told):
    assert told[1] == "weights in 8 bits cannot be moved False"
    assert told[2] == "it has no room for them False"
    assert told[3] == "a library fails False"
