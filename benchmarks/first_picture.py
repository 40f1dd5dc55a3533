"""``python -m benchmarks.first_picture``: how OpenMP's threads wait, idle and busy.

For each way of waiting a server of its own, with the embedded model on the CPU: seconds
of the first picture after it said ready and of later ones (the median of 9), on the
machine as it is and beside four processes that compute. Each is measured ``--rounds``
times, in turns, and the median is printed. Quiet the machine first.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import requests

from benchmarks.server import start

DEFAULT = "libgomp's default, GOMP_SPINCOUNT=300000"
WAYS: dict[str, dict[str, str]] = {
    "as shipped, GOMP_SPINCOUNT=1000": {},
    DEFAULT: {"GOMP_SPINCOUNT": "300000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "GOMP_SPINCOUNT=20000": {"GOMP_SPINCOUNT": "20000"},
    "OMP_NUM_THREADS=1": {"OMP_NUM_THREADS": "1"},
}
BUSY = 4


def main() -> None:
    """Print one line for each way of waiting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    found: dict[str, list[tuple[float, float, float, float]]] = {w: [] for w in WAYS}
    for _ in range(rounds):
        for way, settings in WAYS.items():
            idle = measure(settings)
            with busy_processes(BUSY):
                found[way].append((*idle, *measure(settings)))
    print("| | idle: first | later | busy: first | later | later, idle, as a ratio |")
    print("| --- | --- | --- | --- | --- | --- |")
    medians = {
        way: [statistics.median(column) for column in zip(*rows, strict=True)]
        for way, rows in found.items()
    }
    for way, values in medians.items():
        seconds = " | ".join(f"{value:.2f} s" for value in values)
        ratio = values[1] / medians[DEFAULT][1]
        print(f"| {way} | {seconds} | {ratio:.2f} |")


def measure(settings: dict[str, str]) -> tuple[float, float]:
    """Seconds of the first picture after the server is ready, and of later ones."""
    with start(**settings) as server:
        first = draw(server.url)
        return first, statistics.median(draw(server.url) for _ in range(9))


def draw(url: str) -> float:
    """Seconds of one picture with default settings."""
    began = time.monotonic()
    requests.post(
        f"{url}/process/raw", data={"prompt": "a red heart"}
    ).raise_for_status()
    return time.monotonic() - began


@contextlib.contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """``count`` processes that compute without a pause."""
    loop = [sys.executable, "-c", "while True: sum(range(10**6))"]
    processes = [subprocess.Popen(loop) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
