"""Kept pictures alone: budget, time, and what is told when they are not there."""

from __future__ import annotations

import pytest

from flux_api.core import Completed, ImageRequest
from flux_api.errors import InvalidRequest, JobNotDone, PipelineFailed, ResultExpired
from flux_api.queue.jobs import Job
from flux_api.queue.results import FinishedPicture, ResultStore


def a_job(count=1):
    """A job that nothing runs."""
    request = ImageRequest(
        mode="generate",
        model="tiny",
        prompt="a cat",
        width=64,
        height=64,
        num_inference_steps=1,
        guidance_scale=None,
        seed=1,
        num_images_per_prompt=count,
    )
    return Job(request, id="a-job-of-tests", caller="me")


def picture(size=100, url=None):
    """A finished picture of ``size`` bytes."""
    return FinishedPicture(bytes(size), "image/png", {"seed": 1}, url=url)


def finished(store, *pictures):
    """A job that is done, with ``pictures`` in ``store``."""
    job = a_job(len(pictures))
    job.post(Completed(()))
    store.keep(job, list(pictures))
    job.release()
    return job


def test_a_picture_is_found_by_its_index_and_as_it_is():
    store = ResultStore(1000)
    pictures = picture(), picture(200, "http://files/i/1.png")
    job = finished(store, *pictures)
    assert [store.find(job, index) for index in (0, 1)] == list(pictures)
    assert store.urls(job) == ["http://files/i/1.png"]
    for index in (-1, 2):
        with pytest.raises(InvalidRequest, match="index"):
            store.find(job, index)


def test_the_oldest_go_first_and_the_budget_holds_to_the_byte():
    store = ResultStore(300)
    jobs = [finished(store, picture(100)) for _ in range(3)]
    assert all(store.find(job, 0) for job in jobs)
    newest = finished(store, picture(1))
    with pytest.raises(ResultExpired):
        store.find(jobs[0], 0)
    assert all(store.find(job, 0) for job in (jobs[1], jobs[2], newest))


def test_nothing_is_kept_without_a_budget_or_beyond_it():
    for most in (0, 99):
        store = ResultStore(most)
        with pytest.raises(ResultExpired):
            store.find(finished(store, picture(100)), 0)


def test_ten_minutes_later_it_has_expired():
    now = [0.0]
    store = ResultStore(1000, clock=lambda: now[0])
    job = finished(store, picture())
    now[0] = 599.0
    assert store.find(job, 0)
    now[0] = 600.0
    with pytest.raises(ResultExpired):
        store.find(job, 0)


def test_until_it_is_a_file_it_is_not_done():
    store, job = ResultStore(1000), a_job()
    for _ in range(2):
        with pytest.raises(JobNotDone) as caught:
            store.find(job, 0)
        assert caught.value.retry_after
        job.post(Completed(()))
    store.keep(job, [picture()])
    assert store.find(job, 0)


def test_a_failed_job_tells_its_own_error_and_stays_free_of_frames():
    store, job = ResultStore(1000), a_job()
    job.fail(PipelineFailed("The pipeline failed."))
    with pytest.raises(PipelineFailed, match="The pipeline failed"):
        store.find(job, 0)
    assert job.outcome.error.__traceback__ is None
