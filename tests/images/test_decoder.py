"""The process that decodes strangers' pictures: what it may do, what becomes of it, and
how much its pictures may take."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from flux_api.errors import InvalidImage, Unavailable
from flux_api.images.decode_child import deny_files
from flux_api.images.decoder import Decoder
from flux_api.images.masks import read_mask
from tests.support.hostile_images import plain, save, zeros_png
from tests.support.processes import children, memory_of
from tests.support.servers import ROOT, wait_for

PIXEL = save(plain((1, 1)), "PNG")


@pytest.fixture
def decoder():
    """One that nobody else uses, and the process ids of its children."""
    before = children()
    fresh = Decoder()
    return fresh, lambda: [int(pid) for pid in children() if pid not in before]


def test_a_child_that_dies_is_replaced(decoder):
    fresh, pids = decoder
    good = save(plain(), "PNG")
    fresh.image(good)
    for sign in (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT):
        [pid] = pids()
        os.kill(pid, sign)
        wait_for(lambda pid=pid: state_of(pid) == "Z", 5)
        assert fresh.image(good).size == (40, 24)


def state_of(pid):
    """The letter of a process's state."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_child_that_dies_at_work_costs_its_own_picture_only(decoder):
    fresh, pids = decoder
    fresh.image(save(plain(), "PNG"))
    [pid] = pids()
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor() as pool:
        lost = pool.submit(fresh.image, save(plain(), "PNG"), param="image")
        # The other child serves meanwhile.
        wait_for(lambda: fresh.image(save(plain(), "PNG")).size == (40, 24), 10)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(InvalidImage, match="costs more than a picture may"):
            lost.result(10)
    assert fresh.image(save(plain(), "PNG")).size == (40, 24)


def assert_two_at_most(pool, pids):
    """Of 1.5 GiB each, which a machine's memory has to have room for: who comes third
    waits for one of them."""
    inside = threading.Event()

    def come_third():
        with pool.lend():
            inside.set()

    with pool.lend(), pool.lend():
        thread = threading.Thread(target=come_third)
        thread.start()
        assert not inside.wait(0.3)
        assert len(pids()) == 2
    assert inside.wait(10)
    thread.join(10)


def test_there_are_never_more_than_two_of_them(decoder):
    fresh, pids = decoder
    assert_two_at_most(fresh._children, pids)


def test_a_child_has_no_secrets_and_few_descriptors(decoder, monkeypatch):
    monkeypatch.setenv("FLUX_API_KEYS", "alice:hidden")
    fresh, pids = decoder
    assert pids() == []
    fresh.image(save(plain(), "PNG"))
    [pid] = pids()
    assert os.getpgid(pid) == pid
    assert b"hidden" not in Path(f"/proc/{pid}/environ").read_bytes()
    open_files = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    assert all(name.startswith("pipe:") or name == "/dev/null" for name in open_files)
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert re.search(r"Max address space +1610612736 +1610612736", limits)
    assert re.search(r"Max file size +0 +0", limits)


def test_each_picture_has_its_own_time_of_the_processor(decoder):
    fresh, pids = decoder
    fresh.image(PIXEL)
    [pid] = pids()
    first, costly = seconds_left(pid), zeros_png(6000, 6000)
    assert 10 < first <= 12
    assert first - sum(psutil.Process(pid).cpu_times()[:2]) <= 11
    # A second of it later there are ten again.
    wait_for(lambda: fresh.image(costly) and seconds_left(pid) > first, 60)


def seconds_left(pid):
    """Until what time of its own the process may run."""
    limits = Path(f"/proc/{pid}/limits").read_text()
    return int(re.search(r"Max cpu time +([0-9]+) ", limits)[1])


def test_a_picture_that_takes_too_long_ends_its_child(decoder, monkeypatch):
    fresh, pids = decoder
    fresh.image(PIXEL)
    [pid] = pids()
    os.kill(pid, signal.SIGSTOP)
    with monkeypatch.context() as patched:
        patched.setattr("flux_api.images.decoder._WALL_SECONDS", 0.5)
        with pytest.raises(InvalidImage, match="costs more than a picture may"):
            fresh.image(PIXEL)
    assert pid not in pids()
    assert fresh.image(PIXEL).size == (1, 1)


DENIED = {
    "signals": (6, "os.kill(os.getppid(), signal.SIGTERM)"),
    "files": (1, "open('/etc/passwd')"),
    "folders": (1, "os.listdir('/')"),
    "new files": (1, "open('/tmp/of-a-decoder', 'w')"),
    "network": (1, "socket.create_connection(('127.0.0.1', PORT))"),
}


@pytest.mark.parametrize(("version", "attempt"), DENIED.values(), ids=DENIED)
def test_a_child_reaches_nobody_and_nothing(version, attempt):
    libc = ctypes.CDLL(None)
    if libc.syscall(444, None, 0, 1) < version:
        pytest.skip("this kernel's Landlock does not know it")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        program = (
            "import os, signal, socket\n"
            "from flux_api.images.decode_child import lock_down\n"
            "missing = lock_down(); os.kill(os.getpid(), 0)\n"
            "assert 'files' not in missing\n"
            f"try: {attempt.replace('PORT', str(port))}\n"
            "except OSError: print('refused')\n"
        )
        if "create_connection" in attempt:
            program += "else: print('refused' if 'network' in missing else 'open')\n"
        assert_refused(program)


# What Landlock of this version knows, by landlock(7): rights to files, to the network,
# and scopes.
KNOWN = {
    1: [13],
    2: [14],
    3: [15],
    4: [15, 2],
    5: [16, 2],
    6: [16, 2, 2],
    7: [16, 2, 2],
}


class Kernel:
    """The C library over a kernel with Landlock of this ``version``, which ``fails`` at
    one of its calls: it refuses, as that does, what it does not know yet."""

    def __init__(self, version, fails=None):
        self._version, self._fails, self.asked = version, fails, None

    def syscall(self, number, rights, size, _=0):
        if number == 446:
            return -1 if self._fails == "restrict" else 0
        if rights is None:
            return self._version
        self.asked = [right.bit_length() for right in rights]
        assert size == 8 * len(self.asked)
        if self.asked != KNOWN[self._version] or self._fails == "rules":
            return -1
        return os.open(os.devnull, os.O_RDONLY)

    def prctl(self, *_):
        return -1 if self._fails == "privileges" else 0


@pytest.mark.parametrize("version", KNOWN)
def test_every_kernel_is_asked_for_all_that_it_can_deny(version):
    assert deny_files(Kernel(version))


@pytest.mark.parametrize("fails", ["rules", "privileges", "restrict"])
def test_a_kernel_that_does_not_deny_files_is_known(fails):
    """The operator is told."""
    assert not deny_files(Kernel(-1))
    assert not deny_files(Kernel(6, fails))


def assert_refused(program):
    """Run it: it prints one word."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "refused\n", done.stderr


def test_a_large_photograph_is_never_held_in_full(decoder):
    fresh, pids = decoder
    fresh.image(PIXEL)
    [pid] = pids()
    before = memory_of(pid, "VmHWM")
    fresh.image(save(plain((8160, 6120), "white"), "JPEG"))
    assert pids() == [pid]
    # Its pixels alone would be 190, of four bytes each.
    assert memory_of(pid, "VmHWM") - before < 170


def test_a_child_is_replaced_after_a_hundred_pictures(decoder):
    fresh, pids = decoder
    for _ in range(100):
        fresh.image(PIXEL)
    first = pids()
    fresh.image(PIXEL)
    assert set(pids()).isdisjoint(first)


def test_pictures_in_use_take_no_more_than_they_may(monkeypatch):
    small = Decoder(64 << 20)
    monkeypatch.setattr("flux_api.images.decoder._ROOM_SECONDS", 0.2)
    data = zeros_png(2048, 2048, 1, 0, 1)
    held = [small.image(data) for _ in range(5)]
    with pytest.raises(Unavailable) as caught:
        small.image(data)
    assert (caught.value.status, caught.value.retry_after) == (503, 5)
    held.pop()
    assert small.image(data).size == (2048, 2048)


@pytest.mark.parametrize("side", [1024, 2048], ids=["scaled", "as-sent"])
def test_masks_are_counted_as_they_are_used(monkeypatch, side):
    small = Decoder(64 << 20)
    monkeypatch.setattr("flux_api.images.decoder._ROOM_SECONDS", 0.2)
    picture, mask = (zeros_png(n, n, 1, 0, 1) for n in (2048, side))
    # Of 4 MiB each; a picture takes 12.
    held = [read_mask(small, mask, picture=plain((2048, 2048)))[0] for _ in range(14)]
    with pytest.raises(Unavailable):
        small.image(picture)
    held.clear()
    assert small.image(picture).size == (2048, 2048)
