"""LoRA files that were read, for as long as they are on or there is room."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from flux_api.loading.lora_module import LayerChange
from flux_api.metrics.instruments import note_lookup

Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class ReadLora:
    """What the file at ``path`` changes; its ``stamp`` is another once it is written
    over."""

    path: Path
    stamp: Stamp
    changes: list[LayerChange]

    @property
    def is_current(self) -> bool:
        """Whether the file is still the one that was read."""
        try:
            return stamp_of(self.path) == self.stamp
        except OSError:
            return False

    @property
    def size(self) -> int:
        """How many bytes it takes in the host's memory."""
        return sum(one.change.nbytes for one in self.changes)


class LoraCache:
    """What was read, by name: what is on, and of the rest the ``most_bytes`` used last.
    Not thread-safe: the device's lock guards it."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._read: OrderedDict[str, ReadLora] = OrderedDict()

    def get(self, name: str, read: Callable[[], ReadLora]) -> ReadLora:
        """The LoRA ``name``; ``read`` reads it, where it has to be, or anew."""
        found = self._read.get(name)
        if found is not None and not found.is_current:
            found = None
        note_lookup("loras", found=found is not None)
        if found is None:
            # First, so that both need not be in memory.
            self._read.pop(name, None)
            found = self._read[name] = read()
        self._read.move_to_end(name)
        return found

    def trim(self, on: Collection[str]) -> None:
        """Forget what is too much, beside what is ``on``."""
        room = self._most_bytes
        for name in reversed(list(self._read)):
            if name not in on:
                room -= self._read[name].size
                if room < 0:
                    # With it goes all that was used before.
                    del self._read[name]

    def clear(self) -> None:
        """Forget all."""
        self._read.clear()


def stamp_of(path: Path) -> Stamp:
    """Something else whenever the file is another."""
    found = os.stat(path)
    return found.st_mtime_ns, found.st_size, found.st_ino
