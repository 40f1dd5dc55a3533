"""``python -m benchmarks.instances``: what a second instance adds behind one address.

Starts ``flux-api serve`` with one instance and then with two, each held to a core of
its own with one thread, and has 16 clients ask for small pictures for a while.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import requests

from benchmarks.chaos_stack import ROOT, children, wait_until

CLIENTS = 16
SECONDS = 60.0
FIRST_PORT = 18_100
URL = "http://127.0.0.1:18000"
FORM = {"prompt": "a red heart", "width": 256, "height": 256}


def main() -> None:
    """Print the pictures a second of each, and their ratio."""
    paces = [measure(count) for count in (1, 2)]
    print(f"two instances against one               {paces[1] / paces[0]:8.2f}")


def measure(count: int) -> float:
    """Pictures a second of ``count`` instances."""
    with tempfile.TemporaryDirectory() as folder, serving(count, Path(folder)):
        told: Counter[str] = Counter()
        until = time.monotonic() + SECONDS
        threads = [
            threading.Thread(target=ask, args=(until, told)) for _ in range(CLIENTS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    made = sum(number for name, number in told.items() if name.startswith("g"))
    pace = made / SECONDS
    shares = ", ".join(f"{name} {told[name]}" for name in sorted(told))
    print(f"{count} of them, pictures a second           {pace:8.2f}  ({shares})")
    return pace


def ask(until: float, told: Counter[str]) -> None:
    """Ask one picture after the other; count them by instance, others by status."""
    while time.monotonic() < until:
        answer = requests.post(f"{URL}/process/raw", data=FORM, timeout=300)
        job = answer.headers.get("X-Job-Id", "")
        told[job[:2] if answer.ok else str(answer.status_code)] += 1


@contextlib.contextmanager
def serving(count: int, folder: Path) -> Iterator[None]:
    """``count`` instances behind URL, each on a core of its own."""
    settings = {
        "XDG_STATE_HOME": str(folder),
        "STORAGE_URL": f"file://{folder}/images",
        "FLUX_LOG_LEVEL": "error",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "flux_api", "serve", "--instances", str(count)]
    command += ["--bind", URL.removeprefix("http://"), "--first-port", str(FIRST_PORT)]
    process = subprocess.Popen(
        [*command, "--files-bind", "127.0.0.1:18010"],
        cwd=ROOT,
        env=os.environ | settings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    urls = [f"http://127.0.0.1:{FIRST_PORT + number}" for number in range(count)]
    try:
        wait_until(lambda: all(map(is_ready, urls)), 600)
        cores = sorted(os.sched_getaffinity(0))
        for number, url in enumerate(urls):
            for master in children(process.pid):
                if url.removeprefix("http://") in arguments(master):
                    pin(master, cores[number % len(cores)])
        yield
    finally:
        process.terminate()
        process.wait(60)


def is_ready(url: str) -> bool:
    """Whether that instance takes requests."""
    with contextlib.suppress(requests.RequestException):
        return requests.get(f"{url}/readyz", timeout=5).ok
    return False


def arguments(pid: int) -> list[str]:
    """The command line of a process."""
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def pin(master: int, core: int) -> None:
    """Hold the worker's threads to one core."""
    for worker in children(master):
        for thread in os.listdir(f"/proc/{worker}/task"):
            os.sched_setaffinity(int(thread), {core})


if __name__ == "__main__":
    main()
