"""The memory of this machine that its processes share."""

from __future__ import annotations

import os
import re
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def free_host_bytes() -> int:
    """Free bytes of the host's memory, caches that can be dropped included, as far as
    the container's limit lets this process have them."""
    return min(_free_in_host(), _free_in_container())


def _free_in_host() -> int:
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _free_in_container() -> int:
    """What the memory limit of the container, where it has one, leaves."""
    try:
        most = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        stat = (_CGROUP / "memory.stat").read_text()
    except (OSError, ValueError):  # none, or "max"
        return 1 << 62
    cache = re.search(r"^inactive_file (\d+)$", stat, re.MULTILINE)
    return most - used + int(cache[1] if cache else 0)
