"""A child of ``benchmarks.gpu_check``, and the rows that it prints.

It says BEGIN before a row of its work, ROW for each row of the table, and END.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu_report import Report

ROOT = Path(__file__).resolve().parent.parent
GRACE = 20
"""Seconds that a child may take to end after its last row."""
_EVERY = 1_000


@dataclass
class Ended:
    """After how many ``rows`` a child ended, of them ``broken`` ones, or ``clean``."""

    rows: int = 0
    broken: int = 0
    clean: bool = False


def run(
    name: str, parts: Sequence[str], command: list[str], report: Report, until: float
) -> Ended:
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
    left = max(1, until - time.time() + GRACE)
    timer = threading.Timer(left, os.killpg, (process.pid, signal.SIGKILL))
    timer.start()
    ended, begun = Ended(), None
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
