"""What ``make fleet-load`` calls a mistake."""

from __future__ import annotations

import pytest

from benchmarks.chaos_clients import Note
from benchmarks.fleet_load import Phase

AWAY = '503 {"error":{"message":"The server cannot be reached at the moment."}}'
UNKNOWN = '404 {"error":{"code":"job_not_found"}}'


def phase(*notes, **facts):
    """A phase with these notes: (outcome, why, when it began)."""
    found = Phase("it", **facts)
    found.add([Note(outcome, 9.0, why, began) for outcome, why, began in notes])
    return found


@pytest.mark.parametrize(
    ("found", "mistakes"),
    [
        (phase(("right", "", 1)), 0),
        (phase(("wrong", "", 1)), 1),
        (phase(("lost", "reset", 1)), 1),
        (phase(("refused", "full", 1)), 1),
        # nginx's word for it is no refusal.
        (phase(("refused", AWAY, 1)), 1),
        (phase(("refused", AWAY, 1), held=1, killed_at=2), 0),
        (phase(*[("refused", AWAY, 1)] * 2, held=1, killed_at=2), 1),
        (phase(("lost", "reset", 3), held=1, killed_at=2), 1),
        (phase(("refused", "it loads", 3), held=1, killed_at=2), 0),
        (phase(("lost", UNKNOWN, 1)), 1),
        (phase(("lost", UNKNOWN, 1), forgets=True), 0),
    ],
)
def test_what_must_not_be_is_found(found, mistakes):
    assert len(found.mistakes) == mistakes
