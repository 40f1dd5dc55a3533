"""A short run of the soak command."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.servers import ROOT


@pytest.mark.skipif(not os.environ.get("CI"), reason="in CI only; see make soak")
def test_half_a_minute_of_mixed_load_leaves_memory_and_descriptors_flat():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.soak", "30"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "growth after the warm-up" in done.stdout
