"""Which way of holding a set is chosen for a card, and what it is expected to take."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from flux_api.loading import memory
from flux_api.loading.activations import Working
from flux_api.loading.file_weights import Weights
from flux_api.loading.footprint import GIB, Footprint, footprint_of
from flux_api.loading.memory import choose_placement, look_at_machine
from flux_api.loading.placement import go_together
from flux_api.loading.plan import PREFERENCE, RESERVE, Machine, plan_memory
from flux_api.models.catalog import MODEL_INFO
from flux_api.models.sources import Folder, Repository
from flux_api.settings import Settings

# What a driver leaves of a card that is sold with so many GB.
USABLE = 0.96
CARDS = (8, 12, 16, 24, 32, 48, 80, 141)
# By set: quantization, offload and how many of its checkpoints stay on the card, "all"
# for all, with 64 GB of RAM; "-" does not fit.
PLANS = {
    "klein-4b": (
        *("nf4 text all", "none text all", "none text all", "none none all"),
        *("none none all", "none none all", "none none all", "none none all"),
    ),
    "klein-9b": (
        *("nf4 model all", "nf4 text all", "nf4 text all", "none text all"),
        *("none text all", "none none all", "none none all", "none none all"),
    ),
    "flux1": (
        *("none group all", "nf4 text 1", "nf4 none 1", "nf4 text all"),
        *("none text 1", "none none 1", "none text all", "none none all"),
    ),
    "schnell": (
        *("none group all", "nf4 text all", "nf4 none all", "nf4 none all"),
        *("none text all", "none none all", "none none all", "none none all"),
    ),
    "flux2-dev": (
        *("-", "-", "-", "nf4 text all"),
        *("nf4 text all", "nf4 none all", "nf4 none all", "none none all"),
    ),
    "flux3-klein": (
        *("-", "nf4 model all", "nf4 model all", "none model all"),
        *("none model all", "none none all", "none none all", "none none all"),
    ),
    "flux3-klein-direct": (
        *("nf4 model all", "nf4 none all", "none model all", "none none all"),
        *("none none all", "none none all", "none none all", "none none all"),
    ),
}


def card(gigabytes, ram=64, **more):
    """A card that is sold with so many GB, all free, beside so much RAM."""
    free = int(gigabytes * USABLE * GIB)
    return Machine(free, int(ram * 0.95 * GIB), "A Card", **more)


def plan(name, machine, **chosen):
    """The plan for the set ``name``."""
    return plan_memory(footprint_of(MODEL_INFO[name]), machine, **chosen)


@pytest.mark.parametrize("name", PLANS)
def test_each_card_gets_the_best_that_fits_it(name):
    found = []
    for size in CARDS:
        made = plan(name, card(size))
        words = f"{made.quantization} {made.offload} {made.resident or 'all'}"
        found.append(words if made.fits else "-")
        if made.fits:
            assert made.peak + RESERVE <= size * USABLE * GIB
            assert made.host <= 64 * 0.95 * GIB
            assert go_together(made.quantization, made.offload)
    assert found == list(PLANS[name])


def test_tiny_fits_any_card():
    assert plan("tiny", card(2)).offload == "none"


def test_a_larger_card_never_gets_a_worse_way():
    order = list(PREFERENCE)
    for name in PLANS:
        ranks = []
        for size in range(6, 142, 5):
            made = plan(name, card(size, ram=512))
            if made.fits:
                ranks.append(order.index((made.quantization, made.offload)))
        # FLUX.1 takes fewer checkpoints whole before it takes all of them in pieces.
        kinds = [order[rank][0] for rank in ranks]
        last = {kind: index for index, kind in enumerate(kinds)}
        assert kinds[-1] == "none" and ranks[-1] == 0
        if "nf4" in last:
            assert "none" not in kinds[kinds.index("nf4") : last["nf4"]], name


@pytest.mark.parametrize(("ram", "copies"), [(32, 1), (64, 2), (128, None)])
def test_those_that_wait_have_room_in_the_hosts_memory(ram, copies):
    """Without it they are read from the disk again."""
    made = plan("flux1", card(48, ram))
    assert (made.quantization, made.offload, made.resident) == ("none", "none", 1)
    assert made.copies == copies
    assert made.host <= ram * 0.95 * GIB


def test_a_card_is_not_left_empty_for_lack_of_ram():
    made = plan("klein-9b", card(24, ram=24))
    assert (made.quantization, made.offload, made.fits) == ("nf4", "none", True)


def test_eight_bit_floats_are_planned_where_they_can_be_computed():
    for machine, quantization in ((card(24), "nf4"), (card(24, fp8=True), "fp8")):
        made = plan("schnell", machine)
        assert (made.quantization, made.offload) == (quantization, "none")


def test_several_references_are_counted_where_there_is_room():
    # One reference at most, where else every step would move all weights.
    assert plan("flux2-dev", card(24)).peak < plan("flux2-dev", card(32)).peak
    four = footprint_of(MODEL_INFO["klein-4b"]).working
    assert four.denoise > 2 * four.with_one


def test_what_was_chosen_stays_and_the_rest_is_planned():
    roomy = card(80)
    assert plan("klein-4b", roomy, quantization="int8").offload == "none"
    assert plan("klein-4b", roomy, offload="group").quantization == "none"
    fixed = plan("klein-4b", roomy, quantization="none", offload="sequential")
    assert (fixed.quantization, fixed.offload) == ("none", "sequential")
    for quantization, offload in (("nf4", "model"), ("int8", "text")):
        made = plan("klein-4b", card(3), quantization=quantization)
        assert (made.quantization, made.offload) == (quantization, offload)
    # 8 bits stay where they are.
    assert plan("flux1", card(24), quantization="int8").resident is None


def test_where_nothing_fits_the_least_is_taken_and_said():
    made = plan("flux2-dev", Machine(2 * GIB, GIB))
    assert (made.quantization, made.offload) == ("none", "group")
    assert not made.fits


def test_large_pictures_are_decoded_in_tiles_only_where_they_must_be():
    assert plan("klein-4b", card(12)).tiling
    assert not plan("klein-4b", card(16)).tiling


@pytest.mark.parametrize(
    ("name", "number", "gib"),
    [("schnell", "float16", 31.4), ("klein-4b", "float32", 29.7)],
)
def test_a_card_before_ampere_gets_numbers_that_it_has(monkeypatch, name, number, gib):
    """FLUX.1 in float16; where nobody says that float16 is enough, float32."""
    machine = card(16, bfloat16=False)
    monkeypatch.setattr(memory, "look_at_machine", lambda _: machine)
    info, device, said = MODEL_INFO[name], torch.device("cuda"), []
    for settings in (Settings(memory="manual"), Settings()):
        made = choose_placement(name, info, settings, device, said.append)
        assert made.dtype == getattr(torch, number)
        assert f"does not compute with bfloat16; {name} runs in {number}" in said.pop(0)
    assert len(said) == 1 and f"{name} has {gib} GiB of weights" in said[0]


def test_a_set_of_unknown_size_is_held_as_it_was_chosen(monkeypatch):
    monkeypatch.setattr(memory, "look_at_machine", lambda _: card(16))
    unknown = Repository("somebody/unknown")
    info, said = replace(MODEL_INFO["klein-4b"], base_model=unknown), []
    made = choose_placement(
        *("mine", info, Settings(quantization="nf4"), torch.device("cuda")),
        said.append,
    )
    assert (made.quantization, made.offload, made.resident) == ("nf4", "none", None)
    assert said == ["memory: mine is not known beforehand; taking nf4"]


def test_what_a_set_says_for_itself_counts_before_the_settings(monkeypatch):
    monkeypatch.setattr(memory, "look_at_machine", lambda _: card(80))
    info = replace(MODEL_INFO["klein-4b"], quantization="int8", offload="none")
    for settings in (
        Settings(quantization="nf4", offload="model"),
        Settings(quantization="nf4", offload="model", memory="manual"),
    ):
        for device in ("cuda", "cpu"):
            where = torch.device(device)
            made = choose_placement("mine", info, settings, where, print)
            assert (made.quantization, made.offload) == ("int8", "none")


@pytest.mark.parametrize(
    ("generation", "bfloat16", "fp8"),
    [
        ((7, 5), False, False),
        ((8, 0), True, False),
        ((8, 9), True, True),
        ((9, 0), True, True),
    ],
)
def test_the_cards_generation_is_looked_at(
    monkeypatch, tmp_path, generation, bfloat16, fp8
):
    answers = {
        "mem_get_info": (20 * GIB, 24 * GIB),
        "memory_reserved": 3 * GIB,
        "memory_allocated": GIB,
        "get_device_capability": generation,
        "get_device_name": "A Card",
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, lambda _, answer=answer: answer)
    found = look_at_machine(torch.device("cuda"))
    assert (found.device_free, found.bfloat16) == (22 * GIB, bfloat16)
    # Without the package that computes with them.
    assert not found.fp8
    (tmp_path / "torchao.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert look_at_machine(torch.device("cuda")).fp8 is fp8
    # AMD numbers its generations otherwise; all of them compute with bfloat16.
    monkeypatch.setattr(torch.version, "hip", "6.4")
    found = look_at_machine(torch.device("cuda"))
    assert (found.bfloat16, found.fp8) == (True, False)


def test_each_checkpoint_has_room_whichever_is_in_use():
    """The smaller one is asked for first, and the larger one later."""
    small, large = Folder("small"), Folder("large")
    parts = {
        (source, "transformer"): Weights(size * GIB // 2, 1, 0, GIB, True)
        for source, size in ((small, 4), (large, 10))
    }
    footprint = Footprint(parts, Working(0, 0, 0, 0), bases=(small, large))
    made = plan_memory(footprint, Machine(12 * GIB, 64 * GIB), quantization="none")
    assert (made.offload, made.resident, made.peak) == ("none", 1, 10 * GIB)
    # Both of them wait in the host's memory in turn, or the larger one alone does.
    assert (made.copies, made.host) == (None, 14 * GIB)
    made = plan_memory(footprint, Machine(12 * GIB, 11 * GIB), quantization="none")
    assert (made.copies, made.host) == (1, 10 * GIB)


@pytest.mark.parametrize(("ram", "copies"), [(18, None), (17, 1), (5, 1)])
def test_what_moves_by_itself_is_in_the_hosts_memory_all_the_time(ram, copies):
    """The text encoder with as many checkpoints as there is room for, one at least."""
    one, other = Folder("one"), Folder("other")
    named = {(one, "transformer"): 10, (other, "transformer"): 4, (one, "vae"): 0}
    named[one, "text_encoder"] = 4
    parts = {
        key: Weights(size * GIB // 2, 1, 0, 1, True) for key, size in named.items()
    }
    shared = frozenset({"vae", "text_encoder"})
    footprint = Footprint(parts, Working(0, 0, 0, 0), bases=(one, other), shared=shared)
    machine = Machine(12 * GIB, ram * GIB)
    made = plan_memory(footprint, machine, quantization="none", offload="model")
    assert made.copies == copies
    assert made.host == (4 + 10 + (4 if copies is None else 0)) * GIB
    assert made.fits == (ram > 5)
    alone = replace(footprint, bases=(one,), shared=frozenset())
    made = plan_memory(alone, machine, quantization="none", offload="model")
    assert made.copies is None


def test_a_machine_says_what_is_free_on_it():
    machine = Machine(24 * GIB, 64 * GIB + GIB // 2, "a card")
    assert str(machine) == "24.0 GiB free on a card, 64.5 GiB of RAM"
