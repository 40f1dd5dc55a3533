"""A server of its own for a measurement, and a look at its process."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import requests

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Server:
    """Where it answers, and its gunicorn master's process id."""

    url: str
    pid: int

    def worker(self) -> int:
        """The worker's process id."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return int(children.split()[0])

    def resident_mib(self) -> float:
        """The worker's resident memory in MiB."""
        for line in Path(f"/proc/{self.worker()}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise RuntimeError("no VmRSS")

    def cpu_seconds(self) -> float:
        """CPU seconds of the worker so far."""
        return cpu_seconds(self.worker())

    def descriptors(self) -> int:
        """How many file descriptors the worker has open."""
        return len(os.listdir(f"/proc/{self.worker()}/fd"))

    def threads(self) -> int:
        """How many threads the worker has."""
        return len(os.listdir(f"/proc/{self.worker()}/task"))


@contextlib.contextmanager
def start(app: str = "wsgi:app", **settings: object) -> Iterator[Server]:
    """The API, or another ``app``, on a free port, ready, with ``settings`` in its
    environment."""
    address = free_address()
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py"]
        + ["-b", address, app],
        cwd=ROOT,
        env=os.environ
        | {"FLUX_LOG_LEVEL": "error"}
        | {name: str(value) for name, value in settings.items()},
    )
    server = Server(f"http://{address}", process.pid)
    try:
        until = time.monotonic() + 600
        while not _is_ready(server.url):
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit("the server did not get ready")
            time.sleep(0.2)
        yield server
    finally:
        process.terminate()
        process.wait(60)


def free_address() -> str:
    """HOST:PORT of this machine where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _is_ready(url: str) -> bool:
    """SystemExit where it will never be."""
    try:
        if requests.get(f"{url}/readyz", timeout=5).ok:
            return True
        told = requests.get(f"{url}/v1/status", timeout=5).json()
    except (requests.ConnectionError, requests.Timeout):
        return False
    if told["status"] == "failed":
        raise SystemExit(f"the server cannot load its model: {told['reason']}")
    return False
