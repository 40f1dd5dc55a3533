"""How far a request is, as each API tells it, from what its job has posted."""

from __future__ import annotations

import pytest
from PIL import Image

from flux_api.blueprints.a1111.answers import describe_progress
from flux_api.blueprints.bfl.answers import BflJob
from flux_api.core import Completed, PartialImage, Preview, Progress
from flux_api.queue.jobs import Job
from flux_api.queue.results import ResultStore
from tests.queue.test_results import a_job


class Running(Job):
    """A job whose pictures are being made for six seconds."""

    run_seconds = 6.0
    state = "running"


def running(*events, count=1):
    """A job of ``count`` pictures to which this has happened."""
    job = Running(a_job(count).request, id="a-job-of-tests", caller="me")
    for event in events:
        job.post(event)
    return job


@pytest.mark.parametrize(
    ("events", "told"),
    [
        ([], None),
        ([Progress(0, 1, 3)], 0.333),
        ([Progress(0, 1, 3), Progress(0, 2, 3)], 0.667),
        ([Progress(0, 3, 3)], 1.0),
    ],
)
def test_the_hosted_api_tells_the_share_of_the_steps(events, told):
    bfl_job = BflJob(running(*events), ResultStore(10), "http://localhost")
    answer = bfl_job.describe()
    assert (answer["status"], answer["progress"]) == ("Pending", told)


def test_a_picture_that_is_no_longer_kept_ends_the_clients_waiting():
    results, job = ResultStore(1000), a_job()
    bfl_job = BflJob(job, results, "http://localhost")
    job.post(Completed(()))
    # It becomes a file first.
    assert bfl_job.describe()["status"] == "Pending"
    job.note_delivery()
    answer = bfl_job.describe()
    assert (answer["status"], answer["result"]) == ("Error", None)
    assert answer["details"]["code"] == "result_expired"


@pytest.mark.parametrize(
    ("count", "event", "share", "left"),
    [
        (1, Progress(0, 1, 4), 0.25, 18.0),
        (2, Progress(0, 1, 4), 0.125, 42.0),
        (2, Progress(1, 1, 4), 0.625, 3.6),
        (1, Progress(0, 2, 3), 0.667, 3.0),
        # It is still decoded, and becomes a file: nobody is to fetch it yet.
        (1, Progress(0, 4, 4), 0.99, 0.06),
    ],
)
def test_the_web_ui_tells_the_share_of_all_pictures_and_the_seconds_left(
    count, event, share, left
):
    told = describe_progress(running(event, count=count))
    assert (told["progress"], told["eta_relative"]) == (share, left)
    state = told["state"]
    assert state["job"] == "a-job-of-tests"
    assert (state["job_no"], state["job_count"]) == (0, 1)
    assert (state["sampling_step"], state["sampling_steps"]) == (
        event.step,
        event.total,
    )
    assert (told["textinfo"], told["current_image"]) == ("running", None)


def test_before_the_first_step_nothing_is_guessed():
    told = describe_progress(running())
    assert (told["progress"], told["eta_relative"]) == (0.0, 0.0)
    assert told["state"]["job_count"] == 1


def test_without_a_request_the_web_ui_is_idle():
    told = describe_progress(None)
    assert (told["progress"], told["eta_relative"]) == (0.0, 0.0)
    state = told["state"]
    assert (state["job"], state["job_count"], state["sampling_steps"]) == ("", 0, 0)
    assert not state["interrupted"] and not state["skipped"]
    assert told["textinfo"] is told["current_image"] is None


def test_a_preview_is_shown():
    preview = Preview(Image.new("RGB", (8, 8)), None, (8, 8))
    told = describe_progress(running(PartialImage(0, 0, preview)))
    assert told["current_image"].startswith("iVBORw0KGgo")
