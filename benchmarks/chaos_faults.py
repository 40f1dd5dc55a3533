"""What can happen to the servers: each a context that breaks something and mends it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import requests

from benchmarks.chaos_stack import Stack, children, wait_until


@dataclass(frozen=True)
class Fault:
    """``break_it`` breaks the stack on entry and mends it ``seconds`` later on exit;
    where it ``kills``, what is in flight may be lost. ``longest_gap`` is promised."""

    name: str
    break_it: Callable[[Stack], AbstractContextManager[None]]
    seconds: float = 3.0
    kills: bool = False
    longest_gap: float | None = None


@contextlib.contextmanager
def nothing(stack: Stack) -> Iterator[None]:
    yield


@contextlib.contextmanager
def update(stack: Stack) -> Iterator[None]:
    old = stack.worker("api")
    stack.processes["api"].send_signal(signal.SIGHUP)
    yield
    # What loads leaves the cores to what serves: on busy ones it takes minutes.
    wait_until(lambda: old not in children(stack.processes["api"].pid), 300)


@contextlib.contextmanager
def bad_update(stack: Stack) -> Iterator[None]:
    stack.models.write_text("[broken")
    stack.processes["api"].send_signal(signal.SIGHUP)
    yield
    url = f"{stack.api_url}/readyz"
    wait_until(lambda: "failed_update" in requests.get(url, timeout=30).json(), 60)
    stack.models.write_text("")


def kill(name: str) -> Callable[[Stack], AbstractContextManager[None]]:
    """End the worker of a server at once."""

    @contextlib.contextmanager
    def break_it(stack: Stack) -> Iterator[None]:
        os.kill(stack.worker(name), signal.SIGKILL)
        yield

    return break_it


def stop(name: str) -> Callable[[Stack], AbstractContextManager[None]]:
    """Have the worker of a server stand still."""

    @contextlib.contextmanager
    def break_it(stack: Stack) -> Iterator[None]:
        worker = stack.worker(name)
        os.kill(worker, signal.SIGSTOP)
        yield
        os.kill(worker, signal.SIGCONT)

    return break_it


def restart(name: str, number: int) -> Callable[[Stack], AbstractContextManager[None]]:
    """End a server altogether, and start it again."""

    @contextlib.contextmanager
    def break_it(stack: Stack) -> Iterator[None]:
        stack.processes[name].send_signal(number)
        stack.processes[name].wait(60)
        stack.start(name)
        yield

    return break_it


@contextlib.contextmanager
def reload_nginx(stack: Stack) -> Iterator[None]:
    stack.processes["nginx"].send_signal(signal.SIGHUP)
    yield


@contextlib.contextmanager
def full_disk(stack: Stack) -> Iterator[None]:
    # No file grows beyond this, which is in the middle of a picture.
    with _limited(stack.worker("files"), resource.RLIMIT_FSIZE, 2000):
        yield


@contextlib.contextmanager
def few_descriptors(stack: Stack) -> Iterator[None]:
    worker = stack.worker("api")
    taken = len(os.listdir(f"/proc/{worker}/fd"))
    with _limited(worker, resource.RLIMIT_NOFILE, max(8, taken - 4)):
        yield


@contextlib.contextmanager
def little_memory(stack: Stack) -> Iterator[None]:
    worker = stack.worker("api")
    status = Path(f"/proc/{worker}/status").read_text()
    found = re.search(r"VmSize:\s+(\d+)", status)
    assert found is not None
    with _limited(worker, resource.RLIMIT_AS, int(found[1]) * 1024 + (1 << 20)):
        yield


@contextlib.contextmanager
def no_decoders(stack: Stack) -> Iterator[None]:
    for child in children(stack.worker("api")):
        os.kill(child, signal.SIGKILL)
    yield


@contextlib.contextmanager
def stopped_decoders(stack: Stack) -> Iterator[None]:
    stopped = children(stack.worker("api"))
    for child in stopped:
        os.kill(child, signal.SIGSTOP)
    yield
    for child in stopped:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGCONT)


@contextlib.contextmanager
def busy_cores(stack: Stack) -> Iterator[None]:
    context = multiprocessing.get_context("spawn")
    busy = [context.Process(target=_spin, daemon=True) for _ in range(4)]
    for process in busy:
        process.start()
    yield
    for process in busy:
        process.kill()
        process.join()


def _spin() -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        pass


@contextlib.contextmanager
def _limited(process: int, kind: int, most: int) -> Iterator[None]:
    _, hard = before = resource.prlimit(process, kind)
    resource.prlimit(process, kind, (most, hard))
    try:
        yield
    finally:
        resource.prlimit(process, kind, before)


# The first ones make up the short run.
FAULTS = (
    Fault("nothing", nothing, 2.0),
    Fault("HUP: an update", update, 1.0, longest_gap=2.0),
    Fault("API worker killed (-9)", kill("api"), 1.0, kills=True),
    Fault("file server worker killed (-9)", kill("files"), 1.0),
    Fault("file server's disk full", full_disk),
    Fault("API short of descriptors", few_descriptors),
    Fault("API short of memory", little_memory),
    Fault("nginx reloaded", reload_nginx, 1.0),
    Fault("decoders killed (-9)", no_decoders, 1.0, kills=True),
    Fault("HUP: an update that cannot start", bad_update, 1.0, longest_gap=2.0),
    Fault("API worker stopped", stop("api")),
    Fault("file server worker stopped", stop("files")),
    Fault("decoders stopped", stopped_decoders),
    Fault("four busy processes", busy_cores, 6.0),
    Fault("nginx worker killed (-9)", kill("nginx"), 1.0, kills=True),
    Fault("file server restarted", restart("files", signal.SIGTERM), 1.0),
    Fault("API restarted (TERM)", restart("api", signal.SIGTERM), 1.0),
    Fault("API master killed (-9)", restart("api", signal.SIGKILL), 1.0, kills=True),
)
