"""``python -m benchmarks.newcomer``: how long a small request waits that comes while
another caller's ten or twenty pictures are made, against the wait behind a plain
lock."""

from __future__ import annotations

from benchmarks.report import Report, read_options
from benchmarks.server import start
from benchmarks.serving import fairness

WAYS = {"one a forward": (0, 1), "shared forwards": (100_000, 2)}


def main() -> None:
    """Print one line a measurement."""
    report = Report("newcomer", read_options(__doc__).results)
    for way, (tokens, requests_of_ten) in WAYS.items():
        with start(FLUX_BATCH_TOKENS=tokens) as server:
            waited, behind_lock, health = fairness(server.url, requests_of_ten)
        report.add(f"{way}: waited", waited * 1000, "ms")
        report.add(f"{way}: over the wait behind a lock", waited / behind_lock, "x")
        report.add(f"{way}: /healthz, 99th percentile", health * 1000, "ms")
    report.write()


if __name__ == "__main__":
    main()
