"""``python -m benchmarks.starting``: what it takes until a server with the embedded
model has drawn its first picture and says that it is ready."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

from benchmarks.report import Report, read_options
from benchmarks.server import start


def main() -> None:
    """Print one line a measurement."""
    options = read_options(__doc__, rounds=5)
    rounds, report = options.rounds, Report("starting", options.results)
    walls, cpus, sizes = [], [], []
    for _ in range(rounds):
        began = time.perf_counter()
        with start() as server:
            walls.append(time.perf_counter() - began)
            cpus.append(_cpu(server.pid) + _cpu(server.worker()))
            sizes.append(server.resident_mib())
    report.add("until ready", statistics.median(walls), "s")
    report.add("CPU time until ready, of both processes", statistics.median(cpus), "s")
    report.add("the least of them", min(cpus), "s")
    report.add("resident memory of the worker", statistics.median(sizes), "MiB")
    report.write()


def _cpu(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
