"""Whether a new worker's weights fit beside the old one's."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import torch

from flux_api.loading.device import bytes_of
from flux_api.loading.memory import look_at_machine
from flux_api.loading.plan import RESERVE


def has_room_for_another(older: Iterable[int], device: torch.device) -> bool:
    """Whether as much memory is free as the processes ``older`` have taken while they
    loaded, and on the device as everybody there takes now."""
    machine = look_at_machine(device)
    if machine.host_free < sum(map(_most_taken, older)):
        return False
    if device.type != "cuda":
        return True
    _, total = bytes_of(device)
    return machine.device_free >= total - machine.device_free + RESERVE


def _most_taken(pid: int) -> int:
    """The most bytes of the host's memory that the process ever had."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0
