"""Continuous batching: one turn at the device, and forwards that requests share.

Each running picture is a stock ``pipeline.__call__`` in a thread of its own. All of
them hold one lock while they compute, and give it up only where their transformer is
called: there the calls of equal shape are joined into one forward, as many as its
budget of tokens allows, by whoever comes last. So exactly one thread drives the device
at any time, pictures at different steps share a forward or take turns, and they join
and leave between steps.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch

from flux_api.engine.step_cache import StepCache
from flux_api.loading.device import allocation_failures, free_memory
from flux_api.metrics.instruments import BATCH

_POSITION_IDS = ("txt_ids", "img_ids")


class ForwardBatcher:
    """The lock of the device, and the calls that wait for a forward. ``budget`` is the
    most tokens in a shared one; a call that is larger has one to itself."""

    def __init__(self) -> None:
        self.budget = 0
        # Reentrant: a forward is asked for within the picture's own hold.
        self._lock = threading.Condition(threading.RLock())
        # Of its own: who arrives counts at once, while another holds the device.
        self._door = threading.Lock()
        self._arriving = 0
        self._present = 0
        self._calls: list[_Call] = []

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold the device for a picture's run; :meth:`forward` lends it meanwhile."""
        # Known before the lock is free: a run in progress must let newcomers in.
        with self._door:
            self._arriving += 1
        with self._lock:
            with self._door:
                self._arriving -= 1
            self._present += 1
            try:
                yield
            finally:
                self._present -= 1
                self._lock.notify_all()

    @property
    def is_alone(self) -> bool:
        """Whether no other run has begun. Only within :meth:`taken`."""
        return self._present == 1

    def forward(
        self,
        module: Callable[..., Any],
        kwargs: dict[str, Any],
        position_ids: PositionIds,
    ) -> Any:
        """``module(**kwargs)``, perhaps as part of a larger batch; its own error is
        raised. Only within :meth:`taken`. ``position_ids`` are those of the picture."""
        # Who is alone waits for nobody.
        if (self._present == 1 and not self._arriving) or not joinable(kwargs):
            BATCH.observe(1)
            return module(**kwargs)
        call = _Call(module, kwargs, position_ids)
        self._calls.append(call)
        while not call.done:
            # Who comes last runs all: nobody is on the way whose call could join.
            if len(self._calls) == self._present and not self._arriving:
                self._run_together()
            else:
                self._lock.wait()
        if call.error is not None:
            raise call.error
        return call.output

    def _run_together(self) -> None:
        calls = self._next_calls()
        one_by_one = False
        try:
            self._run_joined(calls)
        except BaseException as error:
            # One of several may be too large or wrong, unless the device is lost.
            one_by_one = len(calls) > 1 and not isinstance(
                error, torch.AcceleratorError
            )
            if not one_by_one:
                for call in calls:
                    call.fail(error)
        if one_by_one:
            # Outside the handler: its traceback holds the failed forward's tensors.
            free_memory()
            for call in calls:
                self._run_alone(call)
        for call in calls:
            call.done = True
        self._lock.notify_all()

    def _next_calls(self) -> list[_Call]:
        """Remove the call that waits longest, and those that fit beside it."""
        first, *others = self._calls
        calls, room = [first], self.budget - first.tokens
        for call in others:
            if call.tokens <= room and call.shape == first.shape:
                calls.append(call)
                room -= call.tokens
        self._calls = [call for call in self._calls if call not in calls]
        return calls

    def _run_alone(self, call: _Call) -> None:
        try:
            self._run_joined([call])
        except BaseException as error:
            call.fail(error)

    def _run_joined(self, calls: list[_Call]) -> None:
        BATCH.observe(len(calls))
        if len(calls) == 1:
            with allocation_failures():
                calls[0].output = calls[0].module(**calls[0].kwargs)
            return
        kwargs, counts = join([call.kwargs for call in calls])
        with allocation_failures():
            output = calls[0].module(**kwargs)
        for call, part in zip(calls, output[0].split(counts), strict=True):
            call.output = (part,)


class Gate:
    """Stands where a pipeline's transformer stands, and calls ``forward``. ``check``
    runs before each call and raises to stop the picture; ``velocity`` is the output of
    the first call since it was last None; everything else is the transformer's own.
    With a ``step_cache`` its forwards are shared with no other picture's."""

    def __init__(
        self,
        module: Any,
        batcher: ForwardBatcher,
        check: Callable[[], None],
        forward: Callable[..., Any],
        step_cache: StepCache | None = None,
    ) -> None:
        self._module, self._batcher, self._check = module, batcher, check
        self._forward, self._step_cache = forward, step_cache
        # With a prompt to be guided away from, a step has two calls.
        self._branch = ""
        self._branches: dict[str, Callable[..., Any]] = {}
        self._position_ids = PositionIds()
        self.velocity: torch.Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    @cached_property
    def dtype(self) -> torch.dtype:
        """The transformer's; pipelines ask at each step, and diffusers goes through all
        of its modules to tell."""
        dtype: torch.dtype = self._module.dtype
        return dtype

    @contextmanager
    def cache_context(self, name: str, **_: Any) -> Iterator[None]:
        """Pipelines say here which of a step's calls comes."""
        self._branch = name
        yield

    def __call__(self, **kwargs: Any) -> Any:
        self._check()
        forward = self._forward
        if self._step_cache is not None and joinable(kwargs):
            # Of its own: what is called by no other call shares no forward.
            if self._branch not in self._branches:
                self._branches[self._branch] = self._step_cache.sequence(forward)
            forward = self._branches[self._branch]
        output = self._batcher.forward(forward, kwargs, self._position_ids)
        if self.velocity is None:
            self.velocity = output[0]
        return output


class _Call:
    def __init__(
        self,
        module: Callable[..., Any],
        kwargs: dict[str, Any],
        position_ids: PositionIds,
    ) -> None:
        self.module, self.kwargs = module, kwargs
        self.shape: Hashable = (id(module), shape_of(kwargs, position_ids))
        self.tokens = tokens_of(kwargs)
        self.done = False
        self.output: Any = None
        self.error: BaseException | None = None

    def fail(self, error: BaseException) -> None:
        """Let its caller meet ``error`` in its own thread."""
        if isinstance(error, torch.OutOfMemoryError):
            # The frames hold what was computed, and the next try needs the room.
            error = error.with_traceback(None)
        self.error = error


def joinable(kwargs: Mapping[str, Any]) -> bool:
    """Whether a call can share a forward: it answers with a tuple and carries no state
    of its own (IP adapters, key-value caches)."""
    if kwargs.get("return_dict", True) or "hidden_states" not in kwargs:
        return False
    return all(
        value is None or isinstance(value, (torch.Tensor, str, int, float, bool))
        for name, value in kwargs.items()
        if name != "joint_attention_kwargs" or value
    )


def tokens_of(kwargs: Mapping[str, Any]) -> int:
    """How many tokens the call has, those of pictures and of text, over its batch."""
    sequences = kwargs["hidden_states"], kwargs.get("encoder_hidden_states")
    batch = sequences[0].shape[0]
    return int(batch * sum(part.shape[1] for part in sequences if part is not None))


class PositionIds:
    """The values of one picture's position ids, copied from the device once a shape:
    within a picture, pipelines make equal ids at every step."""

    def __init__(self) -> None:
        self._values: dict[Hashable, bytes] = {}

    def values(self, name: str, ids: torch.Tensor) -> bytes:
        """Those of ``ids``, (tokens, axes) or, of one picture, (1, tokens, axes)."""
        key = name, tuple(ids.shape)
        if key not in self._values:
            self._values[key] = ids.float().cpu().numpy().tobytes()
        return self._values[key]


def shape_of(kwargs: Mapping[str, Any], position_ids: PositionIds) -> Hashable:
    """What must be equal between calls of one forward: everything but the batch
    dimension, and the values of position ids."""
    key: list[Hashable] = []
    for name, value in sorted(kwargs.items()):
        if not isinstance(value, torch.Tensor):
            key.append((name, str(value)))
        elif name in _POSITION_IDS:
            # 512x1024 and 1024x512 have as many tokens, at other places.
            values = position_ids.values(name, value)
            key.append((name, tuple(value.shape[-2:]), values))
        else:
            key.append((name, tuple(value.shape[1:]), value.dtype))
    return tuple(key)


def join(calls: list[dict[str, Any]]) -> tuple[dict[str, Any], list[int]]:
    """The keyword arguments of one forward over all ``calls`` of one shape, and how
    many samples of its batch belong to each."""
    counts = [call["hidden_states"].shape[0] for call in calls]
    joined: dict[str, Any] = {}
    for name, value in calls[0].items():
        if isinstance(value, torch.Tensor) and not _is_shared(name, value):
            parts = [
                call[name].expand(count, *value.shape[1:])
                for call, count in zip(calls, counts, strict=True)
            ]
            joined[name] = torch.cat(parts)
        else:
            joined[name] = value
    return joined, counts


def _is_shared(name: str, value: torch.Tensor) -> bool:
    """FLUX.1's position ids have no batch dimension; FLUX.2's have one."""
    return name in _POSITION_IDS and value.ndim == 2
