"""LoRAs as part of the weights: a layer then costs what it costs without them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch

from flux_api.loading.deltas import Weighed
from flux_api.loading.device import allocation_failures
from flux_api.loading.host_memory import free_host_bytes

logger = logging.getLogger(__name__)

# Packed weights and those in 8 bits do not take a difference without losing it.
_WHOLE = (torch.float32, torch.bfloat16, torch.float16)


class FusedLayers:
    """The layers of ``transformer`` whose weights have taken ``changes`` in, those that
    can. Their own weights wait in the host's memory, as subtracting would not give them
    back to the last bit: where that has not twice the room, no layer does."""

    def __init__(
        self, transformer: torch.nn.Module, changes: Mapping[torch.nn.Module, Weighed]
    ) -> None:
        inside = set(transformer.modules())
        self._kept: list[tuple[torch.nn.Linear, torch.Tensor]] = []
        fitting: dict[Any, Weighed] = {
            layer: weighed
            for layer, weighed in changes.items()
            if layer in inside and _can_fuse(layer, weighed)
        }
        size = sum(layer.weight.nbytes for layer in fitting)
        if 2 * size > free_host_bytes():
            logger.info("LoRAs stay beside the weights: too little memory for a copy")
            return
        try:
            with allocation_failures():
                for layer, weighed in fitting.items():
                    self._fuse(layer, weighed)
        except BaseException as error:
            # A layer that kept what its hook adds too would have it twice.
            self.restore()
            if not isinstance(error, torch.OutOfMemoryError):
                raise
            logger.info("LoRAs stay beside the weights: the device has no memory left")
        else:
            mib = size / 2**20
            logger.info("LoRAs are fused into %d layers (%.0f MiB)", len(fitting), mib)

    @property
    def layers(self) -> set[torch.nn.Module]:
        """Those that need nothing added any more."""
        return {layer for layer, _ in self._kept}

    def restore(self) -> None:
        """Give the layers their own weights back."""
        for layer, weight in self._kept:
            layer.weight.data.copy_(weight)
        self._kept.clear()

    def _fuse(self, layer: torch.nn.Linear, weighed: Weighed) -> None:
        own = layer.weight.data.float()
        fused = own.clone()
        for change, by in weighed:
            # Each starts from the layer's own weight, whatever the others add.
            fused += change.difference(own) * by
        self._kept.append((layer, layer.weight.data.to("cpu", copy=True)))
        layer.weight.data.copy_(fused)


def _can_fuse(layer: torch.nn.Module, weighed: Weighed) -> bool:
    return (
        type(layer) is torch.nn.Linear
        and layer.weight.dtype in _WHOLE
        and all(change.is_of_weight for change, _ in weighed)
    )
