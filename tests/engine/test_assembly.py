"""A backend as the settings have it, and beside an older worker's."""

from __future__ import annotations

import pytest

from flux_api.engine.assembly import make_backend
from flux_api.models.catalog import MODEL_INFO
from flux_api.settings import Settings
from tests.engine.test_engine import TINY

WAITING = "waiting for the old worker's end: no room for both"


class Meeting:
    """A handover with an older worker, which is ``beside`` until its room is asked for
    a second time."""

    older = (1,)

    def __init__(self, *, beside=True, waits=True, placement=""):
        self.beside, self.waits, self.placement = beside, waits, placement
        self.asked = 0

    def make_room(self, seconds):
        """Whether it has left by now."""
        self.asked += 1
        self.beside = self.asked < 2
        return not self.beside


def place(handover, models=None):
    """What is said while ``tiny`` gets its place."""
    said = []
    backend = make_backend(Settings(), models or {TINY: MODEL_INFO[TINY]}, handover)
    backend.sets.use(TINY, said.append)
    return said


@pytest.fixture
def own():
    """How this worker holds the set."""
    first = Meeting(beside=False)
    assert place(first) == []
    return first.placement


@pytest.mark.parametrize(
    ("waits", "alike", "room", "beside_it"),
    [
        (True, True, True, True),
        (False, True, True, False),
        (True, False, True, False),
        (True, True, False, False),
    ],
    ids=["all is well", "it does not go on", "held otherwise", "no room"],
)
def test_weights_are_loaded_beside_the_old_workers_only_where_all_is_well(
    waits, alike, room, beside_it, own, monkeypatch
):
    monkeypatch.setattr(
        "flux_api.engine.assembly.has_room_for_another", lambda older, device: room
    )
    handover = Meeting(waits=waits, placement=own if alike else "on another device")
    said = place(handover)
    assert handover.beside is beside_it
    # Once more for each wait, as a sign of life.
    assert said == ([] if beside_it else [WAITING] * 2)
    assert handover.placement == own != ""


def test_a_set_that_no_older_worker_loads_first_waits_for_none():
    handover = Meeting(waits=False)
    assert place(handover, {"first": MODEL_INFO[TINY], TINY: MODEL_INFO[TINY]}) == []
    assert (handover.asked, handover.placement) == (0, "")


def test_the_settings_mebibytes_are_kept():
    settings = Settings(prompt_cache_mb=3, lora_cache_mb=2, batch_tokens=64)
    backend = make_backend(settings, {TINY: MODEL_INFO[TINY]}, None)
    assert backend.prompts.most_bytes == 3 * 1024 * 1024
    # Of a tenth of what is free, where that is less.
    assert backend.sets._kept_lora_bytes == 2 * 1024 * 1024
    assert backend.batch_tokens == 64
