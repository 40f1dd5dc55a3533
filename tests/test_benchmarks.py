"""The measurements run, and keep what they print."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from tests.support.servers import ROOT

IMAGES = ROOT / "docs" / "images"


@pytest.mark.parametrize("name", ["queue_length", "encoding"])
def test_a_measurement_keeps_its_rows_with_machine_and_versions(name, tmp_path):
    command = [sys.executable, "-m", f"benchmarks.{name}", "--rounds", "3"]
    done = subprocess.run(
        [*command, "--results", tmp_path], cwd=ROOT, capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()
    kept = json.loads((tmp_path / f"{name}.json").read_text())
    assert kept["command"] == f"python -m benchmarks.{name}"
    assert "cores of" in kept["machine"]
    assert kept["packages"]["torch"]
    ratios = [row["value"] for row in kept["rows"] if row["unit"] == "x"]
    assert ratios
    printed = done.stdout.decode()
    for row in kept["rows"]:
        assert f"{row['measure']:58} {row['value']:10.3f} {row['unit']}" in printed


def test_the_charts_show_what_is_kept_and_are_linked(tmp_path):
    """``make bench-charts`` draws them anew."""
    command = [sys.executable, "-m", "benchmarks.charts", "--images", tmp_path]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=120)
    shown = {path.name: path.read_text() for path in IMAGES.glob("bench-*.svg")}
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == shown
    document = (ROOT / "benchmarks" / "README.md").read_text()
    assert set(shown) == set(re.findall(r"bench-\w+\.svg", document))
    assert ">CPU time of the usual way over ours</text>" in shown["bench-encoding.svg"]


def test_a_peer_that_cannot_be_installed_is_said_to_be(tmp_path):
    command = [sys.executable, "-m", "benchmarks.peers", "--environment", tmp_path]
    nowhere = os.environ | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    done = subprocess.run(
        command, cwd=ROOT, env=nowhere, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1
    assert "museq[server]==0.60.2 cannot be installed here: ERROR: " in done.stderr
