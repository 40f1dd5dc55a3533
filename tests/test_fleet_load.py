"""A short run of ``make fleet-load``, and what it calls a mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from benchmarks.chaos_clients import Note
from benchmarks.fleet_load import Phase
from tests.support.programs import need
from tests.support.servers import ROOT

AWAY = '503 {"error":{"message":"The server cannot be reached at the moment."}}'
UNKNOWN = '404 {"error":{"code":"job_not_found"}}'


@pytest.mark.skipif(not os.environ.get("CI"), reason="in CI only; see make fleet-load")
def test_a_fleet_under_load_loses_what_a_killed_one_had_in_hand_at_most(tmp_path):
    need("nginx")
    command = [sys.executable, "-m", "benchmarks.fleet_load", "--seconds", "15"]
    done = subprocess.run(
        [*command, "--prompts", "1", "--results", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "fleet_load.json").read_text())["rows"]
    told = {row["measure"]: row["value"] for row in rows}
    for name in ("results found by their id", "forged headers, in vain"):
        assert told[name] > 0
    assert told["clients that left, and were noticed"] > 0


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
