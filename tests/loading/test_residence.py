"""Which checkpoints of a set stay, wait and go, the least recently used first."""

from __future__ import annotations

import pytest
import torch

from flux_api.loading.placement import Placement
from flux_api.loading.residence import Residence
from flux_api.models.sources import Folder

CPU = torch.device("cpu")
ONE, TWO, THREE, FOUR = map(Folder, ("one", "two", "three", "four"))


def parts():
    """A checkpoint's components: one of its own, one that all have, and no weights."""
    return {
        "transformer": torch.nn.Linear(2, 2),
        "vae": torch.nn.Linear(2, 2),
        "tokenizer": object(),
    }


def visit(residence, *sources):
    """What is to be dropped as each of ``sources`` is used in turn."""
    dropped = []
    for source in sources:
        dropped.append(residence.make_room(source))
        residence.enter(source, parts())
    return dropped


@pytest.mark.parametrize(
    ("resident", "copies", "dropped"),
    [
        (None, None, [[], [], [], []]),
        # Those that leave the device wait, without end.
        (2, None, [[], [], [], []]),
        # None of them waits.
        (2, 0, [[], [], [ONE], [TWO]]),
        (3, 0, [[], [], [], [ONE]]),
        # The first to leave has the place of the one that waits.
        (1, 1, [[], [], [TWO], [THREE]]),
    ],
)
def test_those_that_were_used_last_stay(resident, copies, dropped):
    placement = Placement(CPU, resident=resident, copies=copies)
    residence = Residence(placement, ("vae",))
    assert visit(residence, ONE, TWO, THREE, FOUR) == dropped


def test_the_one_in_use_and_those_just_used_are_kept():
    residence = Residence(Placement(CPU, resident=2, copies=0), ())
    assert visit(residence, ONE, TWO, ONE, TWO, ONE, THREE)[-1] == [TWO]


@pytest.mark.parametrize(("copies", "dropped"), [(2, [TWO]), (None, [])])
def test_where_parts_move_by_themselves_all_are_in_the_hosts_memory(copies, dropped):
    """``resident`` says nothing of them."""
    placement = Placement(CPU, offload="model", resident=1, copies=copies)
    residence = Residence(placement, ())
    assert visit(residence, ONE, TWO, ONE, THREE)[-1] == dropped


def test_what_all_have_in_common_is_that_of_the_last_one():
    residence = Residence(Placement(CPU), ("vae", "tokenizer"))
    assert residence.common == {}
    last = parts()
    visit(residence, ONE)
    residence.enter(TWO, last)
    assert residence.common == {name: last[name] for name in ("vae", "tokenizer")}
