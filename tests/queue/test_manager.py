"""The manager's bookkeeping, over backends of a few lines in this process."""

from __future__ import annotations

import contextlib
import gc
import itertools
import logging
import os
import threading
import time
import weakref

import pytest
from PIL import Image

from flux_api.core import (
    Completed,
    Failed,
    ImageResult,
    Lora,
    Progress,
    Queued,
    Started,
)
from flux_api.errors import (
    Cancelled,
    InvalidRequest,
    JobConflict,
    JobNotFound,
    QueueFull,
    Unavailable,
)
from flux_api.queue.backend_loader import BackendLoader
from flux_api.queue.manager import PipelineManager
from flux_api.queue.readiness import Readiness
from flux_api.queue.tasks import BackendBroken
from tests.queue.small_requests import request
from tests.support.servers import wait_for
from tests.support.submitting import submit


class Work:
    """What a backend is asked for, what it may call, and whose it is."""

    def __init__(self, manager, picture, callbacks):
        self.request, self.index = picture.request, picture.index
        self.job = manager.find(picture.job_id)
        self.check, self.on_step = callbacks.check, callbacks.on_step
        self.on_loading = callbacks.on_loading

    @contextlib.contextmanager
    def loading(self):
        self.on_loading(True)
        yield
        self.on_loading(False)


class Scripted:
    """Pictures made by ``draw(task)``, up to ``slots`` at once."""

    outage = None

    def __init__(self, draw, slots=1, most=None):
        self.draw, self.slots, self.most = draw, slots, most or slots

    def load(self, report):
        report("loading nothing")

    def joins(self, request, running):
        return len(running) < self.most

    def fits(self, request, running):
        return len(running) < self.slots

    def tokens(self, request):
        return 1

    def prepare(self, request):
        pass

    def is_warm(self, request):
        return True

    def run(self, picture, callbacks):
        self.draw(Work(self.manager, picture, callbacks))
        return ImageResult(Image.new("RGB", (16, 16)), picture.seed)


def manage(backend, **settings):
    """A manager that drives ``backend``."""
    backend.manager = PipelineManager(lambda: backend, **settings)
    return backend.manager


def start(draw, slots=1, most=None, **settings):
    """A ready manager; up to ``most`` pictures can be on their way."""
    manager = manage(Scripted(draw, slots, most), **settings)
    manager.start()
    wait_for(lambda: manager.not_ready is None, 10)
    return manager


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
            with task.loading(), open(__file__, "rb", buffering=0) as file:
                while not gate.wait(0.1):
                    file.seek(0)
                    file.read(1)
        else:
            gate.wait()

    manager = start(draw, slots=2, step_timeout=0.5, exit_process=ended.append)
    job = submit(manager, request(2))
    time.sleep(1.5)
    gate.set()
    assert isinstance(job.wait(10), Completed)
    assert ended == []


def test_loading_that_reads_nothing_is_ended_like_a_step(gate):
    ended = threading.Event()

    def draw(task):
        with task.loading():
            gate.wait()

    manager = start(draw, step_timeout=0.5, exit_process=lambda _: ended.set())
    job = submit(manager, request())
    assert isinstance(job.wait(10), Failed)
    assert ended.wait(10)


def test_a_first_loading_that_reads_nothing_is_ended_too(gate):
    ended = threading.Event()
    backend = Scripted(lambda _: None)
    backend.load = lambda _: gate.wait()
    manager = manage(backend, step_timeout=0.5, exit_process=lambda _: ended.set())
    manager.start()
    assert ended.wait(10)
    assert "hangs" in manager.not_ready


def test_jobs_whose_other_pictures_wait_count_as_waiting(gate):
    manager = start(lambda _: gate.wait(), max_queue=3)
    submit(manager, request(10), caller="runs")
    wait_for(lambda: manager.running == 1, 10)
    for number in range(3):
        submit(manager, request(10), caller=f"waits {number}")
    with pytest.raises(QueueFull) as refused:
        submit(manager, request(), caller="one too many")
    assert 1 <= refused.value.retry_after <= 60


def test_cancelled_pictures_leave_the_queue_at_once(gate):
    manager = start(lambda _: gate.wait())
    submit(manager, request(), caller="me")
    wait_for(lambda: manager.running == 1, 10)
    submit(manager, request(), caller="me")
    for _ in range(50):
        manager.cancel(submit(manager, request(10), caller="me"))
    assert [pictures.left for pictures in manager._queue.pictures()] == [1]


def test_a_picture_that_ends_after_its_cancellation_is_not_kept(gate):
    manager = start(lambda _: gate.wait())
    job = submit(manager, request())
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
    jobs = [submit(manager, request(), caller=str(n)) for n in range(3)]
    outcomes = [job.wait(10) for job in jobs]
    assert not ended.is_set()
    assert all(isinstance(outcome, Failed) for outcome in outcomes)
    assert {outcome.error.status for outcome in outcomes} == {503}
    assert ended.wait(10)


@pytest.mark.parametrize("before", [0, 3])
def test_a_device_lost_while_loading_ends_the_process_later_each_time(before):
    ended, handover = threading.Event(), LostBefore(before)
    backend = Scripted(lambda _: None)

    def load(report):
        raise BackendBroken("gone")

    backend.load = load
    manager = manage(backend, step_timeout=0.1, exit_process=lambda _: ended.set())
    manager.start(handover)
    assert ended.wait(10)
    assert manager.not_ready == f"gone; restarting in {0.1 * 2**before:g} s"
    assert handover.broken_loads == before + 1


def test_a_device_that_is_always_lost_is_tried_every_five_minutes():
    backend, handover = Scripted(lambda _: None), LostBefore(40)

    def load(report):
        raise BackendBroken("gone")

    backend.load = load
    # The process ends then; this one has other tests to run.
    manager = manage(backend, step_timeout=10.0, exit_process=lambda _: None)
    manager.start(handover)
    wait_for(lambda: manager.not_ready == "gone; restarting in 300 s", 10)


class LostBefore:
    """A handover after ``broken_loads`` workers that lost the device while loading."""

    waits = False

    def __init__(self, broken_loads):
        self.broken_loads = broken_loads


def test_draining_outlasts_a_late_success_of_loading():
    # Those of other tests may still be loading.
    before = threading.enumerate()
    manager = manage(Scripted(lambda _: None))
    manager.drain()
    manager.start()
    own = [
        t for t in threading.enumerate() if t not in before and t.name == "flux-load"
    ]
    # It ends with the word that requests are taken.
    wait_for(lambda: not any(thread.is_alive() for thread in own), 10)
    assert manager.not_ready == "shutting down"


class Turnstile:
    """Draws one picture for each turn, and notes of which ``job`` in ``order``."""

    def __init__(self):
        self.order, self.turns = [], threading.Semaphore(0)

    def draw(self, task):
        self.turns.acquire()
        self.order.append(task.job)

    @property
    def callers(self):
        return [job.caller for job in self.order]


def test_newcomers_come_before_those_who_had_more_turns():
    turnstile = Turnstile()
    manager, turns = start(turnstile.draw), turnstile.turns
    jobs = [submit(manager, request(4), caller="first")]
    wait_for(lambda: manager.running == 1, 10)
    turns.release()
    wait_for(lambda: len(turnstile.order) == 1, 10)
    wait_for(lambda: manager.running == 1, 10)
    jobs += [submit(manager, request(2), caller=f"new {n}") for n in range(3)]
    assert [job.last(Queued).position for job in jobs[1:]] == [0, 1, 2]
    for _ in range(9):
        turns.release()
    assert all(isinstance(job.wait(10), Completed) for job in jobs)
    news = ["new 0", "new 1", "new 2"]
    assert turnstile.callers == ["first", "first", *news, "first", *news, "first"]


def test_however_many_newcomers_come_nobody_is_kept_out():
    order = []
    manager = None

    def draw(task):
        order.append(task.job.caller)
        if task.job.caller != "old" and len(order) < 60:  # the next that had no turn
            submit(manager, request(), caller=f"new {len(order)}")
        time.sleep(0.01)

    manager = start(draw)
    job = submit(manager, request(10), caller="old")
    submit(manager, request(), caller="new 0")
    assert isinstance(job.wait(30), Completed)
    assert len(order) <= 30


def test_requests_of_one_caller_take_turns_too():
    turnstile = Turnstile()
    manager, turns = start(turnstile.draw), turnstile.turns
    jobs = [submit(manager, request(5), caller="an app with many users")]
    wait_for(lambda: manager.running == 1, 10)
    for count in (1, 3):
        jobs.append(submit(manager, request(count), caller="an app with many users"))
    assert [job.last(Queued).position for job in jobs[1:]] == [0, 1]
    for _ in range(9):
        turns.release()
    assert all(isinstance(job.wait(10), Completed) for job in jobs)
    sizes = [job.request.num_images_per_prompt for job in turnstile.order]
    assert sizes == [5, 1, 3, 5, 3, 5, 3, 5, 5]


def test_an_app_with_many_requests_gets_no_more_turns_than_another():
    turnstile = Turnstile()
    manager, turns = start(turnstile.draw), turnstile.turns
    held = submit(manager, request(), caller="first")
    wait_for(lambda: manager.running == 1, 10)
    jobs = [submit(manager, request(2), caller="many") for _ in range(4)]
    jobs.append(submit(manager, request(4), caller="one"))
    for _ in range(13):
        turns.release()
    assert all(isinstance(job.wait(10), Completed) for job in [held, *jobs])
    assert turnstile.callers[1:9].count("one") == 4


def test_retry_after_follows_from_the_steps_left_and_their_pace(gate):
    def draw(task):
        if task.request.num_inference_steps == 4:
            with task.loading():  # which says nothing of the pace
                time.sleep(0.1)
            for step in range(4):
                time.sleep(0.05)
                task.on_step(step + 1, 4)
        else:
            gate.wait()

    manager = start(draw, max_queue=2)
    for _ in range(2):
        assert isinstance(submit(manager, request(steps=4)).wait(10), Completed)
    submit(manager, request(steps=100))
    wait_for(lambda: manager.running == 1, 10)
    for _ in range(2):
        submit(manager, request(steps=100))
    with pytest.raises(QueueFull) as refused:
        submit(manager, request())
    # 300 steps at 0.05 s and a little more, for two that wait.
    assert 7 <= refused.value.retry_after <= 12


def test_nobody_waits_for_it_any_more_stops_it_before_the_next_step(gate):
    here = threading.Event()
    here.set()
    steps = []

    def draw(task):
        for step in range(10):
            task.on_step(step + 1, 10)
            steps.append(step)
            if step == 3:
                here.clear()

    manager = start(draw)
    job = submit(manager, request(2), is_wanted=here.is_set)
    outcome = job.wait(10)
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, Cancelled)
    wait_for(lambda: manager.running == 0, 10)
    assert steps == [0, 1, 2, 3]
    assert list(manager._queue.pictures()) == []


def test_a_kept_job_is_its_story_in_short(gate):
    def draw(task):
        for step in range(100):
            task.on_step(step + 1, 100)

    job = submit(start(draw), request())
    assert isinstance(job.wait(10), Completed)
    assert len(list(job.events(1))) == 103
    job.release()
    assert [type(event) for event in job.events(1)] == [
        *(Queued, Started, Progress, Completed)
    ]
    assert job.last(Progress) == Progress(0, 100, 100)


def test_a_thousand_jobs_are_kept_the_newest(gate):
    manager = start(lambda _: None)
    for number in range(1100):
        submit(manager, request(), job_id=f"kept-{number}").wait(10)
    with pytest.raises(JobNotFound):
        manager.find("kept-99")
    assert manager.find("kept-100").id == "kept-100"


def test_a_job_that_takes_the_id_of_an_ended_one_is_the_newest():
    manager = start(lambda _: None)
    for name in ("used-twice", "between", "used-twice"):
        submit(manager, request(), job_id=name, caller="me").wait(10)
    assert [job.id for job in manager.jobs_of("me")] == ["used-twice", "between"]


@pytest.mark.parametrize("how", ["refused", "cancelled"])
def test_jobs_without_pictures_push_out_none_that_has_some(how):
    manager = start(lambda _: None)
    made = submit(manager, request(), caller="A")
    made.wait(10)
    for number in range(1500):
        job = manager.open(caller="B", job_id=f"in-vain-{number}")
        if how == "refused":
            manager.cancel(job, InvalidRequest("The picture is damaged."))
        else:
            job.complete(request())
            manager.cancel(job)
    assert manager.find(made.id) is made
    assert manager.find("in-vain-1499").outcome is not None
    with pytest.raises(JobNotFound):
        manager.find("in-vain-0")


def test_a_job_that_failed_is_told_of_among_a_thousand_that_did_not():
    manager = start(lambda _: None)
    failed = manager.open(caller="A", job_id="one-that-failed")
    manager.cancel(failed, InvalidRequest("The picture is damaged."))
    for _ in range(1100):
        submit(manager, request(), caller="B").wait(10)
    assert manager.find(failed.id) is failed
    assert len(manager.jobs_of("B")) == 999


def test_an_id_is_free_for_its_owner_when_its_job_has_ended(gate):
    manager = start(lambda _: gate.wait())
    job = submit(manager, request(), job_id="whose-is-it", owner="alice")
    with pytest.raises(JobConflict):
        manager.open(job_id="whose-is-it", owner="bob")
    gate.set()
    job.wait(10)
    # He would take its pictures from her.
    with pytest.raises(JobConflict):
        manager.open(job_id="whose-is-it", owner="bob")
    with pytest.raises(JobNotFound):
        manager.find("whose-is-it", owner="bob")
    assert manager.find("whose-is-it", owner="alice") is job
    again = submit(manager, request(), job_id="whose-is-it", owner="alice")
    again.wait(10)
    assert manager.find("whose-is-it", owner="alice") is again


def test_a_request_that_is_still_read_has_a_place_in_the_queue():
    manager = start(lambda _: None, max_queue=2, max_per_caller=2)
    here = threading.Event()
    here.set()
    job = manager.open(caller="reads", is_wanted=here.is_set)
    assert (job.state, manager.queue_depth) == ("queued", 1)
    with manager.hold_place("waits"), pytest.raises(QueueFull):
        manager.open(caller="one too many")
    with manager.hold_place("reads"), pytest.raises(QueueFull) as caught:
        manager.open(caller="reads")
    assert caught.value.code == "rate_limit_exceeded"
    here.clear()
    assert isinstance(job.wait(10), Failed)
    assert manager.queue_depth == 0
    manager.submit(job, request())
    assert manager.queue_depth == 0


def test_a_short_request_is_made_beside_what_fills_the_forwards(gate):
    """One of a caller, three in all, and none that would be done later."""
    begun = []

    def draw(task):
        begun.append(task.job.caller)
        gate.wait()

    manager = start(draw, slots=2, most=9)
    submit(manager, request(5, steps=10), caller="long")
    wait_for(lambda: begun == ["long"] * 2, 10)
    submit(manager, request(steps=11), caller="longer")
    for name in ("a", "b", "b", "c", "d"):
        submit(manager, request(steps=10), caller=name)
    wait_for(lambda: len(begun) == 5, 10)
    assert begun[2:] == ["a", "b", "c"]


def test_equal_requests_are_made_one_after_another():
    order = []

    def draw(task):
        order.append(task.job.caller)
        for step in range(5):
            time.sleep(0.01)
            task.on_step(step + 1, 5)
        order.append(task.job.caller)

    manager = start(draw, most=9)
    jobs = [submit(manager, request(steps=5), caller=str(n)) for n in range(5)]
    assert all(isinstance(job.wait(10), Completed) for job in jobs)
    assert order == [caller for n in range(5) for caller in (str(n), str(n))]


def test_who_may_join_once_a_set_is_loaded_is_not_forgotten(gate):
    begun, loaded = [], threading.Event()

    def draw(task):
        begun.append(task.job.caller)
        gate.wait()

    class Loading(Scripted):
        def joins(self, request, running):
            return loaded.is_set()

    manager = manage(Loading(draw, 2))
    manager.start()
    wait_for(lambda: manager.not_ready is None, 10)
    submit(manager, request(), caller="loads")
    wait_for(lambda: begun == ["loads"], 10)
    submit(manager, request(), caller="joins")
    loaded.set()
    wait_for(lambda: begun == ["loads", "joins"], 5)


def test_nobody_overtakes_one_that_waits_for_running_work(gate):
    begun = []

    def draw(task):
        begun.append(task.job.caller)
        gate.wait()

    class Exclusive(Scripted):
        def joins(self, request, running):
            return request.num_inference_steps != 3

    manager = manage(Exclusive(draw, 9))
    manager.start()
    wait_for(lambda: manager.not_ready is None, 10)
    submit(manager, request(steps=10), caller="runs")
    wait_for(lambda: begun == ["runs"], 10)
    submit(manager, request(steps=3), caller="needs the device")
    submit(manager, request(), caller="comes later")
    gate.set()
    wait_for(lambda: begun == ["runs", "needs the device", "comes later"], 10)


def test_pictures_with_the_loras_that_are_on_go_first_a_few_times_in_a_row():
    turnstile = Turnstile()

    class Switching(Scripted):
        on = None

        def is_warm(self, request):
            return request.loras == self.on

        def run(self, picture, callbacks):
            self.on = picture.request.loras
            return super().run(picture, callbacks)

    manager = manage(Switching(turnstile.draw))
    manager.start()
    wait_for(lambda: manager.not_ready is None, 10)
    ink, oil = (Lora("ink", 1.0),), (Lora("oil", 1.0),)
    jobs = [submit(manager, request(10, loras=ink), caller="i")]
    wait_for(lambda: manager.running == 1, 10)
    jobs += [submit(manager, request(10, loras=oil), caller="o")]
    for _ in range(20):
        turnstile.turns.release()
    assert all(isinstance(job.wait(10), Completed) for job in jobs)
    order = "".join(turnstile.callers)
    assert order.startswith("iiii" + "oooo")
    changes = sum(one != other for one, other in itertools.pairwise(order))
    assert changes <= 7


def test_a_job_that_comes_later_is_waited_for(gate):
    manager = start(lambda _: gate.wait())
    with pytest.raises(JobNotFound):
        manager.find("comes-later")
    threading.Timer(0.3, manager.open, [], {"job_id": "comes-later"}).start()
    assert manager.find("comes-later", seconds=10).id == "comes-later"
    with pytest.raises(JobNotFound):
        manager.find("never-comes", seconds=0.1)


def test_draining_ends_when_the_work_is_done(gate):
    manager = start(lambda _: gate.wait())
    job = submit(manager, request())
    manager.drain()
    with pytest.raises(Unavailable):
        submit(manager, request())
    assert not manager.wait_idle(0.1)
    gate.set()
    assert manager.wait_idle(10)
    assert isinstance(job.outcome, Completed)


def test_an_id_that_is_used_again_at_once_is_a_new_job(gate):
    manager = start(lambda _: gate.wait())
    old = submit(manager, request(), job_id="used-again")
    wait_for(lambda: manager.running == 1, 10)
    manager.cancel(old)
    new = submit(manager, request(), job_id="used-again")
    gate.set()
    assert isinstance(new.wait(10), Completed)
    assert isinstance(old.outcome, Failed)


def test_a_thousand_that_left_cost_no_thread(gate):
    names = ("flux-run", "flux-watch")
    manager = start(lambda _: gate.wait(), max_queue=1000)
    first = submit(manager, request())
    wait_for(lambda: manager.running == 1, 10)
    threads = [t for t in threading.enumerate() if t.name.startswith(names)]
    gone = [submit(manager, request(), is_wanted=lambda: False) for _ in range(990)]
    last = submit(manager, request())
    gate.set()
    assert isinstance(last.wait(30), Completed)
    assert isinstance(first.outcome, Completed)
    assert all(isinstance(job.outcome, Failed) for job in gone)
    assert all(thread.is_alive() for thread in threads)
    assert manager.wait_idle(10)


def test_a_panic_of_a_library_ends_the_request_and_nothing_else():
    class Panic(BaseException):
        pass

    def draw(task):
        if task.request.num_images_per_prompt == 2:
            raise Panic("at the tokenizer")

    manager = start(draw)
    for _ in range(10):
        outcome = submit(manager, request(2)).wait(10)
        assert isinstance(outcome, Failed)
        assert outcome.error.code == "generation_failed"
    assert isinstance(submit(manager, request()).wait(10), Completed)


def test_newcomers_do_not_hide_a_hang(gate):
    ended = threading.Event()
    manager = start(
        lambda _: gate.wait(),
        slots=20,
        step_timeout=1.0,
        exit_process=lambda _: ended.set(),
    )
    began = time.monotonic()
    number = 0
    while not ended.is_set() and number < 20:
        with contextlib.suppress(Unavailable):
            submit(manager, request(), caller=str(number))
        number += 1
        time.sleep(0.3)
    assert time.monotonic() - began < 4


def test_of_positions_only_the_newest_is_kept(gate):
    manager = start(lambda _: gate.wait())
    submit(manager, request())
    wait_for(lambda: manager.running == 1, 10)
    ahead = [submit(manager, request()) for _ in range(5)]
    last = submit(manager, request())
    for number, job in enumerate(ahead):
        manager.cancel(job)
        wait_for(lambda n=number: last.last(Queued) == Queued(4 - n), 5)
    gate.set()
    assert isinstance(last.wait(10), Completed)
    assert [type(e) for e in last.events(1)] == [Queued, Started, Completed]


def test_a_kept_failure_holds_no_frames():
    def draw(task):
        raise QueueFull("whatever")

    job = submit(start(draw), request())
    outcome = job.wait(10)
    with pytest.raises(QueueFull):
        raise outcome.error
    job.release()
    assert outcome.error.__traceback__ is None


def test_loading_that_failed_is_tried_again_once_the_files_have_changed_and_rest(
    monkeypatch,
):
    monkeypatch.setattr("flux_api.queue.backend_loader._RELOAD_SECONDS", (3600.0,))
    monkeypatch.setattr("flux_api.queue.backend_loader._LOOK_SECONDS", 0.01)
    # As when a file is being copied: it grows at each look until it is whole.
    sizes, tries = iter([1, 1, 1, 2, 3, 4, 4]), []

    class Damaged(Scripted):
        def load(self, report):
            tries.append(len(looked))
            if len(tries) == 1:
                raise OSError("cut off")

    looked = []

    def look():
        looked.append(next(sizes, 4))
        return looked[-1]

    manager = PipelineManager(lambda: Damaged(lambda task: None), look_at_files=look)
    manager.start()
    wait_for(lambda: manager.not_ready is None, 10)
    # The first look comes before the first try; the last before the second.
    assert tries[0] == 1
    assert looked[: tries[1]] == [1, 1, 1, 2, 3, 4, 4, 4]


def test_loading_that_failed_is_tried_again_later_though_no_file_has_changed(
    monkeypatch, caplog
):
    monkeypatch.setattr(logging.getLogger("flux_api"), "propagate", True)
    monkeypatch.setattr("flux_api.queue.backend_loader._RELOAD_SECONDS", (0.05, 0.05))
    backend = Scripted(lambda task: None)
    failures = [OSError("of a library"), Unavailable("the weights are damaged")]

    def load(report):
        if failures:
            raise failures.pop()

    backend.load = load
    manager = manage(backend)
    manager.start()
    wait_for(lambda: manager.not_ready is None, 10)
    # Where it happened is logged of what no sentence was made for.
    told = [
        (r.getMessage(), bool(r.exc_info)) for r in caplog.records if r.levelno > 30
    ]
    when = "loading failed, next try in 0.05 s or when the files change: "
    assert told == [(when + "the weights are damaged", False), (when + "OSError", True)]


def test_a_backend_that_failed_to_load_is_gone_while_the_next_try_waits(monkeypatch):
    monkeypatch.setattr("flux_api.queue.backend_loader._RELOAD_SECONDS", (0.05,))
    made, alive = [], []

    def make():
        backend = Scripted(lambda task: None)
        if not made:
            backend.load = fail
        made.append(weakref.ref(backend))
        return backend

    def fail(report):
        raise Unavailable("the weights are damaged")

    def look_at_files():
        gc.collect()
        alive.append([one() is not None for one in made])

    backend = BackendLoader(make, look_at_files, Readiness()).load(yielding=False)
    assert backend is made[1]()
    assert alive[0] == []
    assert alive[1:] == [[False]] * len(alive[1:]) != []


def test_who_loads_beside_an_older_worker_leaves_it_the_cores():
    backend, nice = Scripted(lambda task: None), []

    def own_nice(*_):
        nice.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    backend.load = own_nice
    for yielding in (False, True):
        loader = BackendLoader(lambda: backend, lambda: None, Readiness())
        assert loader.load(yielding=yielding) is backend
    own_nice()
    assert nice[0] == nice[2] < nice[1]


def test_pictures_one_after_the_other_are_made_by_the_same_thread():
    """A GPU's libraries prepare for each thread anew what they run there."""
    threads = []
    manager = start(lambda _: threads.append(threading.get_ident()), slots=13)
    for number in range(60):
        job = submit(manager, request(seed=number), caller="one")
        assert isinstance(job.wait(10), Completed)
    # All sixteen begin to look at the start, and the next picture may be there before
    # the thread of the last one has ended it.
    assert len(set(threads[30:])) <= 3
