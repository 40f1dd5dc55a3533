"""The end of a process whose device hangs or is lost; gunicorn starts another."""

from __future__ import annotations

import faulthandler
import logging
import threading
import time
from collections.abc import Callable

from flux_api.errors import DeadlineExceeded, FluxError, Unavailable

logger = logging.getLogger(__name__)

# For the last answers to reach their clients before the process ends.
LAST_WORDS_SECONDS = 10.0
# A device that fails each time is tried no more often than this.
MOST_SECONDS = 300.0
WATCH_SECONDS = 0.25


class Watchdog:
    """Asks ``look`` for the last signs of life of what is on its way, in monotonic
    seconds; when none is younger than ``step_timeout``, it ends the process. One
    picture drives the device at a time, so the liveliest speaks for all that wait.
    ``answer_all`` answers every request, and is told the reason."""

    def __init__(
        self,
        look: Callable[[], list[float]],
        answer_all: Callable[[str, FluxError], None],
        *,
        step_timeout: float,
        exit_process: Callable[[int], object],
    ) -> None:
        self._look, self._answer_all = look, answer_all
        self._step_timeout = step_timeout
        self._exit_process = exit_process
        self._ending = False

    def start(self) -> None:
        """Watch from now on, in a thread of its own."""
        threading.Thread(target=self._watch, name="flux-watch", daemon=True).start()

    def give_up(
        self, why: Exception, answer: FluxError | None = None, *, again: int = 0
    ) -> None:
        """Leave the process once every request is answered; later and later where it
        is the same as ``again`` times before."""
        # The first reason counts: what has failed shows no life any more either.
        if self._ending:
            return
        self._ending = True
        answer = answer or Unavailable("The device failed; try again.", retry_after=30)
        pause = min(LAST_WORDS_SECONDS, self._step_timeout)
        pause = min(MOST_SECONDS, pause * 2.0 ** min(again, 10))
        self._answer_all(f"{why}; restarting in {pause:g} s", answer)
        logger.critical("restarting this worker in %g s: %s", pause, why)
        time.sleep(pause)
        # A thread that is stuck in the driver cannot be ended, only shown.
        faulthandler.dump_traceback(all_threads=True)
        # EX_SOFTWARE of sysexits.h, and none of those that gunicorn gives a meaning.
        self._exit_process(70)

    def _watch(self) -> None:
        while True:
            # Often enough for a short timeout, as tests have it, to be kept.
            time.sleep(min(WATCH_SECONDS, self._step_timeout / 4))
            beats = self._look()
            if beats and time.monotonic() - max(beats) > self._step_timeout:
                why = TimeoutError(
                    "the pipeline hangs: no step or byte within FLUX_STEP_TIMEOUT"
                )
                self.give_up(why, DeadlineExceeded("The pipeline made no progress."))
                return
