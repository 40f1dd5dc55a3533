"""The queue alone: who is next, without threads and without waiting."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux_api.core import Started
from flux_api.queue.fair_queue import FairQueue
from flux_api.queue.jobs import Job
from tests.queue.small_requests import request

numbers = itertools.count()


def add(queue, caller, count=10):
    """A job of ``count`` pictures that waits in ``queue``."""
    job = Job(request(count), id=str(next(numbers)), caller=caller)
    queue.add(job, 1)
    return job


def queue_of(*callers):
    """A queue with ten pictures of each."""
    queue = FairQueue()
    for caller in callers:
        add(queue, caller)
    return queue


def take(queue, job, *, interleaved=False):
    """Start the next picture of ``job``."""
    queue.take(job, interleaved=interleaved)
    job.post(Started())


def serve(queue, turns=None):
    """Whose pictures start in the next ``turns`` turns, None: in all there are."""
    order = []
    while queue and len(order) != turns:
        assert len(order) < 1000
        order.append(queue.head())
        take(queue, order[-1])
    return order


def callers_of(jobs):
    """Their callers, one letter each."""
    return "".join(job.caller for job in jobs)


@pytest.mark.parametrize(
    ("turns", "expected"),
    [(17, "CNABC"), (18, "NABC"), (19, "BCNABC"), (20, "CNABC"), (21, "NABC")],
)
def test_a_newcomer_waits_for_those_alone_that_had_fewer_turns(turns, expected):
    """Never for the 18 turns that the others have had before it came."""
    queue = queue_of("A", "B", "C")
    serve(queue, turns)
    add(queue, "N")
    assert callers_of(serve(queue, len(expected))) == expected


def test_a_turn_of_a_late_one_does_not_set_time_back():
    queue = queue_of("A", "B", "C")
    serve(queue, 1)
    add(queue, "M")
    assert callers_of(serve(queue, 3)) == "BCM"
    add(queue, "N")
    assert callers_of(serve(queue, 5)) == "ABCNM"


def test_who_had_turns_beside_others_owes_none_to_newcomers():
    """Time goes on from its start when it is served alone at last."""
    queue = FairQueue()
    short, long = add(queue, "S"), add(queue, "L")
    for _ in range(5):
        take(queue, short, interleaved=True)
    queue.drop(long)
    assert callers_of(serve(queue, 1)) == "S"
    add(queue, "N")
    assert callers_of(serve(queue, 6)) == "NSNSNS"


def after_interleaved(count, caller):
    """A queue of ten pictures by "L", after its first and then ``count`` that were
    interleaved, of one new job of ``caller`` each."""
    queue = queue_of("L")
    serve(queue, 1)
    for _ in range(count):
        take(queue, add(queue, caller, 1), interleaved=True)
    return queue


def test_interleaved_turns_do_not_advance_time():
    """Whoever comes after many of them waits for nobody that came before them."""
    queue = after_interleaved(20, "S")
    add(queue, "N")
    assert callers_of(serve(queue, 4)) == "NLNL"


def test_nor_do_they_among_the_requests_of_one_caller():
    queue = after_interleaved(20, "L")
    long, late = queue.head(), add(queue, "L")
    assert serve(queue, 4) == [late, long, late, long]


def test_interleaved_turns_on_an_idle_server_are_not_owed_to_newcomers():
    queue = after_interleaved(8, "L")
    add(queue, "N")
    assert callers_of(serve(queue, 8)) == "NLNLNLNL"


def test_one_that_is_alone_does_not_owe_its_interleaved_turns():
    queue = queue_of("A")
    for _ in range(5):
        take(queue, queue.head(), interleaved=True)
    add(queue, "N")
    assert callers_of(serve(queue, 6)) == "NANANA"


def test_who_left_and_comes_back_is_a_newcomer():
    queue = FairQueue()
    gone, _ = add(queue, "A"), add(queue, "B")
    for _ in range(5):
        take(queue, gone, interleaved=True)
    queue.drop(gone)
    back = add(queue, "A")
    assert list(queue.in_turn())[1] is back
    assert callers_of(serve(queue, 6)) == "BABABA"


def test_what_is_dropped_or_done_leaves_nothing():
    queue = FairQueue()
    first, second = add(queue, "A", 2), add(queue, "A", 2)
    queue.drop(first)
    queue.drop(first)
    assert [(p.job, p.left) for p in queue.pictures()] == [(second, 2)]
    assert serve(queue) == [second, second]
    assert not queue
    assert list(queue.pictures()) == queue.jobs() == []


def test_pictures_of_a_job_start_in_the_order_of_their_seeds():
    queue = FairQueue()
    job = add(queue, "A", 3)
    assert [queue.take(job).index for _ in range(3)] == [0, 1, 2]


def test_ties_go_to_newcomers_then_to_who_came_or_was_served_first():
    queue = queue_of("B")
    serve(queue, 1)
    add(queue, "C")
    add(queue, "A")
    assert callers_of(queue.in_turn()) == "CAB"
    assert callers_of(serve(queue, 9)) == "CABCABCAB"


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_however_many_newcomers_come_nobody_is_kept_out(at_once):
    """Each that is done is followed by one that never had a turn."""
    queue = queue_of("A")
    fresh = map(str, itertools.count())
    for _ in range(at_once):
        add(queue, next(fresh), 1)
    order = []
    while order.count("A") < 10 and len(order) < 100:
        [job] = serve(queue, 1)
        order.append(job.caller)
        if job.caller != "A":
            add(queue, next(fresh), 1)
    assert len(order) == 10 * (at_once + 1)


def test_requests_of_one_caller_take_turns_too():
    queue = FairQueue()
    five = add(queue, "A", 5)
    serve(queue, 1)
    one, three = add(queue, "A", 1), add(queue, "A", 3)
    assert queue.jobs() == [one, three]
    assert serve(queue) == [one, three, *[five, three] * 2, five, five]


def test_who_waited_while_many_were_done_may_have_two_turns_in_a_row():
    """Time went on by 1/9 + 1/8 + ... + 1/2, more than a turn."""
    queue = FairQueue()
    for _ in range(8):
        add(queue, "A", 1)
    last = add(queue, "A")
    serve(queue, 8)
    newcomer = add(queue, "A")
    one, two, three = (add(queue, "B", 1) for _ in range(3))
    assert queue.jobs() == [one, last, two, three, newcomer]
    assert serve(queue, 7) == [one, last, two, last, three, newcomer, last]


def test_many_requests_get_no_more_turns_than_one():
    queue = FairQueue()
    for _ in range(4):
        add(queue, "A", 2)
    add(queue, "B", 4)
    assert callers_of(serve(queue)) == "ABABABABAAAA"


@pytest.mark.parametrize("count", range(1, 33))
def test_a_round_takes_no_more_than_one_turn_of_time(count):
    """Shares such as 1/7, summed in floating point, come out above 1 now and then, and
    the newcomer would come after those that had their share."""
    queue = queue_of(*map(str, range(count)))
    for _ in range(9):
        serve(queue, count)
        newcomer = add(queue, "new", 1)
        assert queue.head() is newcomer
        queue.drop(newcomer)


def test_positions_count_turns_to_come_between_those_of_others():
    queue = FairQueue()
    _, a = add(queue, "A", 1), add(queue, "A", 1)
    b, c, d = (add(queue, "B", 1) for _ in range(3))
    serve(queue, 1)
    newcomer = add(queue, "N", 1)
    # At 0, 1/2, 1, 1 and 2; of the equal ones, A had its place before.
    expected = [b, newcomer, a, c, d]
    assert queue.jobs() == expected
    assert serve(queue) == expected


CALLERS = st.sampled_from("ABCDE")
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), CALLERS, st.integers(1, 5)),
        st.tuples(st.just("serve"), st.integers(1, 5)),
        st.tuples(st.just("interleave"), st.integers(0, 50)),
        st.tuples(st.just("drop"), st.integers(0, 50)),
    ),
    max_size=40,
)


def apply(queue, name, first, *more):
    """One operation; numbers pick a job of those that wait."""
    waiting = list(queue.in_turn())
    if name == "add":
        add(queue, first, *more)
    elif name == "serve":
        serve(queue, first)
    elif name == "interleave" and waiting:
        take(queue, waiting[first % len(waiting)], interleaved=True)
    elif name == "drop" and waiting:
        queue.drop(waiting[first % len(waiting)])


@settings(deadline=None, max_examples=300)
@given(OPERATIONS)
def test_the_order_that_is_told_is_the_one_that_comes(operations):
    queue = FairQueue()
    for operation in operations:
        apply(queue, *operation)
        assert list(map(queue.position, queue.jobs())) == list(range(queue.unstarted))
    told = queue.jobs()
    assert queue.cost == sum(pictures.left for pictures in queue.pictures())
    assert next(queue.in_turn(), None) is (queue.head() if queue else None)
    queued = [p.job for p in queue.pictures() if p.job.state == "queued"]
    come = list(dict.fromkeys(job for job in serve(queue) if job in queued))
    assert told == come
