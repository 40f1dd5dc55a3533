"""A short run of the chaos command."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from PIL import Image

from benchmarks.chaos import CLIENTS, Row
from benchmarks.chaos_clients import Note, digest, stored_half
from benchmarks.chaos_faults import FAULTS, Fault, nothing
from tests.support.pictures import save
from tests.support.programs import need
from tests.support.servers import ROOT


@pytest.mark.skipif(not os.environ.get("CI"), reason="in CI only; see make chaos")
def test_a_minute_of_faults_makes_no_picture_wrong_and_loses_none():
    need("nginx")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.chaos", "60"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    names = tuple(f"{fault.name}: " for fault in FAULTS)
    mistakes = [line for line in done.stdout.splitlines() if line.startswith(names)]
    # How long a gap may be is to be judged on a quiet machine.
    gaps = [mistake for mistake in mistakes if "the gap is longer" in mistake]
    assert mistakes == gaps, done.stdout
    assert done.returncode == bool(gaps), done.stdout + done.stderr
    assert "| HUP: an update | 1 |" in done.stdout


def row(*outcomes, half=0, **promise):
    """The row of a fault under which pictures came a second apart."""
    found = Row(Fault("it", nothing, **promise))
    notes = [Note(outcome, second) for second, outcome in enumerate(outcomes, 1)]
    found.add(0.0, notes, half)
    return found


@pytest.mark.parametrize(
    ("found", "mistakes"),
    [
        (row("right", "refused", "right"), 0),
        (row("wrong"), 1),
        (row("right", half=1), 1),
        (row("lost"), 1),
        (row(*["lost"] * CLIENTS, kills=True), 0),
        (row(*["lost"] * CLIENTS, "lost", kills=True), 1),
        (row("right", "right", longest_gap=1.5), 0),
        (row("right", "refused", "right", longest_gap=1.5), 1),
    ],
    ids=["fine", "wrong", "half", "lost", "killed", "too many", "short", "long"],
)
def test_what_must_not_be_is_found(found, mistakes):
    assert len(found.mistakes(usual_gap=0.1)) == mistakes


def test_a_busy_machine_may_have_gaps_of_its_own():
    late = row("right", "refused", "right", longest_gap=1.5)
    assert late.mistakes(usual_gap=1.0) == []


def test_half_a_picture_is_seen(tmp_path):
    whole = save(Image.effect_noise((64, 64), 50))
    (tmp_path / "whole.png").write_bytes(whole)
    checked = set()
    assert stored_half(tmp_path, {digest(whole)}, checked) == 0
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "other.png").write_bytes(whole)
    assert stored_half(tmp_path, {digest(whole)}, checked) == 1
    assert stored_half(tmp_path, {digest(whole)}, checked) == 0
