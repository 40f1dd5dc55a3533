"""Where weights lie: a folder, a Hub repository, or a file in one of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

HUB = "https://huggingface.co"
INDEXES = ("model_index.json", "modular_model_index.json")
"""What tells of a checkpoint's components in diffusers' two layouts."""

# Formats that are never opened too: their names are still those of files, not of ids.
_WEIGHTS = (".safetensors", ".sft", ".gguf", ".ckpt", ".pt", ".pth", ".bin")
_PART = r"[A-Za-z0-9][\w.-]{0,95}"
_REPOSITORY = re.compile(rf"({_PART}/{_PART})(?:@([\w./-]{{1,128}}))?")
_FILE = re.compile(rf"({_PART}/{_PART})(?:@([\w.-]{{1,128}}))?/([\w./ -]+\.[a-z]+)")
_PAGE = re.compile(
    r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([^/?#]+/[^/?#]+)"
    r"(?:/(?:tree|blob|resolve)/([^/?#]+)(?:/([^?#]+))?)?/?(?:[?#].*)?"
)


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of this machine; as text, its last part, which callers may see."""

    path: Path

    def __str__(self) -> str:
        return self.path.name


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository on the Hub at ``revision``: a branch, a tag or a commit."""

    id: str
    revision: str = "main"

    def __str__(self) -> str:
        return self.id

    @property
    def page(self) -> str:
        """Where its licence is accepted."""
        return f"{HUB}/{self.id}"


@dataclass(frozen=True, slots=True)
class File:
    """A file ``name`` (perhaps with folders in front) in a folder or repository."""

    source: Source
    name: str

    def __str__(self) -> str:
        return f"{self.source}/{self.name}"


Source = Folder | Repository


def is_repository_id(text: str) -> bool:
    """Whether ``text`` could be the id of a Hub repository."""
    return _REPOSITORY.fullmatch(text) is not None


def _parse_path(text: str, beside: Path) -> Folder | File | None:
    """None where ``text`` is no path."""
    path = beside / Path(text).expanduser()
    if path.is_dir():
        return Folder(path)
    if path.is_file():
        return File(Folder(path.parent), path.name)
    if text.startswith(("/", "./", "../", "~")) or _is_file_name(text, path):
        raise ValueError(f"there is no {str(path)!r}")
    return None


def _is_file_name(text: str, path: Path) -> bool:
    """Whether ``text`` means a file of this machine: one on the Hub has ``owner/name/``
    in front, and no such folder is here."""
    if path.suffix.lower() not in _WEIGHTS:
        return False
    # "owner/name/file.gguf" is on the Hub, unless there is such a folder here.
    return text.count("/") < 2 or path.parent.is_dir()


def parse_source(text: str, beside: Path) -> Source | File:
    """What an operator wrote. What begins with ``/``, ``./``, ``../`` or ``~`` is a
    path, else what exists in the folder ``beside`` is one, else ``owner/name``, with
    ``@revision`` or not, is a Hub id and ``owner/name/file.ext`` a file in it; the name
    of another file of weights is a path to nothing. The Hub's web addresses are taken
    as the ids in them. ValueError says what is wrong."""
    text = text.strip()
    if page := _PAGE.fullmatch(text):
        repository = Repository(page[1], page[2] or "main")
        return File(repository, page[3]) if page[3] else repository
    try:
        if path := _parse_path(text, beside):
            return path
    # Names that are too long; a "~" whose home is not known.
    except (OSError, RuntimeError) as error:
        raise ValueError(f"expected a folder, or a Hub id ({error})") from None
    if found := _REPOSITORY.fullmatch(text):
        return Repository(found[1], found[2] or "main")
    if found := _FILE.fullmatch(text):
        return File(Repository(found[1], found[2] or "main"), found[3])
    raise ValueError("expected a folder, or a Hub id like 'owner/name'")
