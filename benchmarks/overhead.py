"""``python -m benchmarks.overhead``: a picture over HTTP against the bare pipeline.

Both in turns, so that what else the machine does meets both; every prompt is new.
"""

from __future__ import annotations

import itertools
import statistics
from typing import Any

import requests

from benchmarks.bare import BarePipeline
from benchmarks.report import Report, in_turns, read_options
from benchmarks.server import start

KINDS: dict[str, dict[str, Any]] = {
    "64x64, 2 steps": {"width": 64, "height": 64, "num_inference_steps": 2},
    "default settings": {},
}


def main() -> None:
    """Print one line a measurement."""
    options = read_options(__doc__, rounds=40)
    rounds, report = options.rounds, Report("overhead", options.results)
    bare = BarePipeline()
    seeds = itertools.count()
    with start() as server, requests.Session() as session:

        def ask(asked: dict[str, Any]) -> None:
            seed = next(seeds)
            form = {"prompt": f"a red heart {seed}", "seed": seed} | asked
            answer = session.post(f"{server.url}/process/raw", data=form, timeout=600)
            answer.raise_for_status()

        def draw(asked: dict[str, Any]) -> None:
            seed = next(seeds)
            bare.draw(f"a red heart {seed}", seed, **asked)

        for kind, asked in KINDS.items():
            in_turns(2, lambda a=asked: ask(a), lambda a=asked: draw(a))
            served, alone = in_turns(
                rounds, lambda a=asked: ask(a), lambda a=asked: draw(a)
            )
            middle = statistics.median(served), statistics.median(alone)
            report.add(f"{kind}: over HTTP, median", middle[0] * 1000, "ms")
            report.add(f"{kind}: bare pipeline, median", middle[1] * 1000, "ms")
            report.add(f"{kind}: median over median", middle[0] / middle[1], "x")
            report.add(f"{kind}: minimum over minimum", min(served) / min(alone), "x")
    report.write()


if __name__ == "__main__":
    main()
