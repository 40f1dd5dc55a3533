"""gunicorn's master, so that an update is no outage: HUP has a new worker load beside
the old one, which goes on until the new one is ready.

gunicorn itself ends the old worker as soon as the new one has been forked, hears no
signal until it has gone, and ends altogether where the new one cannot start.
"""

from __future__ import annotations

import mmap
import os
import re
import signal
import time

from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

# What a worker says of itself: it takes requests; the older ones are to end first.
READY, NEEDS_ROOM = "ready", "needs room"
_LOOK_SECONDS = 0.1
_BOOT_SECONDS = 5.0
_ADDRESS = re.compile(r"[0-9a-fA-F.:\[\]]+:[0-9]{1,5}")


class Board:
    """A page of memory that the master and its workers share: short texts by name."""

    _NAMES = ("state", "why", "placement", "broken loads")
    _SIZE = 1024

    def __init__(self):
        self._page = mmap.mmap(-1, self._SIZE * len(self._NAMES))

    def __getitem__(self, name):
        start = self._NAMES.index(name) * self._SIZE
        text = self._page[start : start + self._SIZE].rstrip(b"\0")
        return text.decode("utf-8", "replace")

    def __setitem__(self, name, text):
        start = self._NAMES.index(name) * self._SIZE
        data = text.encode()[: self._SIZE]
        self._page[start : start + self._SIZE] = data.ljust(self._SIZE, b"\0")

    @property
    def state(self):
        """The age of the worker that spoke last, and what it said."""
        age, _, word = self["state"].partition(" ")
        return int(age or 0), word


class TakeoverArbiter(Arbiter):
    """One that ends older workers only when the newest says so."""

    def __init__(self, app):
        self.board = Board()
        self._older, self._older_ready, self._stopping = (), False, None
        self._last_age = 0
        super().__init__(app)

    def handover_of(self, worker):
        """What the worker that has just been forked knows of those before it."""
        return Handover(self.board, worker.age, self._older, self._older_ready)

    def setup(self, app):
        """As gunicorn; the API is to listen on FLUX_METRICS_BIND too."""
        own = os.environ.get("FLUX_METRICS_BIND", "").strip()
        binds = app.cfg.settings["bind"]
        # The file server may have the same environment. What is no address at all, the
        # application refuses by name.
        is_api = not str(getattr(app, "app_uri", "")).startswith("file_server")
        if is_api and _ADDRESS.fullmatch(own) and own not in binds.get():
            app.cfg.set("bind", [*binds.get(), own])
        super().setup(app)

    def reload(self):
        """Fork a new worker; the others go on."""
        old = self.WORKERS
        if (coming := self._coming()) is not None:
            # An update within an update: only the last one counts.
            self.kill_worker(coming.pid, signal.SIGTERM)
        age, word = self.board.state
        self._older, self._last_age = tuple(old), self.worker_age
        self._older_ready = word == READY and age in {w.age for w in old.values()}
        self.board["why"] = ""
        # Out of sight: whom gunicorn sees here it ends at once, and waits for.
        self.WORKERS = {}
        try:
            super().reload()
        except SystemExit:
            if os.getpid() != self.pid:  # the new worker's own end
                raise
            self.app.cfg = self.cfg
            self._say_failed("gunicorn's settings file cannot be read")
        else:
            if not self.WORKERS:
                self._say_failed("no process could be started")
        self.WORKERS = old | self.WORKERS
        self._older, self._older_ready = (), False

    def manage_workers(self):
        """As gunicorn, but not while the newest worker still loads."""
        if self._coming() is None:
            super().manage_workers()

    def reap_workers(self):
        """As gunicorn, but a worker that does not start ends no older one."""
        coming, before = self._coming(), dict(self.WORKERS)
        try:
            super().reap_workers()
        except HaltServer:
            ended = [w.age for pid, w in before.items() if pid not in self.WORKERS]
            has_older = any(w.age < min(ended) for w in self.WORKERS.values())
            if not (has_older or self.board.state[1] == READY):
                raise
            # Once it served, what is wrong may pass: a folder that is away, say.
        if self._stopping and time.monotonic() < self._stopping + _BOOT_SECONDS:
            # One that has just been forked still had the master's ears.
            self.kill_workers(signal.SIGTERM)
        if coming and self.WORKERS and coming.pid not in self.WORKERS:
            self._say_failed("the new worker ended before it was ready")

    def stop(self, graceful=True):
        """As gunicorn: all workers end, whichever loads or drains."""
        self._stopping = time.monotonic()
        super().stop(graceful)

    def spawn_worker(self):
        """As gunicorn; without memory or descriptors for it, a second later again."""
        try:
            return super().spawn_worker()
        except OSError as error:
            self.log.error("a worker cannot be started for now: %s", error)

    def _say_failed(self, why):
        self.board["why"] = why = self.board["why"] or f"{why}; the log says more"
        self.log.error("the update failed, the old worker goes on: %s", why)

    def _coming(self):
        """The worker that loads beside others, which are to go on meanwhile."""
        if self._stopping or len(self.WORKERS) <= self.num_workers:
            return None
        newest = max(self.WORKERS.values(), key=lambda worker: worker.age)
        return None if self.board.state[0] > self._last_age else newest


class Handover:
    """A worker's view of a takeover, from either side. ``waits`` is True while an older
    worker is to go on until this one is ready."""

    def __init__(self, board, age, older, older_ready):
        self._board, self._age, self._older = board, age, older
        self.waits = older_ready

    @property
    def beside(self):
        """Whether an older worker is still there."""
        return any(map(_is_alive, self._older))

    @property
    def replaced(self):
        """Whether a newer worker takes requests."""
        age, word = self._board.state
        return age > self._age and word == READY

    @property
    def has_successor(self):
        """Whether a newer worker is there, which may wait for this one's end."""
        return self._board.state[0] > self._age

    @property
    def older(self):
        """The process ids of the workers before this one."""
        return self._older

    @property
    def placement(self):
        """How the last worker that loaded holds its weights."""
        return self._board["placement"]

    @placement.setter
    def placement(self, text):
        self._board["placement"] = text

    @property
    def broken_loads(self):
        """How many workers in a row lost the device while they loaded."""
        return int(self._board["broken loads"] or 0)

    @broken_loads.setter
    def broken_loads(self, count):
        self._board["broken loads"] = str(count)

    @property
    def failed_update(self):
        """Why the last update failed; empty where it did not."""
        return self._board["why"]

    def say_ready(self):
        """This worker takes requests; the older ones are ended."""
        self._board["state"] = f"{self._age} {READY}"
        self.broken_loads = 0

    def say_failed(self, why):
        """This worker will not take over."""
        self._board["why"] = why

    def ask_for_room(self):
        """Have the older workers end before this one has loaded."""
        self.waits = False
        self._board["state"] = f"{self._age} {NEEDS_ROOM}"

    def make_room(self, seconds):
        """The same; whether they have ended within ``seconds``."""
        self.ask_for_room()
        until = time.monotonic() + seconds
        while self.beside and time.monotonic() < until:
            time.sleep(_LOOK_SECONDS)
        return not self.beside


def _is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
