"""The fuzz command itself: each target runs, and a seed gives the same input again."""

from __future__ import annotations

import subprocess
import sys

from tests.support.servers import ROOT


def run_fuzz(*arguments):
    command = [sys.executable, "-W", "error", "-m", "tests.fuzz", *arguments]
    options = {"capture_output": True, "text": True, "timeout": 300}
    return subprocess.run(command, cwd=ROOT, **options)


def test_every_target_runs_and_finds_nothing():
    done = run_fuzz("--seconds", "4")
    assert done.returncode == 0, done.stdout + done.stderr
    names = ("decoder", "mask", "data-url", "url", "fetch")
    for name in (*names, "parameters", "body", "requests"):
        assert f"{name} " in done.stdout


def test_mutated_pictures_cost_this_process_nothing():
    done = run_fuzz("--seconds", "0", "--count", "1500", "decoder")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "decoder 1500" in done.stdout


def test_one_seed_is_one_input():
    assert run_fuzz("--seed", "7", "decoder", "url").returncode == 0


def test_an_unknown_target_is_named():
    done = run_fuzz("nonsense")
    assert done.returncode == 2
    assert "no such target: nonsense" in done.stderr
