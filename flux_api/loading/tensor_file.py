"""The tensors of a file of weights, safetensors or GGUF."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from flux_api.models.headers import Header

_NUMBERS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_NUMBERS["F64"] = torch.float64


class TensorFile:
    """Reads the tensors of a file, one by one, as copies."""

    def __init__(self, header: Header, prefix: str) -> None:
        self._header, self._prefix = header, prefix
        self._opened: Any = None

    def __enter__(self) -> TensorFile:
        if not self._header.is_gguf:
            opened: Any = safe_open(self._header.path, framework="pt")
            self._opened = opened.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._opened is not None:
            self._opened.__exit__(None, None, None)

    def read(self, name: str) -> torch.Tensor:
        """Tensor ``name``; what a GGUF has packed as rows of bytes."""
        name = self._prefix + name
        if self._opened is not None:
            read: torch.Tensor = self._opened.get_tensor(name)
            return read.clone()
        facts = self._header.tensors[name]
        raw = np.fromfile(
            self._header.path, np.uint8, count=facts.size, offset=facts.offset
        )
        data = torch.from_numpy(raw)
        if facts.dtype in _NUMBERS:
            return data.view(_NUMBERS[facts.dtype]).reshape(facts.shape)
        # None where somebody wrote a side of 0.
        rows = math.prod(facts.shape[:-1]) or 1
        return data.reshape(*facts.shape[:-1], facts.size // rows)
