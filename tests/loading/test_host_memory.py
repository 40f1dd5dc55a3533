"""The host's memory as Linux tells it, and as other systems do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flux_api.loading import host_memory
from flux_api.loading.host_memory import all_host_bytes, free_host_bytes

GIB = 2**30
MEMINFO = """\
MemTotal:       16777216 kB
MemFree:         1048576 kB
MemAvailable:    4194304 kB
SwapCached:            0 kB
SwapTotal:       2097152 kB
"""


@pytest.fixture
def meminfo(monkeypatch, tmp_path):
    """The file where Linux tells it, which is not there yet; no container."""
    monkeypatch.setattr(host_memory, "_CGROUP", tmp_path / "none")
    monkeypatch.setattr(host_memory, "_MEMINFO", tmp_path / "meminfo")
    return tmp_path / "meminfo"


def test_what_caches_hold_is_free_and_swap_is_memory_too(meminfo):
    without = all_host_bytes()
    meminfo.write_text(MEMINFO)
    assert free_host_bytes() == 4 * GIB
    assert all_host_bytes() - without == 2 * GIB


def test_other_systems_count_pages(meminfo):
    """On this one that is the same number."""
    assert not meminfo.exists()
    told = re.search(r"MemTotal: +(\d+) kB", Path("/proc/meminfo").read_text())
    assert all_host_bytes() == pytest.approx(int(told[1]) * 1024, rel=0.01)
    assert 0 < free_host_bytes() < all_host_bytes()
