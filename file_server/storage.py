"""What a storage promises, in the words that every kind of storage shares."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO, Protocol

from .media import media_type, sniff

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The operating system's words for: no room."""
SMALL_BYTES = 65_536
"""A small picture: where there is no room for it, there is none for pictures."""


@dataclass(frozen=True)
class StoredFile:
    """An open file: its size in bytes, its first bytes and a seekable stream.

    Whoever gets one closes ``stream``.
    """

    name: str
    size: int
    uploaded_at: datetime
    head: bytes
    stream: BinaryIO

    @property
    def media_type(self) -> str | None:
        """The media type by its bytes, or None for what is no image."""
        extension = sniff(self.head)
        return media_type(extension) if extension else None


@dataclass(frozen=True)
class Latest:
    """The newest upload: its name, and its time (an aware datetime)."""

    name: str
    uploaded_at: datetime


@dataclass(frozen=True)
class Usage:
    """How many files are stored, their bytes, and the bytes that are left, None where
    nobody knows."""

    files: int
    bytes: int
    free: int | None


class Storage(Protocol):
    """A place for images. All names given to it have passed ``media.is_name``, or come
    from ``media.recipe_name``.

    Every method raises ``StorageUnavailable`` when the place cannot be used.
    """

    def save(self, source: BinaryIO, extension: str, recipe: bytes = b"") -> str:
        """Store all of ``source`` durably, make it the latest, return its new name. A
        ``recipe`` lies beside it and goes with it.

        Either the whole file is there afterwards or nothing; ``StorageFull`` when
        there is no room.
        """

    def open(self, name: str) -> StoredFile:
        """Open a stored file; ``FileMissing`` when there is none of that name."""

    def recipe(self, name: str) -> bytes:
        """The recipe file of that name; ``FileMissing`` when there is none."""

    def latest(self) -> Latest:
        """Return the newest upload, reading only; ``FileMissing`` when none is left."""

    def remove_expired(self, before: datetime) -> int:
        """Remove files older than ``before`` but never the latest; return how many."""

    def usage(self) -> Usage:
        """Count what is stored."""

    def check(self) -> None:
        """Return when files could be stored now; leaves nothing behind. ``StorageFull``
        when there is no room for one of ``SMALL_BYTES``."""


def measure(source: BinaryIO) -> int:
    """Return the length of a seekable stream in bytes and rewind it."""
    size = source.seek(0, os.SEEK_END)
    source.seek(0)
    return size
