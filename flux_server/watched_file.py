"""A secret in a file, which is read again when the file changes."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")
Stamp = tuple[int, int, int]

logger = logging.getLogger(__name__)


class WatchedFile(Generic[T]):
    """What ``parse`` makes of the text of ``path``, now.

    The file is looked at whenever ``value`` is asked for, and read only where it is
    another one or has changed. One that is gone or that ``parse`` refuses (ValueError)
    is logged under ``name``, and the last good value stays: nobody is locked out, and
    no door opens, by a slip of an editor. The first reading raises OSError or
    ValueError."""

    def __init__(self, name: str, path: Path, parse: Callable[[str], T]) -> None:
        self._name, self._path, self._parse = name, path, parse
        self._lock = threading.Lock()
        # Before the reading: what is written meanwhile is read at the next look.
        self._stamp = self._look()
        self._value = self._read()

    @property
    def value(self) -> T:
        """The value of the last reading that went well."""
        stamp = self._look()
        with self._lock:
            if stamp != self._stamp:
                self._stamp = stamp
                self._read_again()
            return self._value

    def _read_again(self) -> None:
        try:
            self._value = self._read()
        except (OSError, ValueError) as error:
            # The error of a parser never holds a secret; a path is left out.
            why = getattr(error, "strerror", None) or error
            logger.error("%s: %s; what it said before stays", self._name, why)
        else:
            logger.info("%s has changed and was read again", self._name)

    def _read(self) -> T:
        try:
            return self._parse(self._path.read_text("utf-8"))
        except UnicodeDecodeError:
            raise ValueError("no text in UTF-8") from None

    def _look(self) -> Stamp | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        # A new file under the old name, as editors and orchestrators write it, may
        # have the old one's size and time.
        return found.st_ino, found.st_mtime_ns, found.st_size


def watch(
    variable: str, value: T, path: Path | None, parse: Callable[[str], T]
) -> Callable[[], T]:
    """What counts now: ``value``, or what ``parse`` makes of the file at ``path`` that
    ``variable`` names. ValueError, with the variable, where it makes nothing of it."""
    if path is None:
        return lambda: value
    try:
        watched = WatchedFile(variable, path, parse)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ValueError(f"{variable}: {why}") from None
    return lambda: watched.value
