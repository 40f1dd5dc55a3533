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
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu_child import GRACE, ROOT, run
from benchmarks.gpu_report import Report

SETS = ("klein-4b", "flux1")
HTTP_PARTS = ("speed", "sharing", "cancel", "oom")
# Each in processes of its own. Levels compile, which takes minutes, and stages are for
# who makes them faster: they are measured where they are asked for.
APART, ASKED = ("placements", "levels", "stages"), ("levels", "stages")
PARTS = tuple(f"{name}-{part}" for name in SETS for part in (*HTTP_PARTS, *APART))
# The largest picture that a set draws, and one that is large for a simulated card.
LARGEST = {"klein-4b": "2048x2048", "flux1": "2048x1024"}
_SIMULATED = ("tests.gpu.app:app", (64, 96), dict.fromkeys(SETS, "512x512"))
_TINY = """
import sys
from pathlib import Path
from tests.support.tiny_sets import write_sets
folder = Path(sys.argv[2])
folder.mkdir(exist_ok=True)
write_sets(folder, (sys.argv[1],), 256)
"""


def main() -> int:
    """Measure what was asked for; 1 where something failed, 2 without a GPU."""
    options = _options()
    report = Report(options.out, {})
    until = time.time() + options.seconds
    machine = _machine(options)
    if machine is None:
        return 2
    date = time.strftime("%Y-%m-%d", time.gmtime())
    report.facts = {"command": "make gpu-check", "date": date} | machine
    wanted = options.only or [part for part in PARTS if not part.endswith(ASKED)]
    for number, name in enumerate(SETS, 1):
        parts = [part for part in wanted if part.startswith(name)]
        if parts:
            # What one set takes too long for is not to be the next one's loss.
            others = len(
                {p for p in SETS[number:] if any(w.startswith(p) for w in wanted)}
            )
            share = (until - time.time()) / (1 + others)
            _measure(name, parts, options, report, time.time() + share)
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
    options.app, options.sides, options.largest = "wsgi:app", (512, 1024), LARGEST
    # Nothing is downloaded; who asks a Hub that cannot be reached waits for long. And
    # no proxy stands between this and its own server.
    os.environ |= {"HF_HUB_OFFLINE": "1", "no_proxy": "127.0.0.1"}
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
    for part in APART:
        if part in over:
            _apart(name, part, table, options, report, until)
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
        command = ["-c", _TINY, name, str(folder)]
    try:
        subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            check=True,
            timeout=until - time.time() + GRACE,
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
        command += [f"--largest={options.largest[name]}", f"--app={options.app}"]
        ended = run(name, parts, [*command, f"--filler={filler}"], report, until)
        if ended.clean or time.time() > until:
            return
        parts = parts[ended.rows + ended.broken :]


def _apart(
    name: str,
    part: str,
    table: Path,
    options: argparse.Namespace,
    report: Report,
    until: float,
) -> None:
    """All rows of ``part``; after one that ends its process the next ones."""
    done = 0
    while True:
        command = [*options.launch, f"benchmarks.gpu_{part}", name, str(table)]
        command += [f"--side={options.sides[-1]}", f"--skip={done}", f"--until={until}"]
        ended = run(name, [part], command, report, until)
        done += ended.rows
        if ended.clean or time.time() > until:
            return
        done += ended.broken


if __name__ == "__main__":
    sys.exit(main())
