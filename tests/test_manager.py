"""The manager's bookkeeping, over backends of a few lines in this process."""

from __future__ import annotations

import threading
import time

import pytest
from PIL import Image
from servers import wait_for

from flux_api.core import Completed, Failed, ImageRequest, ImageResult
from flux_api.errors import QueueFull
from flux_api.manager import BackendBroken, PipelineManager


class Scripted:
    """Pictures made by ``draw(task)``, up to ``slots`` at once."""

    def __init__(self, draw, slots=1):
        self.draw, self.slots = draw, slots

    def load(self, say):
        say("loading nothing")

    def admits(self, request, running):
        return len(running) < self.slots

    def run(self, task):
        self.draw(task)
        return ImageResult(Image.new("RGB", (16, 16)), task.request.seed)


def start(draw, slots=1, **settings):
    """A ready manager."""
    manager = PipelineManager(lambda: Scripted(draw, slots), **settings)
    manager.start()
    wait_for(lambda: manager.not_ready is None, 10)
    return manager


def request(count=1):
    """A small request for ``count`` pictures."""
    return ImageRequest(
        mode="generate",
        model="none",
        prompt="x",
        width=16,
        height=16,
        num_inference_steps=1,
        guidance_scale=None,
        num_images_per_prompt=count,
        seed=1,
    )


@pytest.fixture
def gate():
    """Held pictures wait for it; it is opened at the end."""
    event = threading.Event()
    yield event
    event.set()


def test_long_loading_is_no_hang_for_those_that_wait(gate):
    ended = []

    def draw(task):
        if task.index == 0:
            with task.loading():
                gate.wait()
        else:
            gate.wait()

    manager = start(draw, slots=2, step_timeout=0.5, exit_process=ended.append)
    job = manager.submit(request(2))
    time.sleep(1.5)
    gate.set()
    assert isinstance(job.wait(10), Completed)
    assert ended == []


def test_jobs_whose_other_pictures_wait_count_as_waiting(gate):
    manager = start(lambda _: gate.wait(), max_queue=3)
    manager.submit(request(10), caller="runs")
    wait_for(lambda: manager.running == 1, 10)
    for number in range(3):
        manager.submit(request(10), caller=f"waits {number}")
    with pytest.raises(QueueFull) as refused:
        manager.submit(request(), caller="one too many")
    assert 1 <= refused.value.retry_after <= 60


def test_cancelled_pictures_leave_the_queue_at_once(gate):
    manager = start(lambda _: gate.wait())
    manager.submit(request(), caller="me")
    wait_for(lambda: manager.running == 1, 10)
    manager.submit(request(), caller="me")
    for _ in range(50):
        manager.cancel(manager.submit(request(10), caller="me"))
    assert len(manager._queue) == 1


def test_a_picture_that_ends_after_its_cancellation_is_not_kept(gate):
    manager = start(lambda _: gate.wait())
    job = manager.submit(request())
    wait_for(lambda: manager.running == 1, 10)
    manager.cancel(job)
    job.release()
    gate.set()
    wait_for(lambda: manager.running == 0, 10)
    assert job._results == {}


def test_a_lost_device_answers_everybody_before_the_end():
    ended = threading.Event()

    def draw(task):
        time.sleep(0.2)
        raise BackendBroken("gone")

    manager = start(draw, step_timeout=0.5, exit_process=lambda _: ended.set())
    jobs = [manager.submit(request(), caller=str(n)) for n in range(3)]
    outcomes = [job.wait(10) for job in jobs]
    assert not ended.is_set()
    assert all(isinstance(outcome, Failed) for outcome in outcomes)
    assert {outcome.error.status for outcome in outcomes} == {503}
    assert ended.wait(10)


def test_draining_outlasts_a_late_success_of_loading():
    manager = PipelineManager(lambda: Scripted(lambda _: None))
    manager.drain()
    manager.start()
    time.sleep(0.2)
    assert manager.not_ready == "shutting down"


def test_a_newcomer_waits_for_one_picture_and_keeps_nobody_out(gate):
    order = []
    turns = threading.Semaphore(0)

    def draw(task):
        turns.acquire()
        order.append(task.job.caller)

    manager = start(draw)
    jobs = [manager.submit(request(4), caller="ten")]
    wait_for(lambda: manager.running == 1, 10)
    turns.release()
    wait_for(lambda: len(order) == 1, 10)
    wait_for(lambda: manager.running == 1, 10)
    jobs += [manager.submit(request(), caller=f"new {n}") for n in range(3)]
    for _ in range(6):
        turns.release()
    assert all(isinstance(job.wait(10), Completed) for job in jobs)
    assert order == ["ten", "ten", "new 0", "ten", "new 1", "ten", "new 2"]


def test_a_kept_failure_holds_no_frames():
    def draw(task):
        raise QueueFull("whatever")

    job = start(draw).submit(request())
    outcome = job.wait(10)
    with pytest.raises(QueueFull):
        raise outcome.error
    job.release()
    assert outcome.error.__traceback__ is None
