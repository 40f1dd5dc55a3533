"""Weights that wait in the host's memory, from where a device reads them fastest."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from flux_api.loading.device import empty_host_cache, first_line, free_memory
from flux_api.loading.host_memory import free_host_bytes

logger = logging.getLogger(__name__)

# torch rounds each piece of pinned memory up to a power of two: most layers would take
# half as much again, so they share pieces of this many bytes.
_PIECE = 1 << 28
_ALIGNED = 512
# What is pinned nobody else gets, and nothing of it is swapped out.
_LEFT_TO_OTHERS = 1 << 30


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tensor of a module is kept: the attribute ``name`` of ``holder``."""

    holder: Any
    name: str

    @property
    def tensor(self) -> torch.Tensor:
        found: torch.Tensor = getattr(self.holder, self.name)
        return found.detach()

    def put(self, tensor: torch.Tensor) -> None:
        setattr(self.holder, self.name, tensor)


class HostCopy:
    """The weights of ``module``, which is in the host's memory or on ``device``, in
    pinned host memory, so that nothing is copied back when it leaves the device. What
    libraries keep in tensors of their own kinds is moved by their own way instead, and
    is in one place."""

    def __init__(self, module: torch.nn.Module, device: torch.device) -> None:
        self._module, self._device = module, device
        self._copies: list[tuple[_Place, torch.Tensor]] | None = None
        if _is_known(module):
            self._copies = list(_copied(list(_places(module))))

    def leave(self) -> None:
        """Have the module in the host's memory alone."""
        if self._copies is None:
            self._module.to("cpu")
            return
        for place, copy in self._copies:
            place.put(copy)

    def come(self) -> None:
        """Have it on its device again."""
        if self._copies is None:
            self._module.to(self._device)
            return
        for place, copy in self._copies:
            place.put(copy.to(self._device, non_blocking=True))


def bring(copies: Iterable[HostCopy]) -> None:
    """Have all of ``copies`` on their device again, or none: torch.OutOfMemoryError."""
    copies = list(copies)
    try:
        for copy in copies:
            copy.come()
    except torch.OutOfMemoryError:
        for copy in copies:
            copy.leave()
        raise


def unpin() -> None:
    """Give back what was pinned and is no longer used: torch would keep it for the next
    copy, and nobody else could have it."""
    torch.accelerator.synchronize()
    empty_host_cache()


def size_of(module: torch.nn.Module) -> int:
    """The bytes of its weights."""
    return sum(place.tensor.nbytes for place in _places(module))


def pin(module: torch.nn.Module) -> bool:
    """Move the weights of ``module``, on the CPU, into pinned memory; whether there was
    enough for all of them."""
    copies = list(_copied(list(_places(module))))
    free_memory()
    return all(copy.is_pinned() for _, copy in copies if copy.numel())


def _places(module: torch.nn.Module) -> Iterator[_Place]:
    for tensor in (*module.parameters(), *module.buffers()):
        yield _Place(tensor, "data")
        # What bitsandbytes reads 4 bits with.
        state = getattr(tensor, "quant_state", None)
        if state is not None:
            yield from (_Place(state, "absmax"), _Place(state, "code"))
            if state.nested:
                yield _Place(state, "offset")
                yield from (_Place(state.state2, name) for name in ("absmax", "code"))


def _is_known(module: torch.nn.Module) -> bool:
    """Whether it is known of each weight in which tensors it is."""
    kinds = (torch.nn.Parameter, torch.Tensor)
    return all(
        type(tensor) in kinds or getattr(tensor, "quant_state", None) is not None
        for tensor in (*module.parameters(), *module.buffers())
    )


def _copied(places: list[_Place]) -> Iterator[tuple[_Place, torch.Tensor]]:
    """What is in ``places``, in the host's memory, pinned where there is enough. What
    is on the CPU is there from then on; each of them at once, as there may be no room
    for all of them twice."""
    sizes = [-(-place.tensor.nbytes // _ALIGNED) * _ALIGNED for place in places]
    left, used, pins = sum(sizes), 0, torch.accelerator.is_available()
    piece = torch.empty(0, dtype=torch.uint8)
    for place, size in zip(places, sizes, strict=True):
        tensor = place.tensor
        if pins and used + size > piece.numel():
            wanted = max(size, min(left, _PIECE))
            piece, used = _pinned(wanted), 0
            pins = piece.numel() > 0
        left -= size
        copy = tensor if tensor.device.type == "cpu" else None
        if pins:
            copy = _like(tensor, piece[used : used + tensor.nbytes])
            used += size
        elif copy is None:
            copy = torch.empty_like(tensor, device="cpu")
        if copy is not tensor:
            copy.copy_(tensor)
            if tensor.device.type == "cpu":
                place.put(copy)
        yield place, copy


def _like(tensor: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
    """``memory`` (bytes) as a tensor of the kind and the order of ``tensor``."""
    flat = memory.view(tensor.dtype)
    # Those of a VAE may have their channels last.
    order = torch.empty_like(tensor, device="meta").stride()
    return flat.as_strided(tensor.shape, order, flat.storage_offset())


def _pinned(size: int) -> torch.Tensor:
    """``size`` bytes of pinned memory, or none where they would be missing elsewhere or
    cannot be had."""
    why = "it would be missing elsewhere"
    if free_host_bytes() >= size + _LEFT_TO_OTHERS:
        try:
            return torch.empty(size, dtype=torch.uint8, pin_memory=True)
        except RuntimeError as error:
            why = first_line(error)
    logger.warning("weights wait in memory that is not pinned, and slow: %s", why)
    return torch.empty(0, dtype=torch.uint8)
