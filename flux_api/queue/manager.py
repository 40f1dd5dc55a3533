"""The one pipeline manager of a process: a fair queue, its jobs, and readiness.

It decides who runs next and when; how pictures are made is its backend's affair.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flux_api.core import ImageRequest, Queued
from flux_api.errors import FluxError, JobNotFound
from flux_api.queue.admission import Places
from flux_api.queue.backend_loader import BackendLoader
from flux_api.queue.fair_queue import FairQueue
from flux_api.queue.job_table import JobTable
from flux_api.queue.jobs import Job
from flux_api.queue.positions import Positions
from flux_api.queue.readiness import Handover, Readiness, State
from flux_api.queue.runner import Runner
from flux_api.queue.sleep import Sleep
from flux_api.queue.tasks import Backend, BackendBroken, Kept
from flux_api.queue.watchdog import Watchdog


class PipelineManager:
    """The only one that touches pipelines. ``submit`` queues a request as n tasks, one
    a picture; callers take turns, so nobody waits behind another's ten pictures.
    ``make_backend`` and ``look_at_files`` are for loading, see
    :class:`~flux_api.queue.backend_loader.BackendLoader`; ``step_timeout`` and
    ``exit_process`` for :class:`~flux_api.queue.watchdog.Watchdog`."""

    def __init__(
        self,
        make_backend: Callable[[], Backend],
        *,
        look_at_files: Callable[[], object] = lambda: None,
        max_queue: int = 32,
        max_per_caller: int = 0,
        step_timeout: float = 120.0,
        idle_seconds: float = 0.0,
        exit_process: Callable[[int], object] = os._exit,
    ) -> None:
        # Reentrant, because looking for work cancels what nobody waits for.
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        self._queue = FairQueue()
        self._jobs = JobTable()
        self._places = Places(
            self._queue, self._jobs, most=max_queue, per_caller=max_per_caller
        )
        self._positions = Positions(self._jobs_in_order)
        self._started = False
        self._readiness = Readiness()
        self._watchdog = Watchdog(
            self._look,
            self._answer_all,
            step_timeout=step_timeout,
            exit_process=exit_process,
        )
        self._runner = Runner(
            lock,
            self._queue,
            self._places,
            note_change=self._note_change,
            cancel_unwanted=self.cancel_unwanted,
            give_up=self._watchdog.give_up,
        )
        self._loader = BackendLoader(make_backend, look_at_files, self._readiness)
        self._backend: Backend
        self._idle_seconds = idle_seconds
        self._sleep: Sleep | None = None
        self.handover: Handover | None = None

    # -- readiness ---------------------------------------------------------------

    @property
    def not_ready(self) -> str | None:
        """Why no request is taken at the moment, None when ready."""
        return self._readiness.reason

    @property
    def state(self) -> State:
        """Whether requests are taken, in one word."""
        return self._readiness.state

    @property
    def memory(self) -> dict[str, int] | None:
        """Bytes ``used`` of the device's ``total``; None before there is a backend."""
        backend = getattr(self, "_backend", None)
        return backend.memory if backend is not None else None

    @property
    def performance(self) -> dict[str, str]:
        """How pictures of the default set are made; empty before there is a backend."""
        backend = getattr(self, "_backend", None)
        return backend.performance if backend is not None else {}

    @property
    def asleep(self) -> Kept | None:
        """How weights are kept while the next request waits for them to come back, None
        while they are on the device."""
        return self._backend.asleep if self._sleep is not None else None

    def sleep(self, kept: Kept | None = None) -> None:
        """Have all weights leave the device until the next request, to be ``kept`` so,
        None for as there is room. Unavailable until they have been loaded once,
        StillWorking while there are jobs, InvalidRequest where they cannot be kept
        so."""
        self._readiness.check()
        if self._sleep is not None:
            self._sleep.sleep(kept)

    @property
    def room(self) -> tuple[int, int]:
        """How many pictures may share the backend's forwards, and of how many tokens;
        asked once it is ready."""
        return self._backend.slots, self._backend.batch_tokens

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
            return self._changed.wait_for(self._is_idle, seconds)

    def _is_idle(self) -> bool:
        with self._changed:
            return not self._jobs.living()

    def _load(self) -> None:
        self._watchdog.start()
        self._positions.start()
        waits = self.handover is not None and self.handover.waits
        try:
            self._backend = self._loader.load(yielding=waits)
        except BackendBroken as broken:
            again = 0
            if self.handover is not None:
                again = self.handover.broken_loads
                self.handover.broken_loads = again + 1
            self._watchdog.give_up(broken, again=again)
            return
        self._sleep = Sleep(
            self._backend, self._is_idle, idle_seconds=self._idle_seconds
        )
        self._sleep.start()
        self._runner.start(self._backend, self._sleep)
        if self.handover is not None:
            self.handover.say_ready()
        self._readiness.set_ready(lambda: self._backend.outage)

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
            # First: while a model loads, a full queue is not what keeps one out.
            self._readiness.check()
            self._places.check(caller, self._runner.running)
            self._jobs.add(job)
            job.post(Queued(self._places.taken(self._runner.running)))
            self._places.reading.add(job)
            self._changed.notify_all()
        return job

    def submit(self, job: Job, request: ImageRequest) -> None:
        """Queue ``job`` to make ``request``, unless it has ended meanwhile."""
        # By this thread, while the device makes pictures of others.
        self._backend.prepare(request)
        with self._changed:
            job.complete(request)
            self._places.reading.discard(job)
            # Cancelled while its pictures were read.
            if job.outcome is not None:
                return
            self._queue.add(job, self._backend.tokens(request))
            job.post(Queued(self._queue.position(job)))
            self._positions.note_change()
            self._runner.note_arrival(job)

    @contextmanager
    def hold_place(self, caller: str) -> Iterator[None]:
        """A place in the queue for one that waits for the job of another request.
        Unavailable or QueueFull."""
        with self._changed:
            self._readiness.check()
            self._places.check(caller, self._runner.running)
            self._places.hold(caller)
        try:
            yield
        finally:
            with self._changed:
                self._places.let_go(caller)

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
        self._drop(job)

    def cancel_unwanted(self, job: Job) -> bool:
        """Whether ``job`` has ended, or ends now because nobody waits for it any
        more."""
        if not job.cancel_unwanted():
            return False
        self._drop(job)
        return True

    def _drop(self, job: Job) -> None:
        with self._changed:
            self._places.reading.discard(job)
            self._queue.drop(job)
            self._note_change()
            # It may have been what kept others from starting.
            self._runner.wake()

    def forget(self, job: Job) -> None:
        """End ``job`` now, and have nothing of it be found any more."""
        self.cancel(job)
        with self._changed:
            self._jobs.remove(job)

    @property
    def queue_depth(self) -> int:
        """How many requests wait for their first picture's start."""
        with self._changed:
            return self._places.unstarted

    @property
    def running(self) -> int:
        """How many pictures are being made."""
        with self._changed:
            return len(self._runner.running)

    @property
    def requests_running(self) -> int:
        """How many requests have begun and not ended."""
        with self._changed:
            return sum(job.state == "running" for job in self._jobs.living())

    def _note_change(self) -> None:
        self._positions.note_change()
        self._changed.notify_all()

    def _jobs_in_order(self) -> list[Job]:
        with self._changed:
            return self._queue.jobs()

    def forecast(self, request: ImageRequest) -> tuple[int, float | None]:
        """How many requests would wait in front of ``request``, and in about how many
        seconds it would be done (None: nothing was measured yet)."""
        with self._changed:
            steps = request.num_images_per_prompt * request.total_steps
            work = steps * self._backend.tokens(request)
            return self._places.forecast(work, self._runner.running)

    def _look(self) -> list[float]:
        """The last signs of life of what is on its way; what nobody waits for any more
        goes."""
        with self._changed:
            for job in list(self._places.reading):
                self.cancel_unwanted(job)
            # A set that has been loaded meanwhile lets others join.
            self._runner.wake()
            beats = [task.last_beat for task in self._runner.running]
        loading = self._loader.last_sign()
        return beats if loading is None else [*beats, loading]

    def _answer_all(self, reason: str, answer: FluxError) -> None:
        with self._changed:
            self._readiness.fail(reason)
            for job in self._jobs.living():
                job.fail(answer)
