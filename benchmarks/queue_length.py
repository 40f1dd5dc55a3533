"""``python -m benchmarks.queue_length``: what a request costs in the manager while 1 to
1,000 others wait.

No model and no HTTP: a manager over a backend that makes one picture without end.
CPU time of the submitting thread, and of telling everybody their positions.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from benchmarks.report import Report, median_of, read_options
from flux_api.core import ImageRequest
from flux_api.queue.manager import PipelineManager

LENGTHS = (1, 10, 100, 1000)


class _Held:
    """Makes one picture, without end."""

    memory = outage = None
    slots = 1

    def load(self, report: Callable[[str], None]) -> None:
        pass

    def joins(self, request: object, running: object) -> bool:
        return True

    def fits(self, request: object, running: object) -> bool:
        return False

    def tokens(self, request: object) -> int:
        return 64

    def is_warm(self, request: object) -> bool:
        return True

    def prepare(self, request: object) -> None:
        pass

    def run(self, picture: object, callbacks: object) -> None:
        threading.Event().wait()


def main() -> None:
    """Print one line a measurement."""
    options = read_options(__doc__, rounds=200)
    rounds, report = options.rounds, Report("queue_length", options.results)
    for who, caller_of in (("many callers", str), ("one caller", lambda _: "one")):
        costs = [_cost(length, rounds, caller_of) for length in LENGTHS]
        for length, (submit, told) in zip(LENGTHS, costs, strict=True):
            report.add(f"{who}, {length} waiting: a submit", submit * 1000, "ms")
            report.add(f"{who}, {length} waiting: the order", told * 1000, "ms")
        report.add(f"{who}, a submit at 1,000 over 1", costs[-1][0] / costs[0][0], "x")
    report.write()


def _cost(
    length: int, rounds: int, caller_of: Callable[[int], str]
) -> tuple[float, float]:
    """Median CPU seconds of a submit while ``length`` wait, and of their order."""
    manager = PipelineManager(_Held, max_queue=length + 2)
    manager.start()
    while manager.not_ready is not None:
        time.sleep(0.01)
    jobs = [manager.open(caller=caller_of(number)) for number in range(length)]
    for job in jobs:
        manager.submit(job, _request())
    times = []
    for number in range(rounds):
        came = []

        def come(number: int = number, came: list[object] = came) -> None:
            job = manager.open(caller=caller_of(length + number))
            manager.submit(job, _request())
            came.append(job)

        times.append(median_of([come], clock=time.thread_time))
        # As many wait at the next one.
        manager.cancel(came[0])
    order = median_of([manager._jobs_in_order] * 20, clock=time.thread_time)
    return sorted(times)[rounds // 2], order


def _request() -> ImageRequest:
    return ImageRequest(
        mode="generate",
        model="none",
        prompt="x",
        width=64,
        height=64,
        num_inference_steps=4,
        guidance_scale=None,
        seed=1,
    )


if __name__ == "__main__":
    main()
