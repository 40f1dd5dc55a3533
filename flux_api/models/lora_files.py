"""LoRA files by registered name: never a path or URL from a request."""

from __future__ import annotations

import contextlib
import heapq
import json
import logging
import os
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from flux_api.errors import InvalidRequest
from flux_api.models.first_bytes import describe_other

logger = logging.getLogger(__name__)

SUFFIX = ".safetensors"
MAX_BYTES = 4 * 2**30
# The list of a file's tensors: that of a LoRA with all layers and much metadata is 2.
MAX_HEADER = 16 * 2**20

# What other tools write LoRAs as, and what is never opened: pickles above all.
_OTHER_SUFFIXES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".gguf", ".sft")
_DOWN = (
    *("lora_A.weight", "lora_down.weight", "lora.down.weight", ".down.weight"),
    *("lora_A.default.weight", "hada_w1_b", "lokr_w2_b"),
)
# For people to choose from: trainers write down every tag of their pictures.
_MOST_WORDS, _LONGEST_WORDS = 5, 1000
_LONGEST_TAGS = 2**20


@dataclass(frozen=True, slots=True)
class LoraFacts:
    """What a LoRA's file says of itself, as far as it does."""

    family: str | None
    rank: int | None
    trigger_words: tuple[str, ...]


class LoraFolder:
    """The ``.safetensors`` files below FLUX_LORA_DIR (None: no such folder), looked up
    anew each time, so that files can be added while the server runs. A file's name is
    its path below the folder without the ending, in Unicode's composed form:
    ``styles/ink``."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._told: set[tuple[Path, str]] = set()

    @property
    def names(self) -> frozenset[str]:
        """The names that a request may use."""
        return frozenset(self.files)

    def find(self, name: str) -> Path | None:
        """The file registered as ``name``."""
        return self.look_up(name) or self.files.get(name)

    def look_up(self, name: str) -> Path | None:
        """The same without listing the folder, however much is in it: None where the
        file is not there under that very name, or behind a link to a folder."""
        if self._folder is None or not name.isprintable() or name != normal_name(name):
            return None
        if any(not part or part.startswith(".") for part in name.split("/")):
            return None
        path = self._folder / f"{name}{SUFFIX}"
        below = path.parent.relative_to(self._folder)
        with contextlib.suppress(OSError):
            # A linked folder is known by one of its names alone.
            is_linked = path.parent.resolve() != self._folder.resolve() / below
            if path.is_file() and not is_linked:
                return path
        return None

    @property
    def files(self) -> dict[str, Path]:
        """All files by name; of two with one name the first counts."""
        found: dict[str, Path] = {}
        for path, name in self._walk():
            if path.suffix.lower() != SUFFIX:
                if path.suffix.lower() in _OTHER_SUFFIXES:
                    self._skip(path, "it is not a .safetensors file")
            elif not path.is_file():
                self._skip(path, "it is not a file, or a link to nothing")
            elif not name.isprintable():
                self._skip(path, "its name has characters that cannot be written")
            elif path.name.startswith("."):
                self._skip(path, "it is hidden")
            elif name in found:
                self._skip(path, f"{found[name].name} has the same name")
            else:
                found[name] = path
        return found

    def _walk(self) -> Iterator[tuple[Path, str]]:
        """Each file and its name, links followed, loops once."""
        if self._folder is None:
            return
        seen: set[Path] = set()
        for root, folders, names in os.walk(self._folder, followlinks=True):
            real = Path(root).resolve()
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            shown = (name for name in folders if not name.startswith("."))
            folders[:] = sorted(shown, key=_usual_first)
            below = Path(root).relative_to(self._folder)
            for name in sorted(names, key=_usual_first):
                path = Path(root, name)
                # A Mac writes "が" in two characters, and keyboards send one.
                yield path, normal_name((below / path.stem).as_posix())

    def _skip(self, path: Path, why: str) -> None:
        """Log, once, that the file at ``path`` is left out, and why."""
        if (path, why) not in self._told:
            self._told.add((path, why))
            logger.warning("LoRA file %r is skipped: %s", path.name, why)


def _usual_first(name: str) -> tuple[bool, bool, str]:
    """Of two names for one LoRA that one counts which :meth:`LoraFolder.look_up`
    finds."""
    return name != normal_name(name), not name.endswith(SUFFIX), name


def normal_name(name: str) -> str:
    """``name`` in the form that LoRAs are known by."""
    return unicodedata.normalize("NFC", name)


def describe_lora(path: Path) -> LoraFacts:
    """What the header of the file says: nothing where it is not readable."""
    try:
        stamp = path.stat()
    except OSError:
        return LoraFacts(None, None, ())
    return _describe(path, stamp.st_mtime_ns, stamp.st_size)


@lru_cache(maxsize=4096)
def _describe(path: Path, changed: int, size: int) -> LoraFacts:
    """That of the file as it was ``changed`` last: anybody may ask for the list."""
    try:
        if header_bytes(path) > MAX_HEADER:
            return LoraFacts(None, None, ())
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            downs = (key for key in file.keys() if key.endswith(_DOWN))  # noqa: SIM118
            shapes = (file.get_slice(key).get_shape() for key in downs)
            rank = next((shape[0] for shape in shapes if shape), None)
    except (OSError, SafetensorError):
        return LoraFacts(None, None, ())
    family = metadata.get("modelspec.architecture") or metadata.get(
        "ss_base_model_version"
    )
    words = tuple(_trigger_words(metadata))
    return LoraFacts(family and family[:_LONGEST_WORDS], rank, words)


def _trigger_words(metadata: Mapping[str, str]) -> list[str]:
    """As their makers wrote them, else the most frequent tags of the training."""
    if phrase := metadata.get("modelspec.trigger_phrase"):
        words = phrase[:_LONGEST_WORDS].split(",")
        return [word.strip() for word in words if word.strip()]
    counts: dict[str, int] = {}
    written = metadata.get("ss_tag_frequency", "{}")
    if len(written) > _LONGEST_TAGS:
        return []
    try:
        folders: dict[str, Any] = json.loads(written)
        for tags in folders.values():
            for tag, count in tags.items():
                counts[tag.strip()] = counts.get(tag.strip(), 0) + int(count)
    # Anybody's file: counts without end, lists in lists.
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return []
    most = heapq.nlargest(_MOST_WORDS, counts, key=counts.__getitem__)
    return [tag[:_LONGEST_WORDS] for tag in most]


def check_lora(path: Path, name: str) -> None:
    """InvalidRequest unless ``path`` is a readable safetensors file with LoRA weights;
    nothing in it is ever executed."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise refusal(name, f"is larger than {MAX_BYTES // 2**30} GiB")
        if other := describe_other(path):
            raise refusal(name, f"is not a safetensors file but {other}")
        if header_bytes(path) > MAX_HEADER:
            raise refusal(name, f"has a header above {MAX_HEADER // 2**20} MiB")
        with safe_open(path, framework="numpy") as file:
            empty = not any(True for _ in file.keys())  # noqa: SIM118
    except OSError:
        raise refusal(name, "cannot be read") from None
    except SafetensorError:
        raise refusal(name, "is not a valid safetensors file") from None
    if empty:
        raise refusal(name, "holds no LoRA weights")


def header_bytes(path: Path) -> int:
    """How long the safetensors file says that its list of tensors is."""
    with path.open("rb") as file:
        return int.from_bytes(file.read(8), "little")


def refusal(name: str, why: str) -> InvalidRequest:
    """The error for a LoRA file that cannot be used."""
    return InvalidRequest(f"The LoRA {name!r} {why}.", param="loras")
