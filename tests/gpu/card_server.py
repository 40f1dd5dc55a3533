"""The server on the GPU of this machine, or on a simulated one."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from subprocess import DEVNULL

from tests.gpu.simulated import Card, build
from tests.support.programs import need
from tests.support.servers import QUIET, ROOT, run_api

# So that the same pictures come out whatever the load is.
STEADY = {"FLUX_BATCH_TOKENS": 0, "FLUX_MEMORY": "manual"}


def has_real_gpu():
    """Whether there is a card whose driver answers."""
    found = shutil.which("nvidia-smi")
    return found is not None and subprocess.call([found], stdout=DEVNULL) == 0


def new_card(path, gib=16.0):
    """A simulated card in the file ``path``; None where there is a real one. Without a
    compiler the test is skipped."""
    if has_real_gpu():
        return None
    need("g++")
    build()
    return Card(path, gib)


def run_program(program, card):
    """What the Python text ``program`` prints on the simulated ``card``, by line."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=QUIET | {"SIMULATED_GPU_CARD": str(card.path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@contextlib.contextmanager
def run_on(card, *options, **settings):
    """The API on ``card``, None for the real one; once its port answers."""
    app = "wsgi:app"
    if card is not None:
        app = "tests.gpu.app:app"
        settings |= {"SIMULATED_GPU_CARD": card.path}
    with run_api(*options, app=app, **STEADY | settings) as server:
        yield server


def worker(card):
    """What the one process on the ``card`` besides this one has taken and moved."""
    [row] = [r for pid, r in card.processes.items() if pid != os.getpid()]
    return row
