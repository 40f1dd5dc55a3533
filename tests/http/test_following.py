"""Following several jobs: the end of one is told when its pictures can be fetched."""

from __future__ import annotations

from flux_api.core import Completed
from flux_api.http.clients import DELIVERY_SECONDS, follow_all
from flux_api.queue.jobs import Job


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
    job.post(Completed(()))
    return job


def test_an_end_waits_for_the_files():
    job = ended(Undelivered)
    assert [(of, type(event)) for of, event in follow_all([job], None)] == [
        (job, Completed)
    ]
    assert job.looks == 3


def test_an_end_does_not_wait_for_files_that_should_have_been_there_long_ago():
    job = ended(Lost)
    assert [of for of, _ in follow_all([job], None)] == [job]
