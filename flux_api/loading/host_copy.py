"""Weights that wait in the host's memory, from where a device reads them fastest."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from flux_api.loading.device import free_memory

# torch rounds each piece of pinned memory up to a power of two: most layers would take
# half as much again, so they share pieces of this many bytes.
_PIECE = 1 << 28
_ALIGNED = 512


class HostCopy:
    """The weights of ``module``, which is on a device, in pinned host memory too. What
    libraries have quantized is moved by their own way instead, and is in one place."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module
        self._device = next(module.parameters()).device
        self._copies: dict[torch.Tensor, torch.Tensor] | None = None
        if _is_plain(module):
            tensors = [*module.parameters(), *module.buffers()]
            self._copies = dict(zip(tensors, _copied(tensors), strict=True))

    def leave(self) -> None:
        """Have the module in the host's memory alone."""
        if self._copies is None:
            self._module.to("cpu")
            return
        for tensor, copy in self._copies.items():
            tensor.data = copy

    def come(self) -> None:
        """Have it on its device again."""
        if self._copies is None:
            self._module.to(self._device)
            return
        for tensor, copy in self._copies.items():
            tensor.data = copy.to(self._device, non_blocking=True)


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
    torch.accelerator.empty_host_cache()


def size_of(module: torch.nn.Module) -> int:
    """The bytes of its weights."""
    return sum(t.nbytes for t in (*module.parameters(), *module.buffers()))


def pin(module: torch.nn.Module) -> None:
    """Move the weights of ``module``, on the CPU, into pinned memory."""
    tensors = [*module.parameters(), *module.buffers()]
    for tensor, copy in zip(tensors, _copied(tensors), strict=True):
        tensor.data = copy
    free_memory()


def _is_plain(module: torch.nn.Module) -> bool:
    """Whether each weight is one tensor, and nothing is kept beside it."""
    kinds = (torch.nn.Parameter, torch.Tensor)
    tensors = (*module.parameters(), *module.buffers())
    return all(type(tensor) in kinds for tensor in tensors)


def _copied(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """``tensors`` in pinned memory."""
    pinned = torch.accelerator.is_available()
    sizes = [-(-tensor.nbytes // _ALIGNED) * _ALIGNED for tensor in tensors]
    left, used = sum(sizes), 0
    piece = torch.empty(0, dtype=torch.uint8)
    copies = []
    for tensor, size in zip(tensors, sizes, strict=True):
        if used + size > piece.numel():
            wanted = max(size, min(left, _PIECE))
            piece = torch.empty(wanted, dtype=torch.uint8, pin_memory=pinned)
            used = 0
        bytes_of = piece[used : used + tensor.nbytes]
        copies.append(bytes_of.view(tensor.dtype).view(tensor.shape))
        copies[-1].copy_(tensor.detach())
        used += size
        left -= size
    return copies
