"""Steps that are nearly like the one before them take its result: First Block Cache.

Only the first block of a transformer runs; where it changes the picture as it did the
last time that all of them ran, what the others added then is added again. After
https://github.com/chengzeyi/ParaAttention, whose threshold is near-lossless. diffusers'
own fails where the last blocks have text and picture in one, as FLUX.2's do, and
forgets all pictures at once; cache-dit keeps one picture's state for each pipeline.
Here each picture has its own, so pictures may take turns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

FAMILIES = ("FluxTransformer2DModel", "Flux2Transformer2DModel")
# Fewer have no two that are alike.
LEAST_STEPS = 10
THRESHOLD = 0.08

Forward = Callable[..., Any]
# Of text and picture, (batch, tokens, width) each.
Streams = tuple[torch.Tensor, torch.Tensor]


@dataclass(slots=True, eq=False)
class _Memory:
    """What a picture's forwards remember: the change by the first block and its output,
    both of the last whole forward, what the other blocks added then, and whether this
    forward leaves them out."""

    change: torch.Tensor | None = None
    first: Streams | None = None
    rest: Streams | None = None
    skips: bool = False


class StepCache:
    """Lets the blocks of ``transformer``, one of ``FAMILIES``, be left out; only within
    the forwards of :meth:`sequence`. Blocks are compiled before, not after."""

    def __init__(self, transformer: Any) -> None:
        self._now: _Memory | None = None
        blocks = list(transformer.transformer_blocks)
        blocks += transformer.single_transformer_blocks
        _wrap(blocks[0], self._run_first)
        for block in blocks[1:-1]:
            _wrap(block, self._run_other)
        _wrap(blocks[-1], self._run_last)

    def sequence(self, forward: Forward) -> Forward:
        """``forward`` for the steps of one picture, one after the other; others may run
        between them."""
        memory = _Memory()

        def cached(**kwargs: Any) -> Any:
            self._now = memory
            try:
                return forward(**kwargs)
            finally:
                self._now = None

        return cached

    def _run_first(self, block: Forward, **kwargs: Any) -> Any:
        text, picture = block(**kwargs)
        memory = self._now
        if memory is None:
            return text, picture
        change = picture - kwargs["hidden_states"]
        memory.skips = self._is_alike(change, memory)
        if memory.skips and memory.rest is not None:
            return text + memory.rest[0], picture + memory.rest[1]
        memory.change, memory.first = change, (text, picture)
        return text, picture

    def _is_alike(self, change: torch.Tensor, memory: _Memory) -> bool:
        before = memory.change
        if before is None or memory.rest is None or before.shape != change.shape:
            return False
        apart = (change - before).abs().mean() / before.abs().mean()
        return bool(apart < THRESHOLD)

    def _run_other(self, block: Forward, **kwargs: Any) -> Any:
        if self._now is None or not self._now.skips:
            return block(**kwargs)
        text, picture = kwargs.get("encoder_hidden_states"), kwargs["hidden_states"]
        # FLUX.2's later blocks have both in one.
        return picture if text is None else (text, picture)

    def _run_last(self, block: Forward, **kwargs: Any) -> Any:
        output = self._run_other(block, **kwargs)
        memory = self._now
        if memory is None or memory.skips or memory.first is None:
            return output
        text, picture = memory.first
        streams = output
        if isinstance(output, torch.Tensor):
            length = text.shape[1]
            streams = output[:, :length], output[:, length:]
        memory.rest = streams[0] - text, streams[1] - picture
        return output


def _wrap(block: torch.nn.Module, run: Callable[..., Any]) -> None:
    """Have ``block`` called through ``run``, compiled or not; itself it is compiled by
    no one, so what it decides is no part of a graph."""
    inner = block._compiled_call_impl or block._call_impl
    block._compiled_call_impl = partial(run, inner)
