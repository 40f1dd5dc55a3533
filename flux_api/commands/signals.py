"""Ctrl-C, TERM and HUP, without an exception: one that comes while a library cleans up
is lost."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType


def end_at_ctrl_c() -> None:
    """Let Ctrl-C end this process, until a command has :class:`Signals` of its own."""
    signal.signal(signal.SIGINT, _end)


def _end(number: int, _frame: FrameType | None) -> None:
    _clear_line()
    os.write(2, b"flux-api: stopped\n")
    os._exit(128 + number)


def _clear_line() -> None:
    if os.isatty(2):
        os.write(2, b"\r\x1b[K")


class Signals:
    """The first signal calls ``cancel`` in a thread of its own, and what becomes of it
    is waited for; another ends the process, as does any while there is none."""

    def __init__(self) -> None:
        self.cancel: Callable[[], None] | None = None
        self._first = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._hear)

    @property
    def exit_code(self) -> int:
        """What the shell knows the signal by; 0 without one."""
        return 128 + self._first if self._first else 0

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        if self.cancel is None or self._first:
            _clear_line()
            os._exit(128 + number)
        self._first = number
        threading.Thread(target=self.cancel, daemon=True).start()
