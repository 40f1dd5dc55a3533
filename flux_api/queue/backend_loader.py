"""Loading the backend at the start, tried again for as long as it fails."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable

from flux_api.errors import FluxError
from flux_api.queue.loading_life import LoadingLife
from flux_api.queue.readiness import Readiness
from flux_api.queue.tasks import Backend, BackendBroken

logger = logging.getLogger(__name__)

# Hubs and networks often come back soon. Every five minutes from then on, and whenever
# the files have changed: twice the same after a change, or they are still copied.
_RELOAD_SECONDS = (5.0, 15.0, 60.0)
_LOOK_SECONDS = 1.0
# A third of the share of a thread that does not yield.
_NICE = 5


class BackendLoader:
    """``make_backend`` runs in a thread of its own, so that heavy imports delay nobody;
    what ``look_at_files`` gives changes when loading is worth another try. How far it
    is stands in ``readiness``."""

    def __init__(
        self,
        make_backend: Callable[[], Backend],
        look_at_files: Callable[[], object],
        readiness: Readiness,
    ) -> None:
        self._make_backend, self._look_at_files = make_backend, look_at_files
        self._readiness = readiness
        self._life: LoadingLife | None = None
        self._result: Backend | BackendBroken

    def load(self, *, yielding: bool) -> Backend:
        """The backend, once it is loaded; BackendBroken when the device is lost.
        ``yielding`` leaves the cores to other processes where they need them."""
        # Threads inherit a priority, so those that make pictures are not started by
        # the one that loads.
        thread = threading.Thread(
            target=self._try_on, args=[yielding], name="flux-load-weights", daemon=True
        )
        thread.start()
        thread.join()
        if isinstance(self._result, BackendBroken):
            raise self._result
        return self._result

    def last_sign(self) -> float | None:
        """When loading last showed life, in monotonic seconds; None while nothing is
        loaded."""
        life = self._life
        return None if life is None else life.last_sign()

    def _try_on(self, yielding: bool) -> None:
        if yielding:
            _yield_to_others()
        for pause in itertools.chain(_RELOAD_SECONDS, itertools.repeat(300.0)):
            files = self._look_at_files()
            self._life = LoadingLife()
            try:
                self._result = self._load_once()
                return
            except BackendBroken as broken:
                self._result = broken
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
            finally:
                # Nothing is expected of it until the next try, if there is one.
                self._life = None
            # Outside the handler: its traceback holds what was loaded so far.
            self._wait_for_files(files, pause)

    def _load_once(self) -> Backend:
        """A backend that is loaded; nobody holds one that could not be."""
        backend = self._make_backend()
        backend.load(self._tell)
        return backend

    def _tell(self, text: str) -> None:
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


def _yield_to_others() -> None:
    """Leave the cores to the old worker where it needs them."""
    with contextlib.suppress(OSError):  # Linux alone knows threads by such a number
        thread = threading.get_native_id()
        own = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, own + _NICE)
