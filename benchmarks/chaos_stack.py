"""nginx, the file server and the API as they are deployed, for chaos.py to break."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import requests

ROOT = Path(__file__).resolve().parent.parent
_GUNICORN = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "-b"]


class Stack:
    """The three servers; ``folder`` holds what they write. A context manager."""

    def __init__(self, folder: Path) -> None:
        self.stored = folder / "images"
        self.models = folder / "models.toml"
        self.models.write_text("")
        self._folder = folder
        self._ports = [_free_port() for _ in range(3)]
        self.url, self.api_url, files = (
            f"http://127.0.0.1:{port}" for port in self._ports
        )
        settings = {
            "FILE_SERVER": files,
            "FILE_SERVER_PUBLIC_URL": self.url,
            "FLUX_TRUSTED_PROXIES": "1",
            "FLUX_LOG_LEVEL": "warning",
            "FILES_TRUSTED_PROXIES": "1",
            "MODEL_INFO": str(self.models),
            "STORAGE_URL": f"file://{self.stored}",
            # With two threads on busy cores the same picture takes many times longer.
            "OMP_NUM_THREADS": "1",
        }
        self._environ = os.environ | settings
        self._log = (folder / "log").open("ab")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Stack:
        self.start("files")
        self.start("api")
        self.start("nginx")
        wait_until(self.is_ready, 120)
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._log.close()

    def start(self, name: str) -> None:
        """Start one of "nginx", "api" and "files"."""
        _, api, files = self._ports
        commands = {
            "nginx": lambda: ["nginx", "-c", str(self._nginx_settings())],
            "api": lambda: [*_GUNICORN, f"127.0.0.1:{api}", "wsgi:app"],
            "files": lambda: [
                *(*_GUNICORN, f"127.0.0.1:{files}"),
                "file_server:create_app()",
            ],
        }
        self.processes[name] = subprocess.Popen(
            commands[name](),
            cwd=ROOT,
            env=self._environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin"},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def is_ready(self) -> bool:
        """Whether the API takes requests through nginx."""
        with contextlib.suppress(requests.RequestException):
            return requests.get(f"{self.url}/readyz", timeout=5).ok
        return False

    def worker(self, name: str) -> int:
        """The process id of the newest worker of a server; waits for one."""
        wait_until(lambda: bool(children(self.processes[name].pid)), 60)
        return max(children(self.processes[name].pid))

    def log(self) -> str:
        """What the servers printed."""
        return (self._folder / "log").read_text(errors="replace")

    def _nginx_settings(self) -> Path:
        text = (ROOT / "deploy" / "nginx.conf").read_text()
        for old, new in zip(("8080", "8000", "8010"), self._ports, strict=True):
            text = text.replace(f"127.0.0.1:{old}", f"127.0.0.1:{new}")
        (self._folder / "flux.conf").write_text(text)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temp = "".join(f"{kind}_temp_path {self._folder}/{kind};" for kind in kinds)
        path = self._folder / "nginx.conf"
        path.write_text(
            f"pid {self._folder}/pid; error_log stderr; daemon off; worker_processes 1;"
            f"events {{}} http {{ access_log off; {temp} "
            f"include {self._folder}/flux.conf; }}"
        )
        return path


def has_nginx() -> bool:
    """Whether nginx is installed."""
    return shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") is not None


def children(pid: int) -> list[int]:
    """The process ids of a process's children, whichever thread started them."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, path.read_text().split())
    return found


def wait_until(true: Callable[[], bool], seconds: float) -> None:
    """Wait until ``true()``; TimeoutError after ``seconds``."""
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            raise TimeoutError(f"not true within {seconds:g} s")
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
