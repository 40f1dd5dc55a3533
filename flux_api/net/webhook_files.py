"""What a webhook is to say lies in a file until it has been taken, so that a restart
loses none. Whoever holds a file's lock has more to say, or is saying it."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path

# Long enough for a receiver that is down over night.
KEPT_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Webhook:
    """What is told to whom: ``body`` goes to ``url``, signed with ``secret``, unless
    ``until`` (seconds since 1970) has passed."""

    url: str
    secret: str | None
    body: str
    until: float


class Promise:
    """A webhook that is still to come. Its file is there already, and says what to tell
    where this process ends before :meth:`keep` is called."""

    def __init__(
        self, folder: Path, url: str, secret: str | None, last_words: str
    ) -> None:
        self._url, self._secret = url, secret
        self._file = folder / f"{time.time_ns()}-{secrets.token_hex(8)}.json"
        self._lock = self._write(last_words)

    def keep(self, body: str) -> None:
        """Have ``body`` sent."""
        try:
            os.close(self._write(body))
        finally:
            os.close(self._lock)

    def withdraw(self) -> None:
        """There will be nothing to tell."""
        self._file.unlink(missing_ok=True)
        os.close(self._lock)

    def _write(self, body: str) -> int:
        """The file, which is there whole or not at all; the open descriptor, which
        holds its lock."""
        webhook = Webhook(self._url, self._secret, body, time.time() + KEPT_SECONDS)
        fresh = self._file.with_suffix(".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        descriptor = os.open(fresh, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with open(descriptor, "w", encoding="utf-8", closefd=False) as stream:
                json.dump(asdict(webhook), stream)
                stream.flush()
                os.fsync(descriptor)
            # The lock is the open file's, so it goes along to the new name.
            fresh.rename(self._file)
        except BaseException:
            os.close(descriptor)
            fresh.unlink(missing_ok=True)
            raise
        return descriptor


class Locked:
    """The webhook in ``file``, and its lock. ``webhook`` is None where somebody else
    has the lock, or the file is gone; ValueError where no webhook is in it."""

    def __init__(self, file: Path) -> None:
        self.webhook: Webhook | None = None
        self._file, self._stream = file, None
        try:
            self._stream = file.open(encoding="utf-8")
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had the lock may have removed or replaced what was opened here.
            if os.fstat(self._stream.fileno()).st_ino == file.stat().st_ino:
                self.webhook = _read(self._stream.read())
        except (FileNotFoundError, BlockingIOError):
            pass
        except ValueError:
            self.close()
            raise

    def remove(self) -> None:
        """There is nothing more to say."""
        self._file.unlink(missing_ok=True)

    def close(self) -> None:
        """Let others have it."""
        if self._stream is not None:
            self._stream.close()


def _read(text: str) -> Webhook:
    try:
        webhook = Webhook(**json.loads(text))
    except (TypeError, RecursionError):
        raise ValueError("no webhook") from None
    texts = webhook.url, webhook.body, webhook.secret or ""
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("no webhook")
    if not isinstance(webhook.until, (int, float)):
        raise ValueError("no webhook")
    return webhook
