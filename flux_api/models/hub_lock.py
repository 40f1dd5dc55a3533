"""Which commit of each Hub repository this machine uses: ``hub.lock.json``.

It lies in the Hub's cache. A branch moves on; what was downloaded once is loaded again
until ``fetch --update`` asks for what is new.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from huggingface_hub import constants

from flux_api.models.sources import Repository, Source

logger = logging.getLogger(__name__)

FILE = "hub.lock.json"


def locked_commit(source: Repository) -> str | None:
    """The commit that ``source`` was at when it was downloaded; None before that."""
    return _read().get(_key(source))


def at_commit(source: Source) -> str:
    """``source`` as text, with its commit where one was downloaded."""
    commit = locked_commit(source) if isinstance(source, Repository) else None
    return f"{source} at {commit[:12]}" if commit else str(source)


def lock_commit(source: Repository, commit: str) -> None:
    """Load ``commit`` of ``source`` from now on."""
    if locked_commit(source) == commit:
        return
    _write(_read() | {_key(source): commit})


def unlock_commit(source: Repository) -> None:
    """Take what its revision is at the next download."""
    commits = _read()
    if commits.pop(_key(source), None) is not None:
        _write(commits)


def _write(commits: dict[str, str]) -> None:
    file = _file()
    # One a process: several may download at once.
    partial = file.with_suffix(f".{os.getpid()}.part")
    try:
        partial.write_text(json.dumps(commits, indent=1, sort_keys=True) + "\n")
        partial.replace(file)
    except OSError as error:
        # A cache that is only read has what it has.
        logger.warning("cannot write %s: %s", FILE, error.strerror)


def _key(source: Repository) -> str:
    return f"{source.id}@{source.revision}"


def _file() -> Path:
    return Path(constants.HF_HUB_CACHE) / FILE


def _read() -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads(_file().read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found
