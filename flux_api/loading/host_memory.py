"""The memory of this machine that its processes share."""

from __future__ import annotations

import os
import re
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def free_host_bytes() -> int:
    """Free bytes of the host's memory, caches that can be dropped included, as far as
    the container's limit lets this process have them."""
    return min(_free_in_host(), _free_in_container())


def all_host_bytes() -> int:
    """The bytes of the host's memory, used or not, swap included."""
    return _pages("SC_PHYS_PAGES") + (_told_by_linux("SwapTotal") or 0)


def _free_in_host() -> int:
    free = _told_by_linux("MemAvailable")
    return _pages("SC_AVPHYS_PAGES") if free is None else free


def _told_by_linux(name: str) -> int | None:
    """The bytes that Linux calls ``name``; None on other systems."""
    try:
        text = _MEMINFO.read_text("ascii")
    except OSError:
        return None
    found = re.search(rf"^{name}: +(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _pages(name: str) -> int:
    """The bytes of as many pages as POSIX' ``name`` tells."""
    return os.sysconf(name) * os.sysconf("SC_PAGE_SIZE")


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
