"""Whether an update may load a second copy of the weights."""

from __future__ import annotations

import os
import subprocess

import pytest
import torch

from flux_api.loading import host_memory, second_copy
from flux_api.loading.memory import look_at_machine
from flux_api.loading.plan import Machine
from flux_api.loading.second_copy import has_room_for_another

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
GIB = 2**30


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Set what is free: on the device, in the host's memory, in the container's."""

    def free(device=0, host=0, container=None):
        (tmp_path / "meminfo").write_text(f"MemAvailable: {host << 20} kB\n")
        monkeypatch.setattr(host_memory, "_MEMINFO", tmp_path / "meminfo")
        monkeypatch.setattr(host_memory, "_CGROUP", tmp_path)
        if device:
            found = Machine(device * GIB, host * GIB)
            monkeypatch.setattr(second_copy, "look_at_machine", lambda _: found)
        if container is not None:
            (tmp_path / "memory.max").write_text(f"{(container + 3) * GIB}\n")
            (tmp_path / "memory.current").write_text(f"{4 * GIB}\n")
            stat = f"anon {3 * GIB}\ninactive_file {GIB}\nactive_file 0\n"
            (tmp_path / "memory.stat").write_text(stat)

    return free


def test_the_host_must_have_as_much_as_the_old_worker_took(machine):
    machine(host=8)
    assert has_room_for_another([os.getpid()], CPU)
    machine(host=0)
    assert not has_room_for_another([os.getpid()], CPU)


def test_a_worker_that_is_gone_takes_nothing(machine):
    """Nor one that nobody has waited for yet: Linux tells no numbers of it."""
    machine(host=0)
    gone = subprocess.Popen(["true"])
    os.waitid(os.P_PID, gone.pid, os.WEXITED | os.WNOWAIT)
    assert has_room_for_another([gone.pid], CPU)
    gone.wait()
    assert has_room_for_another([gone.pid], CPU)


def test_a_containers_limit_counts(machine):
    machine(host=64, container=8)
    assert has_room_for_another([os.getpid()], CPU)
    assert look_at_machine(CPU).host_free == 8 * GIB
    machine(host=64, container=0)
    assert not has_room_for_another([os.getpid()], CPU)


@pytest.mark.parametrize(("free", "fits"), [(13, True), (12, False)])
def test_the_device_must_have_as_much_as_is_taken_and_a_reserve(
    machine, monkeypatch, free, fits
):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (0, 24 * GIB))
    machine(device=free, host=64)
    assert has_room_for_another([os.getpid()], CUDA) is fits
