"""What a measurement prints, and keeps as JSON beside it: its numbers, the machine and
the versions that they are of."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.server import ROOT

RESULTS = Path("benchmarks", "results")
_PACKAGES = ("torch", "diffusers", "transformers", "pillow", "gunicorn", "flask")


def read_options(description: str | None, **numbers: int) -> argparse.Namespace:
    """The command line's ``--NAME`` for each of ``numbers``, with their defaults, and
    ``--results``, the folder for the JSON."""
    parser = argparse.ArgumentParser(description=description)
    for name, default in numbers.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=int, default=default)
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args()


class Report:
    """The rows of one run of ``python -m benchmarks.NAME``, kept in ``folder``."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name, self._folder = name, folder
        self._rows: list[dict[str, Any]] = []
        self._began = time.strftime("%Y-%m-%d", time.gmtime())
        self._load = os.getloadavg()[0]

    def add(self, measure: str, value: float, unit: str) -> None:
        """A number of this run, printed at once; ratios have the unit "x"."""
        self._rows.append({"measure": measure, "value": value, "unit": unit})
        print(f"{measure:58} {value:10.3f} {unit}", flush=True)

    def write(self) -> None:
        """Print what it was measured with, and keep it all in a file."""
        facts = {
            "command": f"python -m benchmarks.{self._name}",
            "date": self._began,
            "machine": machine(),
            "load_before": round(self._load, 2),
            "python": platform.python_version(),
            "packages": {name: version(name) for name in _PACKAGES},
            "commit": _commit(),
        }
        print(f"{facts['date']}, {facts['machine']}, load before {self._load:.1f}")
        print(", ".join(f"{n} {v}" for n, v in facts["packages"].items()))
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{self._name}.json"
        text = json.dumps(facts | {"rows": self._rows}, indent=1)
        path.write_text(text + "\n")
        print(f"written to {path}")


def machine() -> str:
    """The processor and how much of it there is; the GPU where there is one."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        names = [line.split(":")[1] for line in lines if line.startswith("model name")]
        model = names[0].strip() if names else model
    found = f"{len(os.sched_getaffinity(0))} cores of {model}"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found += f", {torch.cuda.get_device_name()}"
    return found


def seconds(work: Callable[[], object], *, clock: Callable[[], float]) -> float:
    """Seconds of one call by ``clock``."""
    began = clock()
    work()
    return clock() - began


def median_of(
    works: Iterable[Callable[[], object]],
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """The median of their seconds."""
    return statistics.median(seconds(work, clock=clock) for work in works)


def in_turns(rounds: int, *works: Callable[[], object]) -> list[list[float]]:
    """Wall-clock seconds of each of ``works``, taken in turns ``rounds`` times: what
    else the machine does meanwhile meets all of them."""
    found: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, times in zip(works, found, strict=True):
            times.append(seconds(work, clock=time.perf_counter))
    return found


def _commit() -> str:
    answer = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True
    )
    return answer.stdout.decode().strip()
