"""Which picture may start, asked of a queue and a backend of a few lines."""

from __future__ import annotations

import pytest

from flux_api.errors import QueueFull
from flux_api.queue.admission import find_next
from flux_api.queue.fair_queue import FairQueue
from flux_api.queue.job_table import JobTable
from flux_api.queue.jobs import Job
from flux_api.queue.places import Places
from flux_api.queue.tasks import PictureTask
from tests.queue.small_requests import request


class Roomy:
    """A backend with two slots, whose forwards have room for any number of tokens."""

    slots = 2

    def joins(self, request, running):
        return True

    def fits(self, request, running):
        return True

    def is_warm(self, request):
        return True

    def tokens(self, request):
        return 1


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
    running = [PictureTask(j, 0, j.request) for j in map(a_job, "ab")]
    assert find_next(waiting(job), running[:1], Roomy()) == (job, False)
    assert find_next(waiting(job), running, Roomy()) is None


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
