"""``make gpu-check``: what the server does on this machine's NVIDIA GPU, in 9 minutes.

Full-size random weights are written on the spot (40 GiB of disk at most, no download),
each set's are gone before the next one's. Every row is in the table as soon as it is
measured; a part that lacks something says so, and the next one goes on. Nothing but
Python's own library is imported here, so that this holds for torch, too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu_report import Report

ROOT = Path(__file__).resolve().parent.parent
SETS = ("klein-4b", "flux1")
HTTP_PARTS = ("speed", "sharing", "cancel", "oom")
PARTS = tuple(f"{name}-{part}" for name in SETS for part in (*HTTP_PARTS, "placements"))
_SIMULATED = ("tests.gpu.app:app", (64, 96), 512)
# Seconds that a child may take to end after its last row.
_GRACE = 20
_EVERY = 1_000
_TINY = """
import sys
from pathlib import Path
from tests.support.tiny_sets import write_sets
folder = Path(sys.argv[1])
folder.mkdir(exist_ok=True)
write_sets(folder, ("klein-4b", "flux1"))
"""


def main() -> int:
    """Measure what was asked for; 1 where something failed, 2 without a GPU."""
    options = _options()
    report = Report(options.out, [])
    until = time.time() + options.seconds
    machine = _machine(options)
    if machine is None:
        return 2
    report.heading = [
        "# What the server does on a GPU",
        "",
        f"{time.strftime('%Y-%m-%d', time.gmtime())}; "
        + "; ".join(f"{name} {value}" for name, value in machine.items())
        + ". `make gpu-check`, weights are random.",
    ]
    for name in SETS:
        parts = [part for part in options.only or PARTS if part.startswith(name)]
        if parts:
            _measure(name, parts, options, report, until)
    return int(report.failed)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "gpu.md")
    parser.add_argument("--folder", type=Path, default=ROOT / "var" / "gpu-check")
    parser.add_argument("--seconds", type=float, default=520)
    parser.add_argument(
        "--simulated",
        action="store_true",
        help="on the GPU that the tests simulate, with tiny sets",
    )
    options = parser.parse_args()
    options.folder = options.folder.resolve()
    options.folder.mkdir(parents=True, exist_ok=True)
    options.launch = [sys.executable, "-m"]
    options.app, options.sides, options.largest = "wsgi:app", (512, 1024), 2048
    if options.simulated:
        options.launch += ["tests.gpu"]
        options.app, options.sides, options.largest = _SIMULATED
        os.environ["SIMULATED_GPU_CARD"] = str(options.folder / "card")
        # bitsandbytes would compile its kernels for CPUs anew for each size of layer.
        os.environ |= {"TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    return options


def _machine(options: argparse.Namespace) -> dict[str, str] | None:
    """The card and the versions; None, and why, where there is none."""
    command = [*options.launch, "benchmarks.gpu_machine"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"There is no GPU to measure: {last}", file=sys.stderr)
        return None
    found: dict[str, str] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _measure(
    name: str,
    parts: Sequence[str],
    options: argparse.Namespace,
    report: Report,
    until: float,
) -> None:
    """The ``parts`` of the set ``name``, with weights that are written for them."""
    table = _weights(name, options, report, until)
    if table is None:
        return
    over = [part.removeprefix(f"{name}-") for part in parts]
    asked = [part for part in over if part in HTTP_PARTS]
    _through_http(name, asked, table, options, report, until)
    if "placements" in over:
        _placements(name, table, options, report, until)
    if not options.simulated:
        shutil.rmtree(options.folder / "weights")


def _weights(
    name: str, options: argparse.Namespace, report: Report, until: float
) -> Path | None:
    """The MODEL_INFO file of the set with random weights; None where there are none,
    with a row that says why."""
    folder = options.folder / "weights"
    command = ["-m", "benchmarks.random_weights", name, "--folder", str(folder)]
    if options.simulated:
        command = ["-c", _TINY, str(folder)]
    try:
        subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            check=True,
            timeout=until - time.time() + _GRACE,
        )
        return folder / ("models.toml" if options.simulated else f"{name}.toml")
    except subprocess.TimeoutExpired:
        why = "the time is up"
    except subprocess.CalledProcessError as error:
        why = (error.stderr.strip().splitlines() or ["no message"])[-1]
    report.add(f"{name}-weights", {"result": f"failed: {why}"})
    shutil.rmtree(folder, ignore_errors=True)
    return None


def _through_http(
    name: str,
    parts: Sequence[str],
    table: Path,
    options: argparse.Namespace,
    report: Report,
    until: float,
) -> None:
    """The ``parts`` that a server is needed for; after one that ends the process the
    next ones."""
    filler = json.dumps([*options.launch, "benchmarks.gpu_fill"])
    while parts:
        command = [sys.executable, "-m", "benchmarks.gpu_http", name, str(table)]
        command += [*parts, "--sides", *map(str, options.sides), f"--until={until}"]
        command += [f"--largest={options.largest}", f"--app={options.app}"]
        ended = _run(name, parts, [*command, f"--filler={filler}"], report, until)
        if ended.clean or time.time() > until:
            return
        parts = parts[ended.rows + ended.broken :]


def _placements(
    name: str, table: Path, options: argparse.Namespace, report: Report, until: float
) -> None:
    """Every way of holding the set; after one that ends its process the next ones."""
    done = 0
    while True:
        command = [*options.launch, "benchmarks.gpu_placements", name, str(table)]
        command += [f"--side={options.sides[-1]}", f"--skip={done}", f"--until={until}"]
        ended = _run(name, ["placements"], command, report, until)
        done += ended.rows
        if ended.clean or time.time() > until:
            return
        done += ended.broken


@dataclass
class _Ended:
    """After how many ``rows`` a child ended, of them ``broken`` ones, or ``clean``."""

    rows: int = 0
    broken: int = 0
    clean: bool = False


def _run(
    name: str, parts: Sequence[str], command: list[str], report: Report, until: float
) -> _Ended:
    """Run ``command`` and keep the rows that it prints; what it has begun and does not
    end is a row that failed."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(process.stderr or ()))
    reader.start()
    # Its server, too.
    left = max(1, until - time.time() + _GRACE)
    timer = threading.Timer(left, os.killpg, (process.pid, signal.SIGKILL))
    timer.start()
    ended, begun = _Ended(), None
    for line in process.stdout or ():
        word, _, text = line.partition(" ")
        if word == "BEGIN":
            begun = json.loads(text)["row"]
        elif word == "END":
            begun, ended.rows = None, ended.rows + 1
        elif word == "ROW":
            row = json.loads(text)
            report.add(f"{name}-{row.pop('part', 'placements')}", row)
    process.wait()
    timer.cancel()
    reader.join()
    ended.clean = process.returncode == 0
    if not ended.clean and (begun or not ended.rows):
        # Of a server that does not start the line before says more.
        why = " / ".join(line.strip() for line in said[-2:])[-200:]
        if process.returncode == -signal.SIGKILL:
            why = "the time is up" if time.time() > until else "killed"
        row = {"row": begun or "start", "result": f"failed: {why}"}
        # What did not even start is none of its parts' fault alone.
        hit = parts if begun is None else [begun if begun in parts else parts[0]]
        for part in hit:
            report.add(f"{name}-{part}", row)
        ended.broken = 1 if begun else _EVERY
    elif time.time() > until:
        report.add(f"{name}-{parts[-1]}", {"row": "rest", "result": "no time left"})
    return ended


if __name__ == "__main__":
    sys.exit(main())
