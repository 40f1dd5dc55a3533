"""A job alone: what its times mean, by a clock that is set by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from PIL import Image

from flux_api.core import ImageResult, Queued, Started
from flux_api.errors import PipelineFailed
from flux_api.queue import jobs
from flux_api.queue.jobs import Job
from tests.queue.small_requests import request


@pytest.fixture
def clock(monkeypatch):
    """The time that jobs see; only they do: other threads may need the real one."""
    now = SimpleNamespace(seconds=100.0)
    module = SimpleNamespace(monotonic=lambda: now.seconds, time=lambda: 0.0)
    monkeypatch.setattr(jobs, "time", module)
    return now


def times(job):
    """Its seconds in the queue and at work."""
    return job.queue_seconds, job.run_seconds


def finish(job, index):
    """Picture ``index`` is done."""
    job.finish_image(index, ImageResult(Image.new("RGB", (16, 16)), 1))


def test_times_count_up_to_the_first_pictures_start_and_from_there_to_the_end(clock):
    job = Job(request(2), id="1", caller="A")
    assert times(job) == (0, 0)
    clock.seconds += 3
    job.post(Queued(0))
    assert times(job) == (3, 0)
    clock.seconds += 2
    job.post(Started())
    assert times(job) == (5, 0)
    clock.seconds += 7
    job.post(Started())  # the second picture's changes nothing
    finish(job, 1)
    assert times(job) == (5, 7)
    clock.seconds += 4
    finish(job, 0)
    clock.seconds += 1000
    assert times(job) == (5, 11)
    assert job.ended_for == 1000


@pytest.mark.parametrize("end", [Job.cancel, lambda job: job.fail(PipelineFailed("x"))])
def test_a_job_that_never_started_only_waited(clock, end):
    job = Job(request(), id="1", caller="A")
    clock.seconds += 6
    end(job)
    clock.seconds += 1000
    assert times(job) == (6, 0)


def test_a_failure_ends_the_work(clock):
    job = Job(request(), id="1", caller="A")
    clock.seconds += 6
    job.post(Started())
    clock.seconds += 2
    job.fail(PipelineFailed("x"))
    clock.seconds += 1000
    finish(job, 0)
    job.post(Started())
    assert times(job) == (6, 2)


def test_it_lives_as_long_as_one_of_its_clients_waits():
    here = {"first", "second"}
    first, second = (lambda name=name: name in here for name in sorted(here))
    job = Job(request(), id="1", caller="A", is_wanted=first)
    # A replay asks to wait whenever it looks.
    for _ in range(2):
        job.join(second)
    assert not job.leave(first)
    here.remove("first")
    assert job.is_wanted
    assert job.leave(second)
    assert not job.is_wanted
    # The end of an answer finds that its client has left already.
    assert job.leave(second)
    assert not job.outlives_clients
    job.outlive_clients()
    assert job.is_wanted and job.outlives_clients
