"""How long a transformer's block takes: what is judged by before it is done to all."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch

from flux_api.engine.shared_forward import join, joinable

_REPEATS = 15
# What is not faster by as much is not worth the differences, nor above the noise.
_LEAST_GAIN = 0.03


class Trial:
    """A forward of ``transformer``, the base ``name``, with ``kwargs``, and the call of
    one of its repeated ``block``\\ s in it. ``show_life`` is called now and then."""

    def __init__(
        self,
        name: str,
        transformer: Any,
        kwargs: Mapping[str, Any],
        show_life: Callable[[], None],
    ) -> None:
        self.name, self.transformer = name, transformer
        self._kwargs, self._show_life = dict(kwargs), show_life
        self._device = self._kwargs["hidden_states"].device
        self._calls: list[tuple[Any, dict[str, Any]]] = []

    @cached_property
    def block(self) -> torch.nn.Module:
        """The one that is timed; ValueError where none is repeated."""
        return repeated_block(self.transformer)

    def run(self, pictures: int) -> None:
        """One forward of as many pictures, where they can share one."""
        kwargs = self._kwargs
        if pictures > 1:
            if not joinable(kwargs):
                return
            kwargs, _ = join([kwargs] * pictures)
        self._show_life()
        # As pipelines run it: another mode would be another graph.
        with torch.no_grad():
            self.transformer(**kwargs)
        self._synchronize()

    def seconds(self) -> float:
        """The least time of several calls of the block, after one to get warm."""
        args, kwargs = self._call_of_block()
        found, clock = [], clock_of(self._device)
        self._show_life()
        with torch.no_grad():
            for _ in range(1 + _REPEATS):
                began = clock()
                self.block(*args, **kwargs)
                self._synchronize()
                found.append(clock() - began)
        self._show_life()
        return min(found[1:])

    def _call_of_block(self) -> tuple[Any, dict[str, Any]]:
        if not self._calls:

            def note(_: Any, args: Any, kwargs: dict[str, Any]) -> None:
                self._calls.append((args, kwargs))

            hook = self.block.register_forward_pre_hook(note, with_kwargs=True)
            try:
                self.run(1)
            finally:
                hook.remove()
        return self._calls[0]

    def _synchronize(self) -> None:
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)


def clock_of(device: torch.device) -> Callable[[], float]:
    """Seconds to compare work on ``device`` by: on a CPU those of this process alone,
    whatever else the machine does."""
    return time.process_time if device.type == "cpu" else time.perf_counter


def repeated_block(transformer: Any) -> torch.nn.Module:
    """The last block of the kind of which there are most. ValueError where none is
    repeated."""
    blocks = repeated_blocks(transformer)
    if not blocks:
        raise ValueError("this transformer has no repeated blocks")
    [(most, _)] = Counter(type(one) for one in blocks).most_common(1)
    return next(one for one in reversed(blocks) if type(one) is most)


def repeated_blocks(transformer: Any) -> list[torch.nn.Module]:
    """The blocks that diffusers says are worth compiling."""
    names = getattr(transformer, "_repeated_blocks", None) or ()
    return [one for one in transformer.modules() if type(one).__name__ in names]


def is_faster(before: float, after: float) -> bool:
    """Whether ``after`` seconds are worth having instead of ``before``."""
    return after < before * (1 - _LEAST_GAIN)
