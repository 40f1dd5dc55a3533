"""``python -m benchmarks.scaling``: what many cards behind one address would see.

First it measures 1 to 3 real instances behind the real nginx and simulates the very
same requests: both have to agree. Then it simulates up to 1,000 cards, and counts from
measured costs which part gives way first. ``docs/scaling.md`` shows what it prints.
"""

from __future__ import annotations

import itertools
import random
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.report import Report, read_options
from benchmarks.scaling_costs import Costs, measured_costs
from benchmarks.scaling_stack import MOST_WAITING, Clients, serving
from benchmarks.simulated_fleet import Ask, Failures, Fleet, Outcome, Pace

CALLERS = ("alice", "bob", "carol", "dave")
CLIENTS = 16
STEPS, PICTURES = (4, 8, 16), (1, 1, 2)
SHARE = 0.7
# A link of 1 Gbit/s carries so many bytes a second.
LINK = 125e6
NGINX_CONNECTIONS = 4096
DEATHS = Failures(every=3600, away=60)


def main() -> None:
    """Print the agreement, the forecasts and the limits."""
    options = read_options(
        __doc__, instances=3, seconds=60, cards=1000, picture_ms=2000, rounds=40
    )
    report = Report("scaling", options.results)
    for count in range(1, options.instances + 1):
        with (
            tempfile.TemporaryDirectory() as folder,
            serving(count, CALLERS, Path(folder)) as clients,
        ):
            compare(count, clients, options.seconds, report)
    seconds = options.picture_ms / 1000
    for count in (1, 10, 100, 1000):
        if count <= options.cards:
            forecast(count, seconds, report)
    limits(measured_costs(options.rounds), seconds, report)
    report.write()


def compare(count: int, clients: Clients, seconds: float, report: Report) -> None:
    """Measure ``count`` instances under both kinds of load, and simulate them."""
    pace = clients.measured_pace(CALLERS[0])
    mean = pace.picture + pace.step * statistics.mean(STEPS)
    report.add(f"{count}: seconds a picture, one client", mean, "s")
    report.add(f"{count}: wait with nobody before", pace.start, "s")
    simulated = Fleet(count, pace, most_waiting=MOST_WAITING)
    simulated.closed_load([endless(n) for n in range(CLIENTS)], seconds)
    simulated.run()
    clients.closed_load([endless(n) for n in range(CLIENTS)], seconds)
    add_pair(f"{count}, {CLIENTS} clients", clients.outcomes, simulated, report)
    rate = SHARE * count / (mean * statistics.mean(PICTURES))
    trace = list(itertools.islice(asks(1, rate), round(rate * seconds)))
    simulated = Fleet(count, pace, most_waiting=MOST_WAITING)
    simulated.open_load(trace)
    simulated.run()
    clients.open_load(trace)
    add_pair(f"{count}, {SHARE:.0%} busy", clients.outcomes, simulated, report)


def add_pair(
    name: str, measured: Sequence[Outcome], simulated: Fleet, report: Report
) -> None:
    """Pictures a second and mean wait, measured and simulated."""
    for what, unit, told in (("pictures", "/s", pictures), ("wait", "s", wait)):
        real, expected = told(measured), told(simulated.outcomes)
        report.add(f"{name}: {what}, measured", real, unit)
        report.add(f"{name}: {what}, simulated", expected, unit)
        report.add(f"{name}: {what}, simulated over measured", expected / real, "x")


def forecast(count: int, seconds: float, report: Report) -> None:
    """``count`` cards that take ``seconds`` for a picture: shares of the time that they
    work, and deaths."""
    pace = Pace(seconds, 0.0)
    for share in (0.5, 0.7, 0.9):
        fleet = Fleet(count, pace, most_waiting=MOST_WAITING)
        fleet.open_load(plain(count * share / seconds, max(4000, 40 * count)))
        fleet.run()
        waits = sorted(one.waited / seconds for one in fleet.outcomes)
        name = f"{count} cards, {share:.0%} busy: wait"
        report.add(f"{name}, mean", statistics.mean(waits), "pictures")
        report.add(f"{name}, 9 of 10 below", waits[len(waits) * 9 // 10], "pictures")
    fleet = Fleet(count, pace, most_waiting=MOST_WAITING, failures=DEATHS)
    fleet.open_load(plain(count * SHARE / seconds, max(8000, 100 * count)))
    # Failures never end: until the last request is long over.
    fleet.run(max(8000, 100 * count) * seconds / (count * SHARE) + 600)
    name = f"{count} cards, {SHARE:.0%} busy, each dies hourly"
    for state in ("lost", "full"):
        share = sum(one.state == state for one in fleet.outcomes) / len(fleet.outcomes)
        report.add(f"{name}: {state}", share * 100, "%")
    report.add(f"{name}: wait, mean", wait(fleet.outcomes) / seconds, "pictures")


def limits(costs: Costs, seconds: float, report: Report) -> None:
    """How many cards each part is enough for, where a card takes ``seconds``."""
    api = costs.request + costs.encode
    report.add("a PNG of 1024x1024", costs.bytes / 1e6, "MB")
    report.add("API: CPU a picture", api * 1000, "ms")
    report.add("API: of one core, a card", api / seconds * 100, "%")
    report.add("file server: CPU to store one", costs.store * 1000, "ms")
    report.add("file server: CPU to give one", costs.give * 1000, "ms")
    report.add("nginx: CPU to carry one", costs.carry * 1000, "ms")
    for name, cards in {
        "one file server, one core": seconds / costs.store,
        "one link of 1 Gbit/s into the file server": seconds * LINK / costs.bytes,
        "one core of nginx, by CPU": seconds / costs.carry,
        # A waiting request has two connections.
        "one core of nginx, by connections, all queues full": NGINX_CONNECTIONS
        / (2 * (MOST_WAITING + 1)),
    }.items():
        report.add(f"{name}: enough for", cards, "cards")


def pictures(outcomes: Sequence[Outcome]) -> float:
    """How many came a second."""
    made = sum(one.pictures for one in outcomes if one.state == "done")
    return made / max(one.ended for one in outcomes)


def wait(outcomes: Sequence[Outcome]) -> float:
    """Mean seconds until the first picture's start."""
    return statistics.mean(one.waited for one in outcomes if one.state == "done")


def endless(client: int) -> Iterator[Ask]:
    """What one client asks for, one after the other."""
    chance = random.Random(client)
    caller = CALLERS[client % len(CALLERS)]
    while True:
        yield Ask(0, caller, chance.choice(STEPS), chance.choice(PICTURES))


def asks(seed: int, rate: float) -> Iterator[Ask]:
    """So many requests a second on the average, by chance."""
    chance = random.Random(seed)
    while True:
        after, caller = chance.expovariate(rate), chance.choice(CALLERS)
        yield Ask(after, caller, chance.choice(STEPS), chance.choice(PICTURES))


def plain(rate: float, count: int) -> Iterator[Ask]:
    """``count`` requests for one picture each, of many callers."""
    chance = random.Random(2)
    for _ in range(count):
        yield Ask(chance.expovariate(rate), f"caller-{chance.randrange(500)}", 1)


if __name__ == "__main__":
    main()
