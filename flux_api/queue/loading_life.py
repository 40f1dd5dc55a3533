"""Signs of life of a thread that loads weights: bytes that it reads, words it says."""

from __future__ import annotations

import threading
import time
from pathlib import Path

_PROCESS = Path("/proc/self")


class LoadingLife:
    """Of the thread that makes it. A file that is read slowly is alive; a loader that
    turns in circles, or waits for what never comes, is not."""

    def __init__(self) -> None:
        self._thread = threading.get_native_id()
        self._moved: tuple[int, ...] = ()
        self._beat = time.monotonic()

    def show(self) -> None:
        """A component is done, or bytes were downloaded."""
        self._beat = time.monotonic()

    def last_sign(self) -> float:
        """When it last showed life, in monotonic seconds; asked again and again."""
        moved = _bytes_moved(self._thread)
        if moved != self._moved or not moved:
            self._moved = moved
            self.show()
        return self._beat


def _bytes_moved(thread: int) -> tuple[int, ...]:
    """Counters that grow with each byte from a disk or into the thread's memory; none
    where the system has none."""
    own = _PROCESS / "task" / str(thread)
    try:
        # Mapped files count as page faults alone once they are cached.
        faults = (own / "stat").read_text().rpartition(")")[2].split()
        # Threads of a library's pool read, too, while this one waits.
        from_disk = _counters(_PROCESS / "io")["read_bytes"]
        read = _counters(own / "io")["rchar"]
        return int(faults[7]), int(faults[9]), from_disk, read
    except (OSError, KeyError, ValueError, IndexError):
        return ()


def _counters(file: Path) -> dict[str, int]:
    lines = (line.split(": ") for line in file.read_text().splitlines())
    return {name: int(count) for name, count in lines}
