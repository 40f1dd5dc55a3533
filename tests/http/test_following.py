"""Following several jobs: the end of one is told when its pictures can be fetched."""

from __future__ import annotations

import pytest

from flux_api.core import Completed, Failed, Progress
from flux_api.errors import Cancelled
from flux_api.http import clients
from flux_api.http.clients import DELIVERY_SECONDS, follow_all
from flux_api.queue.jobs import Job


def here():
    """A client that stays."""
    return True


class Undelivered(Job):
    """A job that has ended, and whose pictures are files at the ``third`` look."""

    looks, third = 0, 3

    def wait_delivery(self, seconds):
        self.looks += 1
        return self.looks >= self.third


class Lost(Undelivered):
    """The same, but they never are."""

    third = 10**9
    ended_for = DELIVERY_SECONDS + 0.1


def ended(kind):
    """A job of ``kind`` that is done."""
    job = kind(id="job-0001", caller="me")
    job.post(Progress(0, 1, 1))
    job.post(Completed(()))
    return job


def test_an_end_waits_for_the_files():
    job = ended(Undelivered)
    told = list(follow_all([job], here))
    assert [(of, type(event)) for of, event in told] == [
        *((job, Progress), (job, Completed)),
    ]
    assert job.looks == 3


def test_an_end_does_not_wait_for_files_that_should_have_been_there_long_ago():
    job = ended(Lost)
    assert [of for of, _ in follow_all([job], here)] == [job] * 2


class Silent(Job):
    """A job of which there is no news, and that ends when it was asked ``twice``."""

    def __init__(self, asked, **facts):
        super().__init__(**facts)
        self.asked, self.twice = asked, 0

    def news(self, seen, seconds):
        self.asked.append(seconds)
        self.twice += 1
        return (1, [Failed(Cancelled("gone"))]) if self.twice > 1 else (0, [])


def test_of_many_jobs_one_is_waited_for_and_the_others_are_looked_at():
    """Else the tenth would be told of a second late."""
    asked = []
    jobs = [Silent(asked, id=f"job-000{n}", caller="me") for n in range(3)]
    assert len(list(follow_all(jobs, here))) == 3
    first, *others = asked[:3]
    assert first > 0 and others == [0, 0]


@pytest.mark.parametrize("name", ["POLL", "ALL_POLL", "WAIT"])
def test_clients_are_looked_for_now_and_then(name):
    """Without end by whoever does not wait at all, and too late after a second: a model
    draws meanwhile for somebody who left."""
    assert 0.05 <= getattr(clients, f"{name}_SECONDS") <= 1
