"""``python -m benchmarks.instances``: what a second instance adds behind one address.

Starts ``flux-api serve`` with one instance and then with two, each held to a core of
its own with one thread, and has 16 clients ask for small pictures for a while.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import requests

from benchmarks.chaos_stack import children
from benchmarks.fleet_stack import Fleet

CLIENTS = 16
SECONDS = 60.0
FORM = {"prompt": "a red heart", "width": 256, "height": 256}


def main() -> None:
    """Print the pictures a second of each, and their ratio."""
    paces = [measure(count) for count in (1, 2)]
    print(f"two instances against one               {paces[1] / paces[0]:8.2f}")


def measure(count: int) -> float:
    """Pictures a second of ``count`` instances."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Fleet(count, Path(folder), FLUX_LOG_LEVEL="error") as fleet,
    ):
        cores = sorted(os.sched_getaffinity(0))
        for number in range(count):
            pin(fleet.master(number), cores[number % len(cores)])
        told: Counter[str] = Counter()
        until = time.monotonic() + SECONDS
        threads = [
            threading.Thread(target=ask, args=(fleet.url, until, told))
            for _ in range(CLIENTS)
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


def ask(url: str, until: float, told: Counter[str]) -> None:
    """Ask one picture after the other; count them by instance, others by status."""
    while time.monotonic() < until:
        answer = requests.post(f"{url}/process/raw", data=FORM, timeout=300)
        job = answer.headers.get("X-Job-Id", "")
        told[job[:2] if answer.ok else str(answer.status_code)] += 1


def pin(master: int, core: int) -> None:
    """Hold the worker's threads to one core."""
    for worker in children(master):
        for thread in os.listdir(f"/proc/{worker}/task"):
            os.sched_setaffinity(int(thread), {core})


if __name__ == "__main__":
    main()
