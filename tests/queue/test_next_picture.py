"""Which picture may start, asked of a queue and a backend of a few lines."""

from __future__ import annotations

import pytest

from flux_api.errors import QueueFull
from flux_api.queue.admission import Places
from flux_api.queue.fair_queue import FairQueue
from flux_api.queue.job_table import JobTable
from flux_api.queue.jobs import Job
from flux_api.queue.next_picture import find_next, may_be_next
from flux_api.queue.tasks import PictureTask
from tests.queue.small_requests import request


class Roomy:
    """A backend with two slots, whose forwards have room for any number of tokens."""

    slots = 2

    def joins(self, request, running):
        """A picture of three steps needs the device for itself."""
        return request.num_inference_steps != 3

    def fits(self, request, running):
        return True

    def is_warm(self, request):
        return True

    def tokens(self, request):
        return request.width // 16


class Full(Roomy):
    """The same, but its forwards are full with one picture."""

    def fits(self, request, running):
        return False


def waiting(*jobs):
    """A queue in which ``jobs`` wait."""
    queue = FairQueue()
    for job in jobs:
        queue.add(job, 1)
    return queue


def a_job(caller, steps=10):
    """A job of one picture."""
    return Job(request(steps=steps), id=caller, caller=caller)


def test_as_many_pictures_fill_the_forwards_as_there_are_slots():
    # Too long to be made beside the others.
    job = a_job("waits", steps=11)
    running = [PictureTask(j, 0, j.request, 1) for j in map(a_job, "ab")]
    assert find_next(waiting(job), running[:1], Roomy()) == (job, False)
    assert find_next(waiting(job), running, Roomy()) is None


@pytest.mark.parametrize(("width", "begins"), [(80, True), (96, False)])
def test_a_picture_is_an_extra_only_where_its_steps_are_as_small(width, begins):
    long = a_job("long", steps=100)
    running = [PictureTask(long, 0, long.request, tokens=5)]
    job = Job(request(steps=1, width=width), id="short", caller="short")
    found = find_next(waiting(job), running, Full())
    assert found == ((job, True) if begins else None)


def begin_all(queue, running):
    """Begin what may begin beside ``running``; whose it is, and whether as an extra."""
    begun = []
    while (found := find_next(queue, running, Roomy())) is not None:
        task = queue.take(found[0], interleaved=found[1])
        task.interleaved = found[1]
        running.append(task)
        begun.append((task.job.caller, found[1]))
    return begun


def test_short_pictures_begin_beside_what_fills_the_forwards():
    """One of a caller, three in all, and none that would be done later."""
    long = Job(request(5, steps=10), id="long", caller="long")
    queue = waiting(long)
    running = [queue.take(long), queue.take(long)]
    for number, name in enumerate("abbcd"):
        queue.add(Job(request(steps=10), id=f"{number}", caller=name), 1)
    queue.add(a_job("longer", steps=11), 1)
    assert begin_all(queue, running) == [("a", True), ("b", True), ("c", True)]


def test_nobody_begins_beside_what_cannot_join_or_overtakes_what_waits_for_that():
    running = [PictureTask(j, 0, j.request, 1) for j in [a_job("runs")]]
    assert begin_all(waiting(a_job("alone", steps=3), a_job("later", 1)), running) == []
    assert begin_all(waiting(a_job("later", 1)), running) == [("later", False)]


class Cold(Full):
    """The same, with weights on for pictures of at most ten steps."""

    def is_warm(self, request):
        return request.num_inference_steps <= 10


RUNS = Job(request(steps=100), id="runs", caller="runs")
SHORT, LONG = a_job("short", steps=2), a_job("long", steps=200)


@pytest.mark.parametrize(
    ("came", "before", "running", "backend", "changes"),
    [
        (LONG, [], [RUNS], Full, True),
        (LONG, [SHORT], [], Full, True),
        (LONG, [SHORT], [RUNS], Full, False),
        # Beside what fills the forwards.
        (SHORT, [LONG], [RUNS], Full, True),
        (SHORT, [LONG], [RUNS, *map(a_job, "abc")], Full, False),
        # Before one that needs other weights.
        (a_job("warm", steps=10), [LONG], [SHORT], Cold, True),
        (a_job("warm", steps=10), [a_job("first")], [SHORT], Cold, False),
        (a_job("cold", steps=99), [LONG], [SHORT], Cold, False),
    ],
    ids=[
        *("is the first", "nothing runs", "is behind others", "is short"),
        *("no place for it", "is warm", "so is the first", "so is neither"),
    ],
)
def test_who_came_just_now_wakes_those_that_look_for_work(
    came, before, running, backend, changes
):
    tasks = [PictureTask(job, 0, job.request, 1) for job in running]
    for task in tasks[1:]:
        task.interleaved = True
    queue = waiting(*before, came)
    assert may_be_next(came, queue, tasks, backend()) is changes
    if not changes:
        found = find_next(waiting(*before), tasks, backend())
        assert find_next(queue, tasks, backend()) == found


def test_who_waits_twice_keeps_the_place_that_it_does_not_give_back():
    places = Places(waiting(), JobTable(), most=2, per_caller=0)
    for _ in range(2):
        places.hold("same")
    places.let_go("same")
    assert places.taken([]) == places.unstarted == 1
    places.let_go("same")
    assert places.taken([]) == places.unstarted == 0


@pytest.mark.parametrize(
    ("seconds_a_step", "told"), [(0.001, 1), (2.0, 20), (1000.0, 60)]
)
def test_who_finds_no_place_is_told_when_there_is_one_within_a_minute(
    seconds_a_step, told
):
    places = Places(waiting(a_job("waits")), JobTable(), most=1, per_caller=0)
    places.pace.learn(1, seconds_a_step)
    with pytest.raises(QueueFull) as refused:
        places.check("comes", [])
    assert refused.value.retry_after == pytest.approx(told)
