"""``make fleet-load``: 16 clients ask three instances behind nginx for everything.

``flux-api serve`` runs as it is deployed. For a third of the time nothing happens, for
a third one instance is killed with -9, for a third all are restarted one after the
other. Exit status 1 when a picture is not what its seed makes alone, when more is lost
than the killed instance had in hand, or when a restart loses anything.

A request is *lost* when it has neither a picture nor a refusal that says when to come
again, or nginx's word that the instance is gone. *Forgotten* is a job of before an
instance was replaced: it keeps them in its memory.
"""

from __future__ import annotations

import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chaos_clients import PROMPTS, Load, Note
from benchmarks.chaos_stack import has_nginx, wait_until
from benchmarks.fleet_clients import FORGED_ADDRESS, Clients
from benchmarks.fleet_stack import Fleet
from benchmarks.report import Report, read_options

INSTANCES = 3
_KILLED = 1
_RETURN_SECONDS = 900
# Of the time until a stream's end: one that comes in one piece has 1.
_LATEST_FIRST_EVENT = 0.95


@dataclass
class Phase:
    """A part of the run: what came of its requests."""

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    made: list[int] = field(default_factory=list)
    held: int = 0
    """How many connections the killed instance had."""
    killed_at: float = float("inf")
    late: int = 0
    """Requests that came to nothing though they were sent after it was killed."""
    forgets: bool = False
    """Whether jobs may be forgotten: those of before an instance was replaced."""

    def add(self, notes: list[Note]) -> None:
        """Count what came of requests."""
        for note in notes:
            outcome = _outcome(note)
            self.counts[outcome] += 1
            is_late = note.began > self.killed_at
            self.late += is_late and outcome in ("lost", "forgotten")

    @property
    def mistakes(self) -> list[str]:
        """What must not be."""
        found = []
        if self.counts["wrong"]:
            found.append("a picture is wrong")
        if self.counts["lost"] > self.held:
            found.append("more is lost than was in hand")
        if self.counts["forgotten"] and not self.forgets:
            found.append("a job is forgotten")
        if self.counts["refused"] and not self.held:
            found.append("a request is refused")
        if self.late:
            found.append("a request came to nothing that was sent later")
        return [f"{self.name}: {mistake}" for mistake in found]


def _outcome(note: Note) -> str:
    if "job_not_found" in note.why or "Task not found" in note.why:
        return "forgotten"
    # nginx's answer where an instance is gone in the middle of a request.
    return "lost" if "cannot be reached" in note.why else note.outcome


def main() -> int:
    """Run it for some minutes; 0 when all went as it should."""
    options = read_options(__doc__, seconds=180, clients=16, prompts=len(PROMPTS))
    if not has_nginx():
        print("nginx is missing: make test-deps")
        return 1
    report = Report("fleet_load", options.results)
    clients = Clients()
    with tempfile.TemporaryDirectory() as folder:
        fleet = Fleet(INSTANCES, Path(folder), FLUX_LOG_LEVEL="info")
        with fleet:
            load = Load(fleet.url, options.clients, clients.kinds)
            load.learn(PROMPTS[: options.prompts])
            phases = run(fleet, load, options.seconds / 3)
        forged = FORGED_ADDRESS in fleet.remotes()
        if "Traceback" in fleet.log():
            print(fleet.log()[-8000:])
    mistakes = [mistake for phase in phases for mistake in phase.mistakes]
    mistakes += others(clients, load, forged=forged)
    tell(phases, clients, report)
    report.write()
    show(phases)
    for why, count in Counter(note.why for note in load.notes if note.why).items():
        print(f"{count} times: {why}")
    print("\n".join(mistakes) or "all went as it should")
    return 1 if mistakes else 0


def run(fleet: Fleet, load: Load, seconds: float) -> list[Phase]:
    """The three phases of so many seconds, or longer where things take longer."""
    phases = [
        Phase("as it is"),
        Phase("one killed (-9)", forgets=True),
        Phase("rolling restart (HUP)", forgets=True),
    ]
    load.start()
    try:
        for phase, what in zip(phases, (nothing, kill_one, restart_all), strict=True):
            happen(phase, fleet, load, seconds, what)
    finally:
        load.stop()
    return phases


def happen(
    phase: Phase,
    fleet: Fleet,
    load: Load,
    seconds: float,
    what: Callable[[Fleet, Phase], None],
) -> None:
    """``phase``, until it is over."""
    before, first, until = fleet.made(), len(load.notes), time.monotonic() + seconds
    what(fleet, phase)
    wait_until(lambda: all(map(fleet.is_ready, range(INSTANCES))), _RETURN_SECONDS)
    time.sleep(max(0.0, until - time.monotonic()))
    wait_until(lambda: min(made_since(fleet, before)) > 0, _RETURN_SECONDS)
    phase.add(load.notes[first:])
    phase.made = made_since(fleet, before)


def made_since(fleet: Fleet, before: list[int]) -> list[int]:
    """Pictures of each instance; a new worker counts from 0."""
    pairs = zip(fleet.made(), before, strict=True)
    return [now - then if now >= then else now for now, then in pairs]


def nothing(fleet: Fleet, phase: Phase) -> None:
    """It runs as it is."""


def kill_one(fleet: Fleet, phase: Phase) -> None:
    """One ends at once, and is started again."""
    master = fleet.master(_KILLED)
    phase.held = fleet.kill(_KILLED)
    phase.killed_at = time.monotonic()
    wait_until(lambda: _is_back(fleet, master), _RETURN_SECONDS)


def restart_all(fleet: Fleet, phase: Phase) -> None:
    """One after the other, by HUP."""
    fleet.process.send_signal(signal.SIGHUP)
    said = "is updated"
    wait_until(lambda: fleet.log().count(said) == INSTANCES, _RETURN_SECONDS)


def _is_back(fleet: Fleet, old: int) -> bool:
    try:
        return fleet.master(_KILLED) != old
    except LookupError:
        return False


def others(clients: Clients, load: Load, *, forged: bool) -> list[str]:
    """What must not be, beside the pictures."""
    found = []
    if forged:
        found.append("a forged address was believed")
    leaving = {made for want, made in load.expected.items() if want[0] == "leaving"}
    if leaving != {"cancelled"}:
        found.append("a client left, and its picture was made all the same")
    shares = [first / whole for first, whole in clients.streams]
    if statistics.median(shares) > _LATEST_FIRST_EVENT:
        found.append("streams come in one piece")
    return found


def tell(phases: list[Phase], clients: Clients, report: Report) -> None:
    """Every number, for the report."""
    for phase in phases:
        for word in ("right", "wrong", "refused", "lost", "forgotten"):
            report.add(f"{phase.name}: {word}", phase.counts[word], "requests")
        if phase.held:
            report.add(f"{phase.name}: it had", phase.held, "connections")
        for number, count in enumerate(phase.made):
            report.add(f"{phase.name}: made by g{number}", count, "pictures")
    firsts, wholes = zip(*clients.streams, strict=True)
    report.add("streams: first event, median", statistics.median(firsts), "s")
    report.add("streams: end, median", statistics.median(wholes), "s")
    report.add("clients that left, and were noticed", clients.left, "clients")
    report.add("results found by their id", clients.found, "results")
    report.add("forged headers, in vain", clients.forged, "requests")


def show(phases: list[Phase]) -> None:
    """The table."""
    print("\n| | right | wrong | refused | lost | forgotten | made by g0, g1, g2 |")
    print("| --- " * 7 + "|")
    for phase in phases:
        words = ("right", "wrong", "refused", "lost", "forgotten")
        counts = " | ".join(str(phase.counts[word]) for word in words)
        made = ", ".join(map(str, phase.made))
        print(f"| {phase.name} | {counts} | {made} |")


if __name__ == "__main__":
    sys.exit(main())
