"""``python -m benchmarks.overhead``: a picture over HTTP against the bare pipeline.

The bare pipeline encodes the prompt and what it is guided away from, draws, and resizes
to the size asked for; it makes no file and no answer. Both in turns, so that what else
the machine does meets both; every prompt is new. Wall-clock times want a quiet machine,
CPU times of both processes hold on a busy one.
"""

from __future__ import annotations

import itertools
import statistics
import time
from typing import Any

import requests

from benchmarks.bare import BarePipeline
from benchmarks.report import Report, read_options
from benchmarks.server import Server, start

KINDS: dict[str, dict[str, Any]] = {
    "64x64, 2 steps": {"width": 64, "height": 64, "num_inference_steps": 2},
    "default settings": {},
}


def main() -> None:
    """Print one line a measurement."""
    options = read_options(__doc__, rounds=40)
    report = Report("overhead", options.results)
    bare = BarePipeline()
    with start() as server, requests.Session() as session:
        pair = _Pair(server, session, bare)
        for kind, asked in KINDS.items():
            pair.measure(2, asked)
            served, alone, used, used_alone = pair.measure(options.rounds, asked)
            middle = statistics.median(served), statistics.median(alone)
            report.add(f"{kind}: over HTTP, median", middle[0] * 1000, "ms")
            report.add(f"{kind}: bare pipeline, median", middle[1] * 1000, "ms")
            report.add(f"{kind}: median over median", middle[0] / middle[1], "x")
            report.add(f"{kind}: minimum over minimum", min(served) / min(alone), "x")
            report.add(f"{kind}: CPU time over CPU time", used / used_alone, "x")
    report.write()


class _Pair:
    """The same picture over HTTP and out of ``bare``, in turns."""

    def __init__(
        self, server: Server, session: requests.Session, bare: BarePipeline
    ) -> None:
        self._server, self._session, self._bare = server, session, bare
        self._seeds = itertools.count()

    def measure(
        self, rounds: int, asked: dict[str, Any]
    ) -> tuple[list[float], list[float], float, float]:
        """Wall-clock seconds of each picture, over HTTP and bare, and the CPU seconds
        of all, of the worker and of this process while it draws."""
        served, alone = [], []
        used = self._server.cpu_seconds()
        used_alone = 0.0
        for _ in range(rounds):
            began = time.perf_counter()
            self._ask(asked)
            served.append(time.perf_counter() - began)
            began, before = time.perf_counter(), time.process_time()
            seed = next(self._seeds)
            self._bare.draw(f"a red heart {seed}", seed, **asked)
            alone.append(time.perf_counter() - began)
            used_alone += time.process_time() - before
        return served, alone, self._server.cpu_seconds() - used, used_alone

    def _ask(self, asked: dict[str, Any]) -> None:
        seed = next(self._seeds)
        form = {"prompt": f"a red heart {seed}", "seed": seed} | asked
        url = f"{self._server.url}/process/raw"
        self._session.post(url, data=form, timeout=600).raise_for_status()


if __name__ == "__main__":
    main()
