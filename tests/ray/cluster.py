"""A Ray cluster of this machine alone, for the tests: started, looked into, ended."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.commands.program import environment
from tests.support.servers import ROOT, free_port, run, wait_for

# Only on Linux is it loopback too; with 127.0.0.1 Ray takes the machine's own address.
HOST = "127.0.0.2"
_STARTS = 8


class Cluster:
    """``settings`` are the variables that let a program join it."""

    def __init__(self, folder, address):
        self.folder = folder
        self.settings = {
            "RAY_ADDRESS": address,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": folder / "token",
        }

    def deploy(self, *arguments, **settings):
        """``flux-api deploy ray`` to its end."""
        return subprocess.run(
            [sys.executable, "-m", "flux_api", "deploy", "ray", *arguments],
            cwd=ROOT,
            env=environment(**{**self.settings, **settings}),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def deployed(self, *arguments, **settings):
        """What it says where it succeeds."""
        done = self.deploy(*arguments, **settings)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def processes(self, title):
        """The ids of its processes called ``title``."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                own = str(self.folder).encode() in (path / "environ").read_bytes()
                if own and (path / "cmdline").read_bytes().startswith(title.encode()):
                    found.append(int(path.name))
        return found

    def kill_all(self):
        """End whatever of it is left."""
        for pid in self.processes(""):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @property
    def logs(self):
        """What all of its processes have printed."""
        folder = self.folder / "r" / "session_latest" / "logs"
        return "".join(path.read_text() for path in folder.glob("worker-*.err"))

    @property
    def running(self):
        """How many replicas take work."""
        return int(re.search(r"(\d+) running", self.deploy("status").stdout)[1])


@contextlib.contextmanager
def run_cluster():
    """A head that is a whole cluster, with token authentication."""
    # A short name: sockets lie below it.
    folder = Path(tempfile.mkdtemp(prefix="flux-ray-", dir="/tmp"))
    (folder / "token").write_text(secrets.token_hex(32))
    cluster = Cluster(folder, f"{HOST}:{free_port()}")
    try:
        with contextlib.ExitStack() as stack:
            for _ in range(_STARTS):
                head = stack.enter_context(_run_head(cluster))
                if _comes_up(cluster, head):
                    break
                cluster.kill_all()
                shutil.rmtree(folder / "r")
            else:
                raise AssertionError("Ray's head does not come up")
            yield cluster
    finally:
        cluster.kill_all()
        shutil.rmtree(folder, ignore_errors=True)


def _run_head(cluster):
    port = cluster.settings["RAY_ADDRESS"].rpartition(":")[2]
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        *(f"--node-ip-address={HOST}", f"--port={port}", "--no-monitor"),
        *(f"--temp-dir={cluster.folder}/r", "--object-store-memory=100000000"),
        *("--num-cpus=8", "--num-gpus=0"),
        *("--include-dashboard=false", "--disable-usage-stats"),
    ]
    settings = cluster.settings | {"RAY_raylet_start_wait_time_s": 300}
    del settings["RAY_ADDRESS"]
    return run(command, url=None, settings=settings)


def _comes_up(cluster, head):
    """Whether it does; Ray gives a part of it 15 seconds to start, whatever it is told,
    and a busy machine takes longer at times."""
    logs = cluster.folder / "r" / "session_latest" / "logs"
    came = []

    def has_news():
        failed = any(path.stat().st_size for path in logs.glob("raylet.err"))
        came[:] = [True] * ("Ray runtime started" in head.output) + [False] * failed
        return came

    wait_for(has_news, 300, head)
    return came[0]
