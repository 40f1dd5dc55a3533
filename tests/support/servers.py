"""Real servers for the tests: gunicorn in processes of their own, on free ports."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import requests

from tests.support.warm_start import Forker, import_heavy, import_light

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "a-token-of-the-tests"
# One thread a process: with two on busy cores the same call takes many times longer.
QUIET = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "PYTHONUNBUFFERED": "1",
    "PYTHONPATH": str(ROOT),
}
SETTINGS = (
    "FLUX_",
    "FILE",
    "BEARER_",
    "STORAGE_",
    "PUBLIC_",
    "UPLOAD_",
    "MODEL_INFO",
    "FAKE_",
)
# What the API sets for libraries, in this process too where a test draws in it.
OF_LIBRARIES = (
    *("GOMP_SPINCOUNT", "TORCHINDUCTOR_CACHE_DIR"),
    *("DIFFUSERS_DISABLE_REMOTE_CODE", "PYTEST_CURRENT_TEST"),
)
# What the processes of each application may have imported before they begin.
IMPORTS = {
    "wsgi:app": import_heavy,
    "tests.support.fake_app:app": import_light,
    "file_server:create_app()": import_light,
}


class Server:
    """A running server: its ``url``, its process and what it printed."""

    def __init__(self, url, process, log):
        self.url, self.process, self._log = url, process, log
        self.instances = [self]

    @property
    def output(self):
        """Everything printed so far."""
        return Path(self._log).read_text(errors="replace")

    def wait_ready(self, seconds=90):
        """Wait for /readyz to answer 200; gives the server back."""
        wait_for(
            lambda: requests.get(f"{self.url}/readyz", timeout=5).ok, seconds, self
        )
        return self

    def stop(self, sig=signal.SIGTERM, seconds=30):
        """Send ``sig`` and wait; gives the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise


def free_port():
    """A port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(true, seconds, server=None):
    """Wait until ``true()``; connection errors count as false."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(requests.ConnectionError, requests.Timeout):
            if true():
                return
        if server is not None and server.process.poll() is not None:
            raise AssertionError(f"the server ended:\n{server.output}")
        time.sleep(0.05)
    output = f":\n{server.output}" if server is not None else ""
    raise AssertionError(f"not true within {seconds} s{output}")


def quiet_environ():
    """This process's environment without settings of ours."""
    ours = (*SETTINGS, *OF_LIBRARIES)
    return {k: v for k, v in os.environ.items() if not k.startswith(ours)} | QUIET


@functools.cache
def forker(imports):
    """The one process that servers with these imports are forked from."""
    return Forker(imports, quiet_environ())


@contextlib.contextmanager
def run(command, *, url, settings, cwd=ROOT, imports=None):
    """``command`` with only ``settings`` of ours in its environment; forked from a
    process that has done ``imports`` where they are given, and would be the same."""
    environ = quiet_environ()
    env = environ | {name: str(value) for name, value in settings.items()}
    # What libraries read when they are imported is none of our settings.
    is_warm = imports and all(name.startswith(SETTINGS) for name in settings)
    with tempfile.NamedTemporaryFile(suffix=".log") as log:
        if is_warm and forker(imports).environ == environ:
            process = forker(imports).run(command, env=env, cwd=cwd, output=log)
        else:
            process = subprocess.Popen(
                command,
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield Server(url, process, log.name)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def run_api(*options, app="wsgi:app", imports=IMPORTS, **settings):
    """The API under gunicorn as an operator starts it; once the port answers.
    ``app="tests.support.fake_app:app"`` is the same over a backend without torch,
    ``imports={}`` lets it import all by itself, as sets with quantized weights need it,
    and ``BEHIND_NGINX=1`` in the environment puts nginx in front of it."""
    from tests.support import behind

    if not behind.COUNT:
        with _run_one_api(options, app, imports.get(app), settings) as server:
            yield server
        return

    def run_one(**own):
        return _run_one_api((), app, imports.get(app), own)

    with behind.run_fronted(run_one, options, settings) as server:
        yield server


@contextlib.contextmanager
def _run_one_api(options, app, imports, settings):
    port = free_port()
    command = [
        *(sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py"),
        *("-b", f"127.0.0.1:{port}", *options, app),
    ]
    url = f"http://127.0.0.1:{port}"
    with run(command, url=url, settings=settings, imports=imports) as server:
        wait_for(
            lambda: requests.get(f"{server.url}/healthz", timeout=5).ok, 60, server
        )
        yield server


@contextlib.contextmanager
def run_files(folder, **settings):
    """The file server under gunicorn, storing in ``folder``."""
    port = free_port()
    app, url = "file_server:create_app()", f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "gunicorn", "-b", f"127.0.0.1:{port}", app]
    settings = {"BEARER_TOKEN": TOKEN, "STORAGE_URL": f"file://{folder}"} | settings
    with run(command, url=url, settings=settings, imports=IMPORTS[app]) as server:
        wait_for(
            lambda: requests.get(f"{server.url}/healthz", timeout=5).ok, 30, server
        )
        yield server


def post_and_leave(url, path, form, when, more=b""):
    """Post ``form`` (urlencoded bytes) and ``more`` behind it, wait until ``when()``,
    close the connection."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Length: {len(form)}\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\n\r\n".encode()
            + form
            + more
        )
        wait_for(when, 10)
