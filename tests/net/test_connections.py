"""A process ends, whatever its connections wait for."""

from __future__ import annotations

import subprocess
import sys

from tests.support.servers import ROOT

PROGRAM = """
import time
from flux_api.errors import ImageFetchFailed
from flux_api.net.connections import Deadline
from flux_api.net.fetch import Fetcher, FetchPolicy

Deadline(3600).__enter__()
never = lambda *_, **__: time.sleep(3600)
fetcher = Fetcher(FetchPolicy(1, total_seconds=0.2), resolve=never)
try:
    fetcher.fetch("http://example.com/a.png")
except ImageFetchFailed:
    print("given up", flush=True)
"""


def test_neither_a_deadline_nor_a_name_that_is_looked_up_keeps_a_process():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "given up\n"), done.stderr
