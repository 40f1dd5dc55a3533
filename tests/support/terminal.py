"""A program in a pseudo-terminal, as a person runs it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

COLUMNS, LINES = 80, 40


class Terminal:
    """A running program; ``text`` is all that it has written so far."""

    def __init__(self, process, master):
        self.process, self._master, self._data = process, master, b""

    @property
    def text(self):
        """What came, escapes and all."""
        return self._data.decode("utf-8", "replace")

    def read_until(self, pattern, seconds=90):
        """Wait for what matches ``pattern``; the match."""
        until = time.monotonic() + seconds
        while not (found := re.search(pattern, self.text, re.S)):
            if not self._read(until - time.monotonic()):
                raise AssertionError(f"no {pattern!r} in:\n{self.text}")
        return found

    def type(self, keys):
        """Press ``keys``; ``\\x03`` is Ctrl-C."""
        os.write(self._master, keys.encode())

    def hang_up(self):
        """Close the terminal, as its window is closed."""
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, self._master)
        os.close(nothing)

    def wait(self, seconds=90):
        """The exit code, once everything was read."""
        until = time.monotonic() + seconds
        while self._read(until - time.monotonic()):
            pass
        return self.process.wait(max(1, until - time.monotonic()))

    def _read(self, seconds):
        """Whether something came; False at the end, or when time is over."""
        if seconds <= 0 or not select.select([self._master], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._master, 65_536)
        except OSError:  # Linux's end of file on a terminal
            return False
        self._data += data
        return bool(data)


@contextlib.contextmanager
def in_terminal(command, *, env, cwd, stdout=None):
    """``command`` with a terminal for everything, or all but ``stdout``."""
    master, slave = pty.openpty()
    size = struct.pack("HHHH", LINES, COLUMNS, 0, 0)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, size)

    def take_terminal():
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        command,
        stdin=slave,
        stdout=slave if stdout is None else stdout,
        stderr=slave,
        env=env,
        cwd=cwd,
        preexec_fn=take_terminal,
    )
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(master)
