"""The thread that removes files which have outlived their time."""

from __future__ import annotations

import logging
import os
import threading
import time
from datetime import UTC, datetime

from .errors import FileServerError
from .storage import Storage

logger = logging.getLogger(__name__)

LONGEST_PAUSE = 60.0


class Cleaner:
    """Removes what is older than ``ttl`` seconds, now and then, never the latest."""

    def __init__(self, storage: Storage, ttl: float) -> None:
        self._storage = storage
        self._ttl = ttl
        # A tenth of the age: a file is gone at most that much too late.
        self._pause = min(LONGEST_PAUSE, max(0.2, ttl / 10))
        self._pid = 0

    def ensure_running(self) -> None:
        """Start the thread in this process, once: a fork leaves threads behind."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            threading.Thread(target=self._run, name="cleaner", daemon=True).start()

    def clean(self) -> None:
        """Do one round; a storage that fails is tried again in the next."""
        limit = datetime.fromtimestamp(time.time() - self._ttl, UTC)
        try:
            removed = self._storage.remove_expired(limit)
        except FileServerError as error:
            logger.warning("could not remove expired files: %s", error.message)
        else:
            if removed:
                logger.info("removed %d expired files", removed)

    def _run(self) -> None:
        while True:
            self.clean()
            time.sleep(self._pause)
