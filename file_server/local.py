"""Images in a folder of this machine, safe against crashes and other processes."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO

from .errors import FileMissing, StorageFull, StorageUnavailable
from .media import HEAD_BYTES, is_name, is_ours, new_name
from .storage import FULL, SMALL_BYTES, Latest, StoredFile, Usage, measure

logger = logging.getLogger(__name__)

LATEST = "latest.json"
LOCK = ".lock"
_ABSENT = (errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.ENOTDIR, errno.EACCES)


class LocalStorage:
    """Images in ``root``; sizes in bytes, ``clock`` in nanoseconds since 1970.

    A file is written as ``.<name>.part`` under a lock of its own and renamed when
    it is on the disk. ``latest.json`` and the renames are under the folder's lock,
    so that the order of uploads is one order for all threads and processes.
    """

    def __init__(
        self,
        root: Path,
        *,
        max_total: int = 0,
        min_free: int = 0,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.root = root
        self.max_total = max_total
        self.min_free = min_free
        self._clock = clock

    def prepare(self) -> None:
        """Make the folder and remove what interrupted uploads left in it."""
        self.root.mkdir(parents=True, exist_ok=True)
        # What an interrupted upload left costs room, but no upload waits for it.
        try:
            self._sweep()
        except OSError as error:
            logger.warning("cannot tidy the storage folder: %s", error.strerror)

    def save(self, source: BinaryIO, extension: str, recipe: bytes = b"") -> str:
        """Store ``source`` and its ``recipe`` durably, make it the latest and return
        its new name."""
        size = measure(source) + len(recipe)
        name = new_name(extension)
        part = self.root / f".{name}.part"
        with _translated():
            # Before anything is written; the quota once more when no other upload can
            # come between.
            self._require_free(size)
            self._require_quota(size)
            file = _create_locked(part)
            try:
                with file:
                    shutil.copyfileobj(source, file, 1024 * 1024)
                    file.flush()
                    os.fsync(file.fileno())
                    with self._locked():
                        # Closed before the rename: close can report a lost write.
                        file.close()
                        self._require_quota(size)
                        self._publish(part, name, recipe)
            finally:
                part.unlink(missing_ok=True)
        return name

    def open(self, name: str) -> StoredFile:
        """Open a regular file of that name that is no link of any kind."""
        with _translated():
            stream = _open_regular(self.root / name)
            status = os.fstat(stream.fileno())
            head = stream.read(HEAD_BYTES)
            stream.seek(0)
        return StoredFile(name, status.st_size, _when(status.st_mtime_ns), head, stream)

    def recipe(self, name: str) -> bytes:
        """Read a recipe's file, which is no link of any kind."""
        with _translated(), _open_regular(self.root / name) as stream:
            return stream.read()

    def latest(self) -> Latest:
        """Return the newest upload; by the files' times when the mark is lost."""
        with _translated():
            # A lost or damaged mark is no loss: the files have their times.
            with suppress(FileMissing, ValueError, KeyError, TypeError, OverflowError):
                with _open_regular(self.root / LATEST) as stream:
                    mark = json.loads(stream.read(4096))
                name, uploaded = str(mark["name"]), int(mark["uploaded_ns"])
                if is_name(name):
                    _open_regular(self.root / name).close()
                    return Latest(name, _when(uploaded))
            found = [(status.st_mtime_ns, name) for name, status in self._files()]
        if not found:
            raise FileMissing("Nothing has been uploaded yet.")
        modified, name = max(found)
        return Latest(name, _when(modified))

    def remove_expired(self, before: datetime) -> int:
        """Remove files older than ``before`` but never the latest; return how many."""
        limit = before.timestamp() * 1e9
        with _translated():
            # Without the lock: most rounds find nothing to do.
            old = [name for name, status in self._files() if status.st_mtime_ns < limit]
            if not old:
                return 0
            with self._locked():
                keep = self.latest().name
                gone = [name for name in old if name != keep]
                for name in gone:
                    (self.root / name).unlink(missing_ok=True)
                    self._beside(name).unlink(missing_ok=True)
        return len(gone)

    def usage(self) -> Usage:
        """Count what is stored."""
        with _translated():
            files = sum(1 for _ in self._files())
            return Usage(files, self._used(), shutil.disk_usage(self.root).free)

    def check(self) -> None:
        """Ask for room as an upload does, and open a file without a name: proves that
        the folder can be written."""
        with _translated():
            self._require_free(SMALL_BYTES)
            self._require_quota(SMALL_BYTES)
            nameless = getattr(os, "O_TMPFILE", None)
            if nameless is not None:
                try:
                    os.close(os.open(self.root, nameless | os.O_WRONLY, 0o600))
                    return
                except OSError as error:
                    # Some file systems have no nameless files.
                    if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
                        raise
            if not os.access(self.root, os.W_OK | os.X_OK):
                raise StorageUnavailable

    def _beside(self, name: str) -> Path:
        return self.root / f"{name.partition('.')[0]}.json"

    def _publish(self, part: Path, name: str, recipe: bytes) -> None:
        now = self._clock()
        target = self.root / name
        mark = self.root / f".{LATEST}.part"
        beside = self._beside(name)
        beside_part = self.root / f".{beside.name}.part"
        # The kernel's own times tie within one clock tick.
        os.utime(part, ns=(now, now))
        try:
            text = json.dumps({"name": name, "uploaded_ns": now})
            _write_durably(mark, text.encode())
            if recipe:
                _write_durably(beside_part, recipe)
            os.rename(part, target)
            try:
                if recipe:
                    os.rename(beside_part, beside)
                os.rename(mark, self.root / LATEST)
            except OSError:
                # Else a picture would lie there whose name nobody was told.
                target.unlink()
                beside.unlink(missing_ok=True)
                raise
        finally:
            mark.unlink(missing_ok=True)
            beside_part.unlink(missing_ok=True)
        # A rename is on the disk when its folder is.
        folder = os.open(self.root, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # A lock belongs to the open file, so threads exclude each other too.
        fd = os.open(self.root / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _files(
        self, wanted: Callable[[str], bool] = is_name
    ) -> Iterator[tuple[str, os.stat_result]]:
        with os.scandir(self.root) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if wanted(entry.name) and _is_servable(status):
                        yield entry.name, status

    def _used(self) -> int:
        """Bytes of all pictures and recipes."""
        return sum(status.st_size for _, status in self._files(is_ours))

    def _require_free(self, size: int) -> None:
        if self.min_free and shutil.disk_usage(self.root).free - size < self.min_free:
            raise StorageFull

    def _require_quota(self, size: int) -> None:
        if self.max_total and self._used() + size > self.max_total:
            raise StorageFull

    def _sweep(self) -> None:
        parts = [p for p in self.root.glob(".*.part") if p.is_file()]
        if not parts:
            return
        with self._locked():
            for part in parts:
                with suppress(OSError):
                    fd = os.open(part, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
                    try:
                        # Held by whoever is still writing it, in any process.
                        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        part.unlink()
                    finally:
                        os.close(fd)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StorageFull from error
        raise StorageUnavailable from error


def _when(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC)


def _is_servable(status: os.stat_result) -> bool:
    # A second link may be a file from elsewhere that someone linked in.
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


def _open_regular(path: Path) -> BinaryIO:
    try:
        # Non-blocking: opening a FIFO would otherwise wait for its writer.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in _ABSENT:
            raise FileMissing from None
        raise
    if not _is_servable(os.fstat(fd)):
        os.close(fd)
        raise FileMissing
    return os.fdopen(fd, "rb")


def _create_locked(part: Path) -> BinaryIO:
    while True:
        file = open(part, "xb")  # noqa: SIM115  (closed by the caller)
        fcntl.flock(file, fcntl.LOCK_EX)
        # Between the two lines above another process may have swept it away.
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()


def _write_durably(path: Path, data: bytes) -> None:
    """For no other user of the machine: a recipe has the prompt."""
    with open(path, "wb", opener=partial(os.open, mode=0o600)) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
