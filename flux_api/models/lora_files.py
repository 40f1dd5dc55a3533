"""LoRA files by registered name: never a path or URL from a request."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open

from flux_api.errors import InvalidRequest

SUFFIX = ".safetensors"
MAX_BYTES = 4 * 2**30

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


class LoraFolder:
    """The ``.safetensors`` files of FLUX_LORA_DIR (None: no such folder), looked up
    anew each time, so that files can be added while the server runs."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = None if folder is None else folder.resolve()

    @property
    def names(self) -> frozenset[str]:
        """The names that a request may use."""
        return frozenset(name for name, _ in self._files())

    def find(self, name: str) -> Path | None:
        """The file registered as ``name``."""
        return next((path for known, path in self._files() if known == name), None)

    def _files(self) -> Iterator[tuple[str, Path]]:
        if self._folder is None or not self._folder.is_dir():
            return
        for entry in sorted(self._folder.glob(f"*{SUFFIX}")):
            name = entry.name.removesuffix(SUFFIX)
            path = entry.resolve()
            # A link may not lead out of the folder, nor to another kind of file.
            inside = path.is_relative_to(self._folder) and path.suffix == SUFFIX
            if inside and path.is_file() and _NAME.fullmatch(name):
                yield name, path


def check_lora(path: Path, name: str) -> None:
    """InvalidRequest unless ``path`` is a readable safetensors file with LoRA weights;
    nothing in it is ever executed."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise refusal(name, f"is larger than {MAX_BYTES // 2**30} GiB")
        with safe_open(path, framework="numpy") as file:
            keys = list(file.keys())
    except OSError:
        raise refusal(name, "cannot be read") from None
    except SafetensorError:
        raise refusal(name, "is no valid safetensors file") from None
    if not any("lora" in key.lower() for key in keys):
        raise refusal(name, "holds no LoRA weights")


def refusal(name: str, why: str) -> InvalidRequest:
    """The error for a LoRA file that cannot be used."""
    return InvalidRequest(f"The LoRA {name!r} {why}.", param="loras")
