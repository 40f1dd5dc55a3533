"""SHA-256 of model files, each reckoned once for as long as the file stays as it is."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path


def digest_of(path: Path) -> str | None:
    """The hexadecimal SHA-256 of the file; None where it cannot be read."""
    try:
        found = path.stat()
        return _digest(path, found.st_mtime_ns, found.st_size)
    except OSError:
        return None


# By time and size as well, so that another file under the name is reckoned anew.
@lru_cache(maxsize=256)
def _digest(path: Path, _modified: int, _size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
