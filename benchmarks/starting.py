"""``python -m benchmarks.starting``: what it takes until a server with the embedded
model has drawn its first picture and says that it is ready."""

from __future__ import annotations

import statistics
import time

from benchmarks.report import Report, read_options
from benchmarks.server import cpu_seconds, start


def main() -> None:
    """Print one line a measurement."""
    options = read_options(__doc__, rounds=5)
    rounds, report = options.rounds, Report("starting", options.results)
    walls, cpus, sizes = [], [], []
    for _ in range(rounds):
        began = time.perf_counter()
        with start() as server:
            walls.append(time.perf_counter() - began)
            cpus.append(cpu_seconds(server.pid) + server.cpu_seconds())
            sizes.append(server.resident_mib())
    report.add("until ready", statistics.median(walls), "s")
    report.add("CPU time until ready, of both processes", statistics.median(cpus), "s")
    report.add("the least of them", min(cpus), "s")
    report.add("resident memory of the worker", statistics.median(sizes), "MiB")
    report.write()


if __name__ == "__main__":
    main()
