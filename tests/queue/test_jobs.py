"""A job alone: what its times mean, by a clock that is set by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from PIL import Image

from flux_api.core import ImageResult, Queued, Started
from flux_api.errors import JobConflict, JobNotFound, PipelineFailed
from flux_api.queue import jobs
from flux_api.queue.job_table import JobTable
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


def finish(job, index, **facts):
    """Picture ``index`` is done."""
    job.finish_image(index, ImageResult(Image.new("RGB", (16, 16)), 1, **facts))


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


def test_it_was_begun_as_often_as_the_picture_that_took_most():
    job = Job(request(3), id="1", caller="A")
    counts = [job.attempts]
    for index, attempts in enumerate((1, 3, 2)):
        finish(job, index, attempts=attempts)
        counts.append(job.attempts)
    assert counts == [1, 1, 3, 3]


def add(table, name, caller="A"):
    """A job in ``table``."""
    job = Job(request(), id=name, caller=caller, owner=caller)
    table.add(job)
    return job


def known(table):
    """The names of its jobs, the newest first."""
    return [job.id for job in table.of("A")]


def test_a_callers_jobs_count_while_they_live():
    table = JobTable()
    jobs = [add(table, name) for name in ("first", "second")]
    alive = [table.alive("A")]
    for job in jobs:
        job.cancel()
        alive.append(table.alive("A"))
    assert alive == [2, 1, 0] and table.alive("B") == 0


def test_ended_jobs_are_kept_for_ten_minutes(clock):
    table = JobTable()
    add(table, "lives")
    finish(add(table, "made"), 0)
    clock.seconds += 1
    add(table, "in vain").cancel()
    clock.seconds += 599
    assert known(table) == ["in vain", "made", "lives"]
    clock.seconds += 0.5
    assert known(table) == ["in vain", "lives"]
    clock.seconds += 1
    assert known(table) == ["lives"]
    with pytest.raises(JobNotFound):
        table.find("in vain", None)


def test_a_job_whose_pictures_are_kept_for_longer_is_known_for_longer(clock):
    table = JobTable()
    for name in ("kept", "kept in vain", "made"):
        job = add(table, name)
        if name.startswith("kept"):
            job.kept_seconds = 1000.0
        if name == "kept in vain":
            job.cancel()
        else:
            finish(job, 0)
    clock.seconds += 601
    assert known(table) == ["kept"]
    clock.seconds += 400
    assert known(table) == []


def test_an_ended_jobs_id_is_its_owners_while_it_is_kept(clock):
    table = JobTable()
    hers = add(table, "heart")
    finish(hers, 0)
    with pytest.raises(JobConflict):
        add(table, "heart", "B")
    assert table.find("heart", "A") is hers
    again = add(table, "heart")
    finish(again, 0)
    clock.seconds += 601
    his = add(table, "heart", "B")
    assert table.find("heart", "B") is his


def test_who_makes_thousands_forgets_no_others():
    table = JobTable()
    finish(add(table, "hers"), 0)
    for number in range(2000):
        finish(add(table, f"his {number}", "B"), 0)
    assert known(table) == ["hers"]
    assert len(table.of("B")) == 999


def test_of_those_in_vain_the_newest_hundred_outlast_any_number_of_others():
    table = JobTable()
    for number in range(150):
        add(table, f"in vain {number}").cancel()
    for number in range(2000):
        finish(add(table, f"made {number}"), 0)
    newest = [f"made {number}" for number in range(1999, 1099, -1)]
    assert known(table) == newest + [f"in vain {n}" for n in range(149, 49, -1)]
