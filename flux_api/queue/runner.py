"""The threads that make pictures: each takes the next one in turn, and makes it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from flux_api.core import Started
from flux_api.errors import FluxError, PipelineFailed, shortage
from flux_api.metrics.instruments import IMAGES
from flux_api.queue.admission import Places
from flux_api.queue.fair_queue import FairQueue
from flux_api.queue.jobs import Job
from flux_api.queue.next_picture import MAX_INTERLEAVED, find_next, may_be_next
from flux_api.queue.sleep import Sleep
from flux_api.queue.tasks import Backend, BackendBroken, PictureTask, log_failure


class Runner:
    """Makes the pictures of ``queue``, and teaches ``places`` their pace. It works
    under the manager's ``lock``, and tells it of each start and end by ``note_change``
    and of a lost device by ``give_up``; ``cancel_unwanted`` says of a job whether it is
    not to be begun any more."""

    def __init__(
        self,
        lock: threading.RLock,
        queue: FairQueue,
        places: Places,
        *,
        note_change: Callable[[], None],
        cancel_unwanted: Callable[[Job], bool],
        give_up: Callable[[Exception], None],
    ) -> None:
        self._lock = lock
        # Of the threads that make pictures, one at a time has to look for work: the one
        # that made the last. CUDA's libraries prepare for each thread anew what they
        # run there, so few threads are to do it all. When each made its last picture:
        self._idle: dict[threading.Condition, float] = {}
        self._looking = 0
        self._queue, self._places = queue, places
        self._note_change, self._cancel_unwanted = note_change, cancel_unwanted
        self._give_up = give_up
        self.running: list[PictureTask] = []
        """The pictures that are being made; guarded by the lock."""
        self._backend: Backend
        self._sleep: Sleep

    def start(self, backend: Backend, sleep: Sleep) -> None:
        """Make them by ``backend`` from now on, telling ``rest`` of each."""
        self._backend, self._sleep = backend, sleep
        # A thread a picture: the backend blocks while it makes one.
        self._looking = backend.slots + MAX_INTERLEAVED
        for number in range(self._looking):
            threading.Thread(
                target=self._run_tasks, name=f"flux-run-{number}", daemon=True
            ).start()

    def wake(self) -> None:
        """Look for work: what may start has changed. Needs the lock."""
        if self._looking == 0 and self._idle:
            last = max(self._idle, key=self._idle.__getitem__)
            del self._idle[last]
            self._looking += 1
            last.notify()

    def note_arrival(self, job: Job) -> None:
        """Look for work where ``job``, which was queued just now, may start. Needs the
        lock."""
        if may_be_next(job, self._queue, self.running, self._backend):
            self.wake()

    def _run_tasks(self) -> None:
        woken, ended = threading.Condition(self._lock), 0.0
        while True:
            task = self._take(woken, ended)
            began = time.monotonic()
            try:
                self._run(task)
            finally:
                with self._lock:
                    self.running.remove(task)
                    # Loading is done once, and says nothing of the next picture.
                    seconds = time.monotonic() - began - task.loaded
                    self._sleep.note_work()
                    self._places.pace.learn(task.step * task.tokens, seconds)
                    if task.job.outcome is not None:
                        # Failed or cancelled: nobody wants its other pictures.
                        self._queue.drop(task.job)
                    self._note_change()
                    ended = time.monotonic()
                    self._looking += 1
                # While this thread waits for the next, it would hold the uploads.
                del task

    def _take(self, woken: threading.Condition, ended: float) -> PictureTask:
        """The next picture that may start, in turn."""
        with self._lock:
            try:
                found = self._look(woken, ended)
            finally:
                self._looking -= 1
            return self._start(*found)

    def _look(self, woken: threading.Condition, ended: float) -> tuple[Job, bool]:
        """What :func:`find_next` finds as soon as it does, with the lock held; what
        nobody waits for ends here."""
        while True:
            found = find_next(self._queue, self.running, self._backend)
            if found is None:
                self._looking -= 1
                self._idle[woken] = ended
                # Who wakes it counts it among those that look.
                woken.wait()
            elif not self._cancel_unwanted(found[0]):
                return found

    def _start(self, job: Job, interleaved: bool) -> PictureTask:
        task = self._queue.take(job, interleaved=interleaved)
        task.interleaved = interleaved
        # It has shown no life yet: a device that hangs is not forgiven for newcomers.
        beats = [other.last_beat for other in self.running]
        task.beat = min(time.monotonic(), max(beats, default=math.inf))
        self.running.append(task)
        job.post(Started())
        self._note_change()
        # Another may start beside it.
        self.wake()
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
            failed = PipelineFailed(
                "The pipeline failed on this request; the server's log says why."
            )
            task.job.fail(shortage(error) or failed)
