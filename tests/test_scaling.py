"""The simulation of many cards against what is known by formula."""

from __future__ import annotations

import statistics

import pytest

from benchmarks.scaling import plain
from benchmarks.simulated_fleet import Ask, Failures, Fleet, Pace


@pytest.mark.parametrize("busy", [0.3, 0.5, 0.7])
def test_one_card_has_the_waits_of_its_formula(busy):
    """Pollaczek and Khinchine's: u / (2 (1 - u)) of what one picture takes."""
    fleet = Fleet(1, Pace(1.0, 0.0))
    fleet.open_load(plain(busy, 20_000))
    fleet.run()
    mean = statistics.mean(one.waited for one in fleet.outcomes)
    assert mean == pytest.approx(busy / (2 * (1 - busy)), rel=0.15)


def test_a_request_that_meets_nobody_waits_for_its_own_start():
    fleet = Fleet(1, Pace(1.0, 0.0, start=0.25))
    # The second comes while the first is drawn: its start is over before its turn.
    fleet.open_load([Ask(0, "somebody", 1), Ask(0.5, "somebody", 1)])
    fleet.run()
    assert [one.waited for one in fleet.outcomes] == [0.25, 0.75]


def test_among_equals_nginx_charges_none_that_had_no_equal():
    fleet = Fleet(2, Pace(0.0, 1.0))
    # The second goes where nobody is. The third meets equals, one request at each, and
    # goes there, too: that one has not had its turn yet.
    fleet.open_load([Ask(0, "a", 10), Ask(1, "b", 2), Ask(1, "c", 5)])
    fleet.run()
    assert sorted(one.waited for one in fleet.outcomes) == [0, 0, 1]


def test_places_are_bounded_and_cards_share():
    fleet = Fleet(2, Pace(0.5, 0.25), most_waiting=1)
    fleet.open_load([Ask(0, "somebody", 2) for _ in range(6)])
    fleet.run()
    states = sorted(one.state for one in fleet.outcomes)
    assert states == ["done"] * 4 + ["full"] * 2
    assert max(one.ended for one in fleet.outcomes) == 2.0


def test_what_a_dying_card_had_is_lost():
    fleet = Fleet(1, Pace(100.0, 0.0), failures=Failures(every=1, away=1000))
    fleet.open_load([Ask(0, "somebody", 1)])
    fleet.run(50)
    assert [one.state for one in fleet.outcomes] == ["lost"]
