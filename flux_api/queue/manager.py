"""The one pipeline manager of a process: a fair queue, its jobs, and readiness.

It decides who runs next and when; how pictures are made is its backend's affair.
"""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import logging
import math
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flux_api.core import ImageRequest, Queued, Started
from flux_api.errors import (
    DeadlineExceeded,
    FluxError,
    JobNotFound,
    PipelineFailed,
    QueueFull,
    Unavailable,
    shortage,
)
from flux_api.metrics.instruments import IMAGES
from flux_api.queue.admission import MAX_INTERLEAVED, find_next
from flux_api.queue.fair_queue import FairQueue
from flux_api.queue.job_table import JobTable
from flux_api.queue.jobs import Job
from flux_api.queue.life import LoadingLife
from flux_api.queue.readiness import Handover, Readiness, State
from flux_api.queue.tasks import (
    Backend,
    BackendBroken,
    PictureTask,
    WorkPace,
    log_failure,
)

logger = logging.getLogger(__name__)

# For the last answers to reach their clients before the process ends.
LAST_WORDS_SECONDS = 10.0
WATCH_SECONDS = 0.25
# Hubs and networks often come back soon. Every five minutes from then on, and whenever
# the files have changed: twice the same after a change, or they are still copied.
_RELOAD_SECONDS = (5.0, 15.0, 60.0)
_LOOK_SECONDS = 1.0
# A third of the share of a thread that does not yield.
_NICE = 5


class PipelineManager:
    """The only one that touches pipelines. ``submit`` queues a request as n tasks, one
    a picture; callers take turns, so nobody waits behind another's ten pictures.
    ``make_backend`` runs in the loading thread, so that heavy imports delay nobody;
    what ``look_at_files`` gives changes when loading is worth another try.
    """

    def __init__(
        self,
        make_backend: Callable[[], Backend],
        *,
        look_at_files: Callable[[], object] = lambda: None,
        max_queue: int = 32,
        max_per_caller: int = 0,
        step_timeout: float = 120.0,
        exit_process: Callable[[int], object] = os._exit,
    ) -> None:
        self._make_backend = make_backend
        self._look_at_files = look_at_files
        self._backend: Backend
        self._max_queue = max_queue
        self._max_per_caller = max_per_caller
        self._step_timeout = step_timeout
        self._exit_process = exit_process
        # Reentrant, because looking for work cancels what nobody waits for.
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        # Of the threads that make pictures, one at a time has to look for work.
        self._startable = threading.Condition(lock)
        self._positions_told = True
        self._queue = FairQueue()
        self._running: list[PictureTask] = []
        self._jobs = JobTable()
        # Jobs whose pictures are still being read, and callers that wait for a job of
        # another request: each has a place in the queue.
        self._incomplete: set[Job] = set()
        self._held: list[str] = []
        self._pace = WorkPace()
        self._started = False
        self._readiness = Readiness()
        self.handover: Handover | None = None
        # Of the loading at the start, while it goes on.
        self._life: LoadingLife | None = None

    # -- readiness ---------------------------------------------------------------

    @property
    def not_ready(self) -> str | None:
        """Why no request is taken at the moment, None when ready."""
        return self._readiness.reason

    @property
    def state(self) -> State:
        """The same in one word."""
        return self._readiness.state

    @property
    def memory(self) -> dict[str, int] | None:
        """The backend's; None before there is one."""
        backend = getattr(self, "_backend", None)
        return backend.memory if backend is not None else None

    @property
    def failed_update(self) -> str | None:
        """Why the last new worker did not take over from this one."""
        return (self.handover and self.handover.failed_update) or None

    def start(self, handover: Handover | None = None) -> None:
        """Begin loading in the background, taking over by ``handover``; later calls do
        nothing."""
        if self._started:  # asked before every request: not to wait for the lock
            return
        with self._changed:
            started, self._started = self._started, True
            self.handover = self.handover or handover
        if not started:
            threading.Thread(target=self._load, name="flux-load", daemon=True).start()

    def drain(self) -> None:
        """Take no new work; what is queued and running goes on. Safe in a signal's
        handler."""
        self._readiness.drain()

    def wait_idle(self, seconds: float) -> bool:
        """Whether all work is done, after at most ``seconds``."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._jobs.living(), seconds)

    def _load(self) -> None:
        threading.Thread(target=self._watch, name="flux-watch", daemon=True).start()
        # Threads inherit a priority, so those that make pictures are not started by
        # the one that loads.
        loading = threading.Thread(target=self._load_backend, name="flux-load-weights")
        loading.daemon = True
        loading.start()
        loading.join()
        backend: Backend | None = getattr(self, "_backend", None)
        if backend is None:
            return
        # A thread a picture: the backend blocks while it makes one.
        for number in range(backend.slots + MAX_INTERLEAVED):
            threading.Thread(
                target=self._run_tasks, name=f"flux-run-{number}", daemon=True
            ).start()
        if self.handover is not None:
            self.handover.say_ready()
        self._readiness.set_ready()

    def _load_backend(self) -> None:
        if self.handover is not None and self.handover.waits:
            _yield_to_others()
        for pause in itertools.chain(_RELOAD_SECONDS, itertools.repeat(300.0)):
            files = self._look_at_files()
            self._life = LoadingLife()
            try:
                backend = self._make_backend()
                backend.load(self._tell_loading)
                break
            except BackendBroken as broken:
                self._give_up(broken)
                return
            except BaseException as error:  # whatever a loader raises: ready says so
                reason = getattr(error, "message", type(error).__name__)
                logger.error(
                    "loading failed, next try in %g s or when the files change: %s",
                    *(pause, reason),
                    # What is said to callers says it all; else where it happened.
                    exc_info=not isinstance(error, FluxError),
                )
                self._readiness.fail(f"loading failed: {reason}")
            # Outside the handler: its traceback holds what was loaded so far.
            self._life = None
            self._wait_for_files(files, pause)
        self._life = None
        self._backend = backend

    def _tell_loading(self, text: str) -> None:
        if self._life is not None:
            self._life.show()
        self._readiness.report(text)

    def _wait_for_files(self, before: object, seconds: float) -> None:
        """Until the files are others than ``before`` and rest, ``seconds`` at most."""
        until, last = time.monotonic() + seconds, before
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(_LOOK_SECONDS, left))
            now = self._look_at_files()
            if now == last != before:
                return
            last = now

    # -- jobs --------------------------------------------------------------------

    def open(
        self,
        *,
        caller: str = "",
        owner: str | None = None,
        job_id: str | None = None,
        is_wanted: Callable[[], bool] | None = None,
    ) -> Job:
        """A job (see :class:`~flux_api.queue.jobs.Job`) that has a place in the queue
        while its request is read: it ends by :meth:`cancel`, or goes on by
        :meth:`submit`. Unavailable, QueueFull or JobConflict."""
        job = Job(
            id=job_id or secrets.token_hex(16),
            caller=caller,
            owner=owner,
            is_wanted=is_wanted,
        )
        with self._changed:
            self._readiness.check()
            self._check_room(caller)
            self._jobs.add(job)
            self._incomplete.add(job)
            job.post(Queued(self._places_taken - 1))
            self._note_change()
        return job

    def submit(self, job: Job, request: ImageRequest) -> None:
        """Queue ``job`` to make ``request``, unless it has ended meanwhile."""
        with self._changed:
            job.complete(request)
            self._incomplete.discard(job)
            if job.outcome is None:
                self._queue.add(job)
                self._tell_position(job)
            self._note_change()

    @contextmanager
    def hold_place(self, caller: str) -> Iterator[None]:
        """A place in the queue for one that waits for the job of another request.
        Unavailable or QueueFull."""
        with self._changed:
            self._readiness.check()
            self._check_room(caller)
            self._held.append(caller)
        try:
            yield
        finally:
            with self._changed:
                self._held.remove(caller)
                self._note_change()

    @property
    def _places_taken(self) -> int:
        return len(self._waiting()) + len(self._incomplete) + len(self._held)

    def _check_room(self, caller: str) -> None:
        if self._places_taken >= self._max_queue:
            message = "Every place in the queue is taken."
            raise QueueFull(message, retry_after=self._estimate())
        alive = self._jobs.alive(caller) + self._held.count(caller)
        if 0 < self._max_per_caller <= alive:
            raise QueueFull(
                f"You have {alive} requests here already; wait for one to end.",
                retry_after=self._estimate(),
                code="concurrency_limit_exceeded",
            )

    def _waiting(self) -> list[Job]:
        """The jobs that have not ended and of which a picture waits and none runs."""
        running = {task.job for task in self._running}
        return [
            pictures.job
            for pictures in self._queue.pictures()
            if pictures.job not in running and pictures.job.outcome is None
        ]

    def find(
        self, job_id: str, *, owner: str | None = None, seconds: float = 0.0
    ) -> Job:
        """The job, where it is ``owner``'s (None: anybody's); else JobNotFound, once it
        has not come within ``seconds``."""
        until = time.monotonic() + seconds
        with self._changed:
            while True:
                try:
                    return self._jobs.find(job_id, owner)
                except JobNotFound:
                    left = until - time.monotonic()
                    if left <= 0:
                        raise
                self._changed.wait(left)

    def jobs_of(self, caller: str) -> list[Job]:
        """The jobs of ``caller``, the newest first."""
        with self._changed:
            return self._jobs.of(caller)

    def cancel(self, job: Job, error: FluxError | None = None) -> None:
        """End ``job`` now (with ``error``, else as cancelled): what is queued never
        runs, what runs stops at its next step."""
        if error is None:
            job.cancel()
        else:
            job.fail(error)
        with self._changed:
            self._incomplete.discard(job)
            self._queue.drop(job)
            self._note_change()

    @property
    def queue_depth(self) -> int:
        """How many requests wait for their first picture's start."""
        with self._changed:
            waiting = sum(p.job.state == "queued" for p in self._queue.pictures())
            return waiting + len(self._incomplete) + len(self._held)

    @property
    def running(self) -> int:
        """How many pictures are being made."""
        with self._changed:
            return len(self._running)

    @property
    def requests_running(self) -> int:
        """How many requests have begun and not ended."""
        with self._changed:
            return sum(job.state == "running" for job in self._jobs.living())

    def _note_change(self) -> None:
        self._positions_told = False
        self._startable.notify()
        self._changed.notify_all()

    def _tell_position(self, job: Job) -> None:
        for position, waiting in enumerate(self._queue.jobs()):
            if waiting is job:
                job.post(Queued(position))
                return

    def _tell_positions(self) -> None:
        """Post new queue positions, at most every WATCH_SECONDS: each change moves
        many."""
        if self._positions_told:
            return
        self._positions_told = True
        for position, job in enumerate(self._queue.jobs()):
            if job.last(Queued) != (event := Queued(position)):
                job.post(event)

    def forecast(self, request: ImageRequest) -> tuple[int, float | None]:
        """How many requests would wait in front of ``request``, and in about how many
        seconds it would be done (None: nothing was measured yet)."""
        with self._changed:
            pictures = request.num_images_per_prompt * request.num_inference_steps
            work = self._work_left() + pictures * self._backend.tokens(request)
            seconds = self._pace.seconds_of(work, at_once=len(self._running))
            return len(self._waiting()), seconds or None

    def _estimate(self) -> float:
        """Seconds until a place in the queue is free, 1..60: the work that is left to
        do, at the pace of that done, shared out among the jobs that wait."""
        work = self._work_left()
        seconds = self._pace.seconds_of(work, at_once=len(self._running))
        return min(60.0, max(1.0, seconds / max(1, len(self._waiting()))))

    def _work_left(self) -> int:
        """What is queued and running, in steps times tokens: pictures of all sizes and
        lengths add up."""
        work = 0
        for task in self._running:
            work += task.steps_left * self._backend.tokens(task.request)
        for waiting in self._queue.pictures():
            request = waiting.job.request
            steps = waiting.left * request.num_inference_steps
            work += steps * self._backend.tokens(request)
        return work

    # -- running -----------------------------------------------------------------

    def _run_tasks(self) -> None:
        while True:
            task = self._take()
            began = time.monotonic()
            try:
                self._run(task)
            finally:
                with self._changed:
                    self._running.remove(task)
                    work = task.step * self._backend.tokens(task.request)
                    self._pace.learn(work, time.monotonic() - began - task.loaded)
                    if task.job.outcome is not None:
                        self._queue.drop(task.job)
                    self._note_change()
                # While this thread waits for the next, it would hold the uploads.
                del task

    def _take(self) -> PictureTask:
        """The next picture that may start, in turn; what nobody waits for ends here."""
        with self._changed:
            while True:
                found = find_next(self._queue, self._running, self._backend)
                if found is None:
                    self._startable.wait()
                elif found[0].is_wanted:
                    return self._start(*found)
                else:
                    self.cancel(found[0])

    def _start(self, job: Job, interleaved: bool) -> PictureTask:
        task = self._queue.take(job, interleaved=interleaved)
        task.interleaved = interleaved
        # It has shown no life yet: a device that hangs is not forgiven for newcomers.
        beats = [other.last_beat for other in self._running]
        task.beat = min(time.monotonic(), max(beats, default=math.inf))
        self._running.append(task)
        job.post(Started())
        self._note_change()
        return task

    def _run(self, task: PictureTask) -> None:
        try:
            result = self._backend.run(task.picture, task.callbacks)
            IMAGES.inc()
            task.job.finish_image(task.index, result)
        except FluxError as error:
            task.job.fail(error)
        except BackendBroken as broken:
            self._give_up(broken)
        except BaseException as error:  # a panic in a library must not end the thread
            log_failure(error, task)
            failed = PipelineFailed("The pipeline failed on this request.")
            task.job.fail(shortage(error) or failed)

    def _watch(self) -> None:
        """Notice that nothing shows life for ``step_timeout`` seconds. One picture
        drives the device at a time, so the liveliest speaks for all that wait."""
        while True:
            # Often enough for a short timeout, as tests have it, to be kept.
            time.sleep(min(WATCH_SECONDS, self._step_timeout / 4))
            with self._changed:
                for job in [job for job in self._incomplete if not job.is_wanted]:
                    self.cancel(job)
                self._tell_positions()
                # A set that has been loaded meanwhile lets others join.
                self._startable.notify()
                beats = [task.last_beat for task in self._running]
                if self._life is not None:
                    beats.append(self._life.last_sign())
            if beats and time.monotonic() - max(beats) > self._step_timeout:
                why = TimeoutError(
                    "the pipeline hangs: no step or byte within FLUX_STEP_TIMEOUT"
                )
                self._give_up(why, DeadlineExceeded("The pipeline made no progress."))
                return

    def _give_up(self, why: Exception, answer: FluxError | None = None) -> None:
        """Leave the process once every request is answered; gunicorn starts another."""
        answer = answer or Unavailable("The device failed; try again.", retry_after=30)
        with self._changed:
            self._readiness.fail(f"{why}; restarting")
            for job in self._jobs.living():
                job.fail(answer)
        logger.critical("restarting this worker: %s", why)
        time.sleep(min(LAST_WORDS_SECONDS, self._step_timeout))
        # A thread that is stuck in the driver cannot be ended, only shown.
        faulthandler.dump_traceback(all_threads=True)
        # EX_SOFTWARE of sysexits.h, and none of those that gunicorn gives a meaning.
        self._exit_process(70)


def _yield_to_others() -> None:
    """Leave the cores to the old worker where it needs them."""
    with contextlib.suppress(OSError):  # Linux alone knows threads by such a number
        thread = threading.get_native_id()
        own = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, own + _NICE)
