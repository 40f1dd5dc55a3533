"""What a file of weights says of its tensors: safetensors and GGUF, headers alone.

Both are read with bounds at every step: files come from anywhere. A GGUF's is read by
hand, as the library's reader believes any length that is written in one.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError, safe_open

from flux_api.models.first_bytes import describe_other

# The last is what Black Forest Labs called safetensors at first.
SUFFIXES = (".safetensors", ".gguf", ".sft")
# Formats that people ask for and that are never opened.
_REFUSED = {
    **dict.fromkeys((".ckpt", ".pt", ".pth", ".bin", ".pkl"), "a pickle"),
    ".dduf": "DDUF",
}
_MOST_HEADER = 64 * 2**20
_MOST_TENSORS = 100_000
# Texts in a list: the words of text encoders, of which the largest knows 262,144.
_MOST_LISTED = 2**20
_WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2}
# Number in the file -> name, numbers a block, bytes a block: ggml's table.
GGML_TYPES = {
    **{0: ("F32", 1, 4), 1: ("F16", 1, 2), 30: ("BF16", 1, 2), 28: ("F64", 1, 8)},
    **{2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22)},
    **{7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40)},
    **{10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144)},
    **{13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292)},
    **{16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98)},
    **{19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110)},
    **{22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136), 29: ("IQ1_M", 256, 56)},
    **{24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8)},
    **{34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17)},
}
# What diffusers unpacks.
GGUF_KINDS = (
    *("Q2_K", "Q3_K", "Q4_0", "Q4_1", "Q4_K", "Q5_0", "Q5_1", "Q5_K", "Q6_K", "Q8_0"),
    *("IQ4_NL", "IQ4_XS"),
)
# Kind of a metadata value -> its struct; 8 is a text, 9 a list.
_SCALARS = dict(
    zip(
        (0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12),
        ("B", "b", "H", "h", "I", "i", "f", "?", "Q", "q", "d"),
        strict=True,
    )
)
_TEXT, _LIST = 8, 9


class BadFile(ValueError):
    """A file that cannot be used; the message completes "the file 'x' ..."."""


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """One tensor: its number format, its shape as torch has it, its bytes, and for
    GGUF where they begin in the file."""

    dtype: str
    shape: tuple[int, ...]
    size: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Header:
    """All tensors of a file by name, and what else is written in it."""

    path: Path
    tensors: Mapping[str, TensorFacts]
    metadata: Mapping[str, str]

    @property
    def is_gguf(self) -> bool:
        """Whether the file is a GGUF."""
        return self.path.suffix.lower() == ".gguf"


def read_header(path: Path) -> Header:
    """The header of ``path``; BadFile says why there is none."""
    suffix = path.suffix.lower()
    if suffix in _REFUSED:
        raise BadFile(f"is {_REFUSED[suffix]}, which is never opened; convert it")
    if suffix not in SUFFIXES:
        raise BadFile(f"is not a {' or '.join(SUFFIXES)} file")
    if path.exists() and not path.is_file():
        # A pipe would be waited for.
        raise BadFile("is a folder or a device, not a file")
    if other := describe_other(path):
        raise BadFile(f"is not a {suffix} file but {other}")
    try:
        if suffix == ".gguf":
            with path.open("rb") as file:
                return _read_gguf(path, file)
        return _read_safetensors(path)
    except (SafetensorError, UnicodeDecodeError, struct.error, RecursionError) as error:
        raise BadFile(f"is damaged ({type(error).__name__})") from None
    except OSError as error:
        raise BadFile(f"cannot be read ({error.strerror})") from None


def _read_safetensors(path: Path) -> Header:
    # Looked at first: the library would take that much memory.
    with path.open("rb") as file:
        if int.from_bytes(file.read(8), "little") > _MOST_HEADER:
            raise BadFile("is damaged: its header is too long")
    tensors = {}
    with safe_open(path, framework="numpy") as opened:
        metadata = opened.metadata() or {}
        for name in opened.keys():  # noqa: SIM118, it is no mapping
            part = opened.get_slice(name)
            dtype, shape = part.get_dtype(), tuple(part.get_shape())
            tensors[name] = TensorFacts(
                dtype, shape, math.prod(shape) * _WIDTHS.get(dtype, 1)
            )
    return Header(path, tensors, metadata)


class _Cursor:
    """Reads ahead in ``file``, never past its end."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._left = file, size

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        # A length in a file is only what somebody wrote into it.
        if count > min(self._left, _MOST_HEADER):
            raise BadFile("is damaged: what it says of itself does not end")
        self._left -= count
        return self._file.read(count)

    def number(self, kind: str) -> Any:
        """The next number of struct's ``kind``."""
        (value,) = struct.unpack(f"<{kind}", self.take(struct.calcsize(f"<{kind}")))
        return value

    def text(self) -> str:
        """The next text."""
        return self.take(self.number("Q")).decode("utf-8", "replace")

    def skip_value(self, kind: int, depth: int = 0) -> str | None:
        """Read over a value; what it is where that is a text."""
        if kind == _TEXT:
            return self.text()
        if kind in _SCALARS:
            return str(self.number(_SCALARS[kind]))
        if kind != _LIST or depth > 2:
            raise BadFile(f"is damaged: a value of kind {kind}")
        inner, count = self.number("I"), self.number("Q")
        if inner in _SCALARS:
            self.take(count * struct.calcsize(_SCALARS[inner]))
        elif count > _MOST_LISTED:
            raise BadFile(f"is damaged: a list of {count} values")
        else:
            for _ in range(count):
                self.skip_value(inner, depth + 1)
        return None


def _read_gguf(path: Path, file: BinaryIO) -> Header:
    size = path.stat().st_size
    # All of it is no longer than one part of it may be.
    cursor = _Cursor(file, min(size, _MOST_HEADER))
    if cursor.take(4) != b"GGUF" or cursor.number("I") not in (2, 3):
        raise BadFile("is not a GGUF file of version 2 or 3")
    count, values = cursor.number("Q"), cursor.number("Q")
    if max(count, values) > _MOST_TENSORS:
        raise BadFile(f"is damaged: {count} tensors and {values} values")
    metadata: dict[str, str] = {}
    for _ in range(values):
        name = cursor.text()
        found = cursor.skip_value(cursor.number("I"))
        if found is not None:
            metadata[name] = found
    listed = [_tensor(cursor) for _ in range(count)]
    alignment = metadata.get("general.alignment", "32")
    step = int(alignment) if alignment.isdecimal() else 0
    if step <= 0 or step > 2**20:
        raise BadFile("is damaged: its alignment")
    start = -(-file.tell() // step) * step
    tensors = {}
    for name, facts in listed:
        begin = start + facts.offset
        if begin + facts.size > size:
            raise BadFile(f"is damaged: it ends before {name[:100]!r} does")
        tensors[name] = TensorFacts(facts.dtype, facts.shape, facts.size, begin)
    return Header(path, tensors, metadata)


def _tensor(cursor: _Cursor) -> tuple[str, TensorFacts]:
    name, dimensions = cursor.text(), cursor.number("I")
    if dimensions > 8:
        raise BadFile(f"is damaged: {name[:100]!r} has {dimensions} dimensions")
    # ggml counts them from the innermost on.
    shape = tuple(cursor.number("Q") for _ in range(dimensions))[::-1]
    kind, offset = cursor.number("I"), cursor.number("Q")
    if kind not in GGML_TYPES:
        raise BadFile(f"has {name[:100]!r} in an unknown GGUF kind, number {kind}")
    dtype, block, width = GGML_TYPES[kind]
    numbers = math.prod(shape)
    if shape and shape[-1] % block:
        raise BadFile(f"is damaged: {name[:100]!r} has rows of no whole blocks")
    return name, TensorFacts(dtype, shape, numbers // block * width, offset)
