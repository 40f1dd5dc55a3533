"""Programs in processes of their own, asked over pipes: one that crashes, hangs or
grows is ended, and the server and its weights are not there."""

from __future__ import annotations

import contextlib
import fcntl
import queue
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

from flux_api.errors import Unavailable

# What an exploited child could see of others' pictures ends here.
_RECYCLE_AFTER = 100
_PIPE_BYTES = 1 << 20


class Child:
    """One process of the Python file ``program``, which is told ``folders`` to import
    from. EOFError or OSError when it does not answer."""

    def __init__(self, program: Path, folders: tuple[Path, ...]) -> None:
        # Arenas and threads that are not used count against its bound of memory.
        environ = {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
        self._process = subprocess.Popen(
            # Isolated: no variable and no folder has a say in what it imports.
            [sys.executable, "-I", program, *folders],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environ,
            cwd="/",
            # Ctrl-C in a terminal is for the server to answer.
            process_group=0,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._input: IO[bytes] = self._process.stdin
        self._output: IO[bytes] = self._process.stdout
        for pipe in (self._input, self._output):
            with contextlib.suppress(OSError):
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self.answered = 0

    @property
    def alive(self) -> bool:
        """Whether the process is still there."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._output.close()
        with contextlib.suppress(OSError):
            self._input.close()  # With what was not written yet.

    @contextlib.contextmanager
    def in_time(self, seconds: float) -> Iterator[None]:
        """What is read and written inside has so long, or the process ends."""
        timer = threading.Timer(seconds, self._process.kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def write(self, *parts: bytes) -> None:
        """Send it all."""
        for part in parts:
            self._input.write(part)
        self._input.flush()

    def read(self, length: int) -> bytes:
        """The next ``length`` bytes of what it answers."""
        data = self._output.read(length)
        if len(data) < length:
            raise EOFError
        return data


C = TypeVar("C", bound=Child)


class Pool(Generic[C]):
    """At most ``count`` children, each made by ``make`` at its first use, in the
    process that uses it, and replaced when it dies or has answered often. Unavailable
    where one cannot be started, which says ``what`` for."""

    def __init__(self, make: Callable[[], C], count: int, what: str) -> None:
        self._make, self._what = make, what
        # The last one back goes first: one that nobody needs is never started.
        self._idle: queue.LifoQueue[C | None] = queue.LifoQueue()
        for _ in range(count):
            self._idle.put(None)
        weakref.finalize(self, _end, self._idle)

    @contextlib.contextmanager
    def lend(self) -> Iterator[C]:
        """A child that nobody else has meanwhile; after an error inside it is ended."""
        child = self._idle.get()
        try:
            if child is not None and not child.alive:
                child.kill()
                child = None
            child = child or self._start()
            yield child
        except BaseException:
            if child is not None:
                child.kill()
            child = None
            raise
        finally:
            if child is not None and child.answered >= _RECYCLE_AFTER:
                child.kill()
                child = None
            self._idle.put(child)

    def _start(self) -> C:
        try:
            return self._make()
        except (EOFError, OSError) as error:
            message = f"The server is short of what it needs to {self._what}."
            raise Unavailable(message, retry_after=5) from error


def _end(idle: queue.LifoQueue[Any]) -> None:
    """At the exit, or when nobody has the pool any more."""
    while not idle.empty():
        if (child := idle.get()) is not None:
            child.kill()
