"""What the tests ask the kernel about processes."""

from __future__ import annotations

import os
from pathlib import Path


def children():
    """Process ids of this process's children."""
    return Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()


def memory_of(pid, name):
    """``VmHWM`` (the most ever) or ``VmRSS`` (now) of a process, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0]) / 1024
