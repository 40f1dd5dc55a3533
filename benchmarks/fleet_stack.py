"""``flux-api serve`` with several instances, as operators run it, for measurements."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import requests

from benchmarks.chaos_stack import ROOT, children, wait_until
from benchmarks.server import free_address

_START_SECONDS = 600
# What nginx has sent to an instance is there by then.
_SETTLE_SECONDS = 0.5


class Fleet:
    """``count`` instances, the file server and nginx at ``url``, all ready;
    ``settings`` are in their environment. A context manager."""

    def __init__(self, count: int, folder: Path, **settings: object) -> None:
        bind, first = free_address(), _free_ports(count)
        self.url = f"http://{bind}"
        self.instances = [f"http://127.0.0.1:{first + n}" for n in range(count)]
        self._log = folder / "log"
        self._settings = {
            "XDG_STATE_HOME": str(folder),
            "STORAGE_URL": f"file://{folder}/images",
            "OMP_NUM_THREADS": "1",
        } | {name: str(value) for name, value in settings.items()}
        self._command = [
            *(sys.executable, "-m", "flux_api", "serve", "--instances", str(count)),
            *("--bind", bind, "--files-bind", free_address()),
            *("--first-port", str(first)),
        ]

    def __enter__(self) -> Fleet:
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=os.environ | self._settings,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            wait_until(lambda: "Try it:" in self.log(), _START_SECONDS)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            # A second one does not wait.
            self.process.terminate()
            self.process.wait(30)

    def log(self) -> str:
        """What all of them printed."""
        return self._log.read_text(errors="replace")

    def remotes(self) -> set[str]:
        """The addresses that requests came from, as the instances logged them."""
        return set(re.findall(r'"remote": ?"([^"]+)"', self.log()))

    def master(self, number: int) -> int:
        """The process id of an instance's gunicorn; LookupError while it is gone."""
        address = self.instances[number].removeprefix("http://")
        for pid in children(self.process.pid):
            with contextlib.suppress(OSError):
                if address in Path(f"/proc/{pid}/cmdline").read_text().split("\0"):
                    return pid
        raise LookupError(address)

    def made(self) -> list[int]:
        """How many pictures each instance has made since its worker began."""
        return [round(self.metric(n, "flux_images_total")) for n in self._numbers]

    def metric(self, number: int, name: str) -> float:
        """A number that an instance tells of itself."""
        url = f"{self.instances[number]}/metrics"
        text = requests.get(url, timeout=30).text
        return float(re.findall(rf"^{name} (\S+)$", text, re.M)[0])

    def is_ready(self, number: int) -> bool:
        """Whether an instance takes requests."""
        with contextlib.suppress(requests.RequestException):
            return requests.get(f"{self.instances[number]}/readyz", timeout=5).ok
        return False

    def kill(self, number: int) -> int:
        """End an instance at once, its worker too; how many connections it had."""
        port = int(self.instances[number].rpartition(":")[2])
        with self._nginx_stopped():
            time.sleep(_SETTLE_SECONDS)
            held = [c for c in psutil.net_connections("tcp") if c.laddr.port == port]
            os.killpg(self.master(number), signal.SIGKILL)
            # A dying process closes its port last: what comes before is in its hands.
            wait_until(lambda: _is_refused(port), 30)
        return sum(one.status == psutil.CONN_ESTABLISHED for one in held)

    @contextlib.contextmanager
    def _nginx_stopped(self) -> Iterator[None]:
        """nginx sends nothing meanwhile."""
        workers = [
            worker
            for pid in children(self.process.pid)
            if "nginx" in Path(f"/proc/{pid}/cmdline").read_text()
            for worker in children(pid)
        ]
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)
        try:
            yield
        finally:
            for worker in workers:
                os.kill(worker, signal.SIGCONT)

    @property
    def _numbers(self) -> range:
        return range(len(self.instances))


def _is_refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


def _free_ports(count: int) -> int:
    """The first of ``count`` ports in a row where nobody listens."""
    while True:
        first = int(free_address().rpartition(":")[2])
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + count):
                probe = stack.enter_context(socket.socket())
                probe.bind(("127.0.0.1", port))
            return first
