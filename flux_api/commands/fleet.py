"""Servers kept running: what ends by itself is started again, and TERM drains all.

Each has a session of its own: Ctrl-C reaches only this process, which then stops them
in order.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from flux_api.commands.readiness import look

_LONGEST_PAUSE = 60.0
# Who ran this long is no longer one that cannot start.
_PROVEN_SECONDS = 60.0
_POLL_SECONDS = 0.2
# Twice while nginx passes over one that did not take requests.
_PROBE_SECONDS = 1.0
_NGINX_SECONDS = 10.0
# Within which gunicorn hears of an update, and forgets why the last one failed.
_HEARD_SECONDS = 10.0
# gunicorn's own, for a worker that cannot boot: a wrong setting, say.
_REFUSED = (3, 4)


@dataclass
class Server:
    """One program and its process; an API's ``url`` is without a slash at its end."""

    name: str
    command: Sequence[str]
    environ: Mapping[str, str]
    url: str = ""
    failures: int = 0
    due: float = 0.0
    began: float = 0.0
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin, or begin again."""
        self.began, self.due = time.monotonic(), 0.0
        self.process = subprocess.Popen(
            self.command, env=dict(self.environ), start_new_session=True
        )

    @property
    def status(self) -> int | None:
        """How it ended; None while it runs, or was never started."""
        return self.process.poll() if self.process else None

    def send(self, number: int) -> None:
        """The signal ``number``, where somebody is there to hear it."""
        if self.process:
            self.process.send_signal(number)

    def kill(self) -> None:
        """End whatever is left of it, its workers too: they hold its port and GPU."""
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def workers(self) -> set[int]:
        """The process ids of its children."""
        found: set[int] = set()
        pid = self.process.pid if self.process else 0
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found |= {int(child) for child in path.read_text().split()}
        return found

    def restart_when_due(self) -> None:
        """Start it again where it has ended: after 1 s, and twice as long each time
        that it did not stay."""
        if self.status is None:
            return
        now = time.monotonic()
        if self.due == 0.0:
            self.kill()
            if now - self.began > _PROVEN_SECONDS:
                self.failures = 0
            pause = min(_LONGEST_PAUSE, 2.0**self.failures)
            self.failures += 1
            self.due = now + pause
            say(
                f"the {self.name} ended ({self.status}); it starts again in {pause:g} s"
            )
        elif now >= self.due:
            self.start()


class Signals:
    """TERM and Ctrl-C are counted, HUP is noted; nothing is interrupted. HUP because
    the terminal was closed is an end, too."""

    def __init__(self) -> None:
        self.stops, self.update = 0, False
        self._had_terminal = _has_terminal()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._hear)

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP and _has_terminal() == self._had_terminal:
            self.update = True
        else:
            self.stops += 1


class Fleet:
    """The servers of one address: APIs, the file server, and nginx where it is in
    front."""

    def __init__(
        self,
        instances: Sequence[Server],
        files: Server,
        nginx: Server | None = None,
        *,
        nginx_url: str = "",
    ) -> None:
        self._instances, self._files = list(instances), [files]
        self._nginx, self._nginx_url = [nginx] if nginx else [], nginx_url
        self._all = [*self._files, *self._instances, *self._nginx]
        self._signals = Signals()
        self._shown: dict[str, str] = {}
        self._to_update: list[Server] = []
        self._replaced: set[int] | None = None
        self._update_sent, self._failed_before = 0.0, ""

    def start(self) -> None:
        """Begin them all."""
        for server in self._all:
            server.start()

    @property
    def is_stopping(self) -> bool:
        """Whether somebody asked for the end."""
        return self._signals.stops > 0

    def cannot_start(self) -> Server | None:
        """One that another try would not help, if any: its last lines say why."""
        for server in self._all:
            if server.status is not None and (
                not server.url or server.status in _REFUSED
            ):
                return server
        return None

    def look(self) -> str | None:
        """The model, once all instances take requests; what keeps each from it is
        shown."""
        seen = {server.name: look(server.url) for server in self._instances}
        for name, one in seen.items():
            self._show(name, one.reason)
        if any(one.reason for one in seen.values()):
            return None
        if self._nginx:
            # Apart: one that hangs is not to keep this thread from starting it again.
            threading.Thread(target=self._probe, daemon=True).start()
        return next(one.model for one in seen.values())

    def _show(self, name: str, reason: str) -> None:
        """What keeps ``name`` from taking requests, where that is new."""
        if reason != self._shown.get(name):
            self._shown[name] = reason
            say(f"{name}: {reason or 'ready'}")

    def tend(self) -> None:
        """What has to be done from time to time; takes a moment."""
        for server in self._all:
            server.restart_when_due()
        if self._signals.update:
            self._signals.update = False
            self._to_update = list(self._instances)
            self._replaced = None
            # Certificates are read again, too.
            for server in [*self._files, *self._nginx]:
                server.send(signal.SIGHUP)
        self._update()
        time.sleep(_POLL_SECONDS)

    def _probe(self) -> None:
        """While one of them loads, ask nginx, so that it notices and sends that one no
        requests. Among those that have as many requests it takes turns: each is met.
        While none does, nginx is left alone: it counts a question as work, and would
        give a picture that comes meanwhile to an instance that has one already."""
        while not self.is_stopping:
            if any(look(server.url).reason for server in self._instances):
                for _ in self._instances:
                    look(self._nginx_url)
            time.sleep(_PROBE_SECONDS)

    def _update(self) -> None:
        """One instance after the other takes the new code: where the GPU has no room
        for two, the others go on meanwhile. One that cannot is the last: the others
        are not to fail as it did."""
        if not self._to_update:
            return
        server, now = self._to_update[0], time.monotonic()
        # Before it is asked: what it says is to be the new one's answer.
        workers = server.workers()
        seen = look(server.url)
        if self._replaced is None:
            self._replaced = workers
            self._update_sent, self._failed_before = now, seen.failed_update
            server.send(signal.SIGHUP)
            return
        self._show(server.name, seen.reason)
        if not seen.failed_update or now - self._update_sent > _HEARD_SECONDS:
            self._failed_before = ""
        if not self._replaced & workers and not seen.reason:
            self._replaced = None
            self._to_update.pop(0)
            say(f"{server.name} is updated")
        elif seen.failed_update != self._failed_before:
            self._replaced = None
            left = [other.name for other in self._to_update[1:]]
            self._to_update = []
            say(f"{server.name} goes on with its old worker: {seen.failed_update}")
            if left:
                say(f"the update stops here, before {', '.join(left)}")
            say("mend it, then send HUP again")

    def stop(self) -> None:
        """Finish what was taken, then end: the instances together, nginx and the file
        server after them. A second signal does not wait."""
        try:
            self._end(self._instances, signal.SIGTERM)
            self._end(self._nginx, signal.SIGQUIT, _NGINX_SECONDS)
            self._end(self._files, signal.SIGTERM)
        finally:
            for server in self._all:
                server.kill()

    def _end(
        self, servers: list[Server], number: int, seconds: float = float("inf")
    ) -> None:
        until = time.monotonic() + seconds
        for server in servers:
            server.send(number)
        while any(server.process and server.status is None for server in servers):
            if self._signals.stops > 1 or time.monotonic() > until:
                return
            time.sleep(_POLL_SECONDS)


def _has_terminal() -> bool:
    try:
        os.tcgetpgrp(0)
    except OSError:
        return False
    return True


def say(text: str) -> None:
    """A line for the operator, where there is still a terminal."""
    with contextlib.suppress(OSError):
        print(f"flux-api: {text}", file=sys.stderr, flush=True)
