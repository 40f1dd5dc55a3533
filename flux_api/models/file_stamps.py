"""Whether the files of a model have changed since they were looked at."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from flux_api.models.hub import present_file, present_folder
from flux_api.models.sources import File, Source

Stamp = tuple[str, int, int]


def look_at_files(
    sources: Iterable[Source | File], file: Path | None
) -> frozenset[Stamp]:
    """Something else whenever a file of ``sources``, as far as they are on this
    machine, or ``file`` is another, has come or has gone."""
    stamps = {stamp for path in ([file] if file else []) for stamp in _stamp(str(path))}
    for source in sources:
        if isinstance(source, File):
            # It alone: the folder that it lies in may be anything.
            stamps.update(_stamp(str(present_file(source) or "")))
        elif (folder := present_folder(source)) is not None:
            for root, _, names in os.walk(folder):
                for name in names:
                    stamps.update(_stamp(os.path.join(root, name)))
    return frozenset(stamps)


def _stamp(path: str) -> Iterator[Stamp]:
    try:
        found = os.stat(path)
    except OSError:
        return
    yield path, found.st_mtime_ns, found.st_size
