"""Where finished pictures go: names for them, before any is made."""

from __future__ import annotations

import os
import re
import sys
import uuid
from pathlib import Path

from flux_api.commands.transport import REFUSED, Failure

FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
STDOUT = Path("-")
_LONGEST_STEM = 40


class PictureFiles:
    """Names for the pictures of several requests. ``out`` is a file, whose name gets
    numbers where there are several pictures, a folder, or ``-`` for standard output;
    without it names are made up in the current folder, and no file is written over."""

    def __init__(self, out: str | None, pictures: int) -> None:
        self._out, self._pictures = out, pictures
        self._taken: set[Path] = set()
        self._number = 0
        if out == "-" and pictures > 1:
            raise Failure("standard output ('-o -') takes one picture", REFUSED)
        self._folder = _folder(out)

    def names(self, stem: str, count: int, file_format: str) -> list[Path]:
        """Files for the ``count`` pictures of one request, which ``stem`` describes."""
        file_format = format_of(self._out, file_format)
        if self._out == "-":
            return [STDOUT]
        if self._out and not _is_folder(self._out):
            return [self._numbered(Path(self._out)) for _ in range(count)]
        suffix = ".jpg" if file_format == "jpeg" else f".{file_format}"
        return [self._free(slug(stem), suffix) for _ in range(count)]

    def _numbered(self, path: Path) -> Path:
        self._number += 1
        if self._pictures == 1:
            return path
        return path.with_name(f"{path.stem}-{self._number}{path.suffix}")

    def _free(self, stem: str, suffix: str) -> Path:
        path, number = self._folder / f"{stem}{suffix}", 1
        while path in self._taken or path.exists():
            number += 1
            path = self._folder / f"{stem}-{number}{suffix}"
        self._taken.add(path)
        return path


def slug(text: str) -> str:
    """``text`` as the stem of a file's name, in whatever script."""
    words = re.sub(r"\W+", "-", text.lower()).strip("-")
    return words[:_LONGEST_STEM].rstrip("-") or "picture"


def write(path: Path, data: bytes) -> None:
    """``data`` as the file ``path``, whole or not at all; Failure says why not."""
    if path == STDOUT:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    # Opened as any file is: one of tempfile's would be its owner's alone, and the umask
    # can only be asked for by setting it, for all threads.
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("xb") as file:
                file.write(data)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror}") from None


def format_of(out: str | None, chosen: str | None) -> str:
    """The format that the name of a file says, or ``chosen``; Failure where they say
    different things."""
    if out is None or out == "-" or _is_folder(out):
        return chosen or "png"
    named = FORMATS.get(Path(out).suffix.lower())
    if named is None:
        listed = ", ".join(FORMATS)
        raise Failure(f"{out}: a picture's name ends in one of {listed}", REFUSED)
    if chosen not in (None, named):
        raise Failure(f"{out}: the format of the pictures is {chosen}", REFUSED)
    return named


def _folder(out: str | None) -> Path:
    """Where the files will lie; Failure where none can be written, before a picture is
    made for nothing."""
    if out is None or out == "-":
        folder = Path()
    else:
        folder = Path(out) if _is_folder(out) else Path(out).parent
    # One that is asked for as a folder is made with its first picture.
    place = existing_parent(folder) if out and out.endswith("/") else folder
    if out != "-" and not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
        raise Failure(f"there is no folder {place} to write to", REFUSED)
    return folder


def existing_parent(path: Path) -> Path:
    """``path`` or the nearest above it that exists."""
    return next(p for p in (path, *path.absolute().parents) if p.exists())


def _is_folder(out: str) -> bool:
    return out.endswith("/") or Path(out).is_dir()
