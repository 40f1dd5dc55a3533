"""Prompts and pictures that were encoded before: the same numbers, without the
encoder."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Literal

import torch

from flux_api.metrics.instruments import note_lookup

Embeddings = tuple[torch.Tensor, ...]


class PromptCache:
    """The embeddings used last, of prompts and of input pictures, ``most_bytes`` of
    them, in the host's memory: the n pictures of a request, a retry and a repeat encode
    nothing, and an encoder that is offloaded stays where it is. Not thread-safe: the
    device's lock guards it."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._kept: OrderedDict[Hashable, Embeddings] = OrderedDict()
        self._bytes = 0

    def get(
        self,
        key: Hashable,
        encode: Callable[[], Embeddings],
        device: torch.device,
        kind: Literal["prompts", "pictures"] = "prompts",
    ) -> Embeddings:
        """The embeddings under ``key``, on ``device``, bit for bit as ``encode`` gives
        them; ``kind`` is what they are counted as."""
        found = self._kept.get(key)
        note_lookup(kind, found=found is not None)
        if found is not None:
            self._kept.move_to_end(key)
            return tuple(tensor.to(device, copy=True) for tensor in found)
        made = encode()
        size = _size_of(made)
        # Larger than all that may be kept: it would only push the others out.
        if size <= self.most_bytes:
            # Copies, here and above, as a pipeline may work in place.
            self._kept[key] = tuple(tensor.to("cpu", copy=True) for tensor in made)
            self._bytes += size
        while self._bytes > self.most_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= _size_of(oldest)
        return made


def _size_of(embeddings: Embeddings) -> int:
    return sum(tensor.nbytes for tensor in embeddings)
