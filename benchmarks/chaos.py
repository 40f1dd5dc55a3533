"""``python -m benchmarks.chaos SECONDS``: faults in turn under the load of 8 clients.

nginx, the file server and the API run as they are deployed. Each fault is mended again,
and its row lasts until pictures of all kinds come again. Exit status 1 when a picture
is wrong or stored half, when a request is lost that was not in flight on what was
killed, or when an update's gap is longer than promised.

A request is *refused* with 429 or 503 and Retry-After, *lost* when it has neither a
picture nor such an answer. The *gap* is the longest time without a picture for anybody.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.chaos_clients import KINDS, Load, Note, stored_half
from benchmarks.chaos_faults import FAULTS, Fault
from benchmarks.chaos_stack import Stack, has_nginx, wait_until

CLIENTS = 8
_SETTLED = 10
_TIMES_USUAL = 3
_HEAD = (
    "| fault | times | pictures | refused | lost | wrong | longest gap | stored half |"
)


class Row:
    """What happened under one fault, all its times together."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.times, self.half, self.gap = 0, 0, 0.0
        self.counts: Counter[str] = Counter()

    def add(self, began: float, notes: list[Note], half: int) -> None:
        """Count one more time, which ``began`` then and is over."""
        self.times += 1
        self.half += half
        self.counts.update(note.outcome for note in notes)
        right = [note.when for note in notes if note.outcome == "right"]
        for before, after in itertools.pairwise([began, *right]):
            self.gap = max(self.gap, after - before)

    def mistakes(self, usual_gap: float) -> list[str]:
        """What must not be, where ``usual_gap`` comes by itself."""
        fault, found = self.fault, []
        if self.counts["wrong"] or self.half:
            found.append("a picture is wrong or stored half")
        if self.counts["lost"] > (CLIENTS * self.times if fault.kills else 0):
            found.append("requests are lost")
        # A machine that is busy with other things has gaps of its own.
        longest = max(fault.longest_gap or self.gap, _TIMES_USUAL * usual_gap)
        if self.gap > longest:
            found.append(f"the gap is longer than {longest:.1f} s")
        return [f"{fault.name}: {mistake}" for mistake in found]

    def __str__(self) -> str:
        words = ("right", "refused", "lost", "wrong")
        counts = " | ".join(str(self.counts[word]) for word in words)
        cells = f"{self.fault.name} | {self.times} | {counts}"
        return f"| {cells} | {self.gap:.1f} s | {self.half} |"


def main(seconds: float) -> int:
    """Break things for about ``seconds``; 0 when all went as it should."""
    if not has_nginx():
        print("nginx is missing: make test-deps")
        return 1
    rows = {fault: Row(fault) for fault in FAULTS}
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder)) as stack:
        load = Load(stack.url, CLIENTS, KINDS)
        load.learn()
        load.start()
        try:
            until = time.monotonic() + seconds
            for fault in itertools.cycle(FAULTS):
                if time.monotonic() > until:
                    break
                happen(rows[fault], stack, load)
        finally:
            load.stop()
            show(rows, load)
            if "Traceback" in stack.log():
                print(stack.log()[-8000:])
    usual = rows[FAULTS[0]].gap
    mistakes = [mistake for row in rows.values() for mistake in row.mistakes(usual)]
    print("\n".join(mistakes) or "all went as it should")
    return 1 if mistakes else 0


def happen(row: Row, stack: Stack, load: Load) -> None:
    """One fault, until things are as before."""
    began, first = time.monotonic(), len(load.notes)
    with row.fault.break_it(stack):
        time.sleep(row.fault.seconds)
    mended = len(load.notes)
    wait_until(lambda: settled(load.notes[mended:]), 120)
    half = stored_half(stack.stored, set(load.expected.values()), load.checked)
    row.add(began, load.notes[first:], half)
    print(row, flush=True)


def settled(notes: list[Note]) -> bool:
    """Whether nothing but pictures comes."""
    last = [note.outcome for note in notes[-_SETTLED:]]
    return last == ["right"] * _SETTLED


def show(rows: dict[Fault, Row], load: Load) -> None:
    """The table, and why requests were lost."""
    print(f"\n{_HEAD}\n{'| --- ' * _HEAD.count(' | ')}| --- |")
    for row in rows.values():
        if row.times:
            print(row)
    lost = [note for note in load.notes if note.outcome != "refused"]
    reasons = Counter(note.why for note in lost if note.why)
    for why, count in reasons.most_common(10):
        print(f"{count} times: {why}")


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 600.0))
