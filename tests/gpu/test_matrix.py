"""However a set is held, it draws, or the server says at its start why not."""

from __future__ import annotations

import pytest

from flux_api.loading.placement import go_together
from tests.engine.test_families import draw
from tests.gpu.card_server import run_on, worker
from tests.gpu.matrix import (
    GGUF,
    MODES,
    THOROUGH,
    held_as,
    leave_no_trace,
    refusals,
    rows,
    tasks_of,
    there_and_back,
    write_matrix,
)

POSSIBLE = [mode for mode in MODES if mode[0] != "fp8" and go_together(*mode)]
# The other sets are held by the same code: one of them is tried in every other mode,
# the next in those between, and `make gpu-matrix` tries all.
ROWS = [
    row
    for n, row in enumerate(rows(POSSIBLE))
    if row[0] in THOROUGH or (n + n // len(POSSIBLE)) % 2 == 0
]


@pytest.fixture(scope="module")
def server(card, tmp_path_factory):
    """A server of every set in every mode that goes, one in memory at a time."""
    settings = write_matrix(tmp_path_factory.mktemp("matrix"), POSSIBLE)
    with run_on(card, **settings) as running:
        yield running.wait_ready()


@pytest.mark.parametrize(("name", "mode"), ROWS, ids=[held_as(*row) for row in ROWS])
def test_every_set_draws_however_it_is_held(server, card, name, mode):
    tasks = tasks_of(name)
    if name in THOROUGH and mode[0] != GGUF:
        plain = there_and_back(server, name, mode, tasks)["generate"]
        leave_no_trace(server, name, mode, plain)
        if name == "klein-4b" and card is not None:
            run_short(server, card, held_as(name, mode), plain)
    else:
        # Another one for each mode.
        task = tasks[ROWS.index((name, mode)) % len(tasks)]
        assert draw(server, held_as(name, mode), task)[1].std() > 1
    if card is not None and mode[1] in ("model", "sequential"):
        # The prior of flux1 and a handful of numbers stay.
        assert worker(card)["used"] < 2**17
    assert '"logger": "bitsandbytes' not in server.output


def run_short(server, card, model, picture):
    """The card gets too small in the middle of ``picture``; nothing is left of it."""
    held, limit = worker(card)["used"], card.limit
    card.limit = held + 2**16
    try:
        with pytest.raises(AssertionError, match="too large for the device's memory"):
            draw(server, model, "generate")
    finally:
        card.limit = limit
    assert worker(card)["used"] <= held
    assert (draw(server, model, "generate")[1] == picture).all()


def test_what_cannot_be_is_refused_with_a_reason(card):
    why = refusals(card)
    assert set(why) >= {"/".join(m) for m in MODES if not go_together(*m)}
    for mode, reason in why.items():
        assert reason.startswith("FLUX_"), mode
        assert "take " in reason or "install" in reason, reason
    assert not {"/".join(mode) for mode in POSSIBLE} & set(why)
