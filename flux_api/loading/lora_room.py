"""Room for LoRAs in compiled blocks.

Compiled blocks do not look for hooks that came later, but they read what their layers
hold. So each linear layer of theirs gets its hook before, which adds the product of two
factors that lie at the layer, of whatever rank. One graph does without LoRAs, and one
for all of them: layers that a file leaves alone then hold zeros.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch.nn.functional import linear, pad

from flux_api.loading.deltas import Weighed
from flux_api.loading.fp8 import Fp8Linear

# Of a side of one dynamo makes a graph of its own.
_LEAST_RANK = 2

# (rank, in features) and (out features, rank).
Factors = tuple[torch.Tensor, torch.Tensor]


class LoraRoom:
    """The room in ``blocks``, empty; made before they are compiled. ``overflows`` while
    LoRAs are on that need the blocks uncompiled."""

    def __init__(self, blocks: Collection[torch.nn.Module]) -> None:
        self._inside = {module for block in blocks for module in block.modules()}
        # Packed weights do not say in what they compute.
        self._layers: list[Any] = [
            module for module in self._inside if type(module) is torch.nn.Linear
        ]
        self._hooks = [layer.register_forward_hook(_add) for layer in self._layers]
        self.clear()

    def take(self, changes: Mapping[torch.nn.Module, Weighed]) -> set[torch.nn.Module]:
        """Hold what ``changes`` do to linear layers in the blocks, and say to which.
        None are taken where they do something else in there too."""
        self.clear()
        inside = self._inside & changes.keys()
        if not inside:
            return inside
        held = {}
        for layer in self._layers:
            factors = _factors(changes.get(layer, ()), layer)
            if factors is not None:
                held[layer] = factors
        self.overflows = not inside <= held.keys()
        if self.overflows:
            return set()
        for layer, factors in held.items():
            layer.lora_factors = factors
        return inside

    def hold_zeros(self) -> None:
        """Hold LoRAs that change nothing."""
        for layer in self._layers:
            layer.lora_factors = _factors((), layer)

    def clear(self) -> None:
        """Hold nothing."""
        self.overflows = False
        for layer in self._layers:
            layer.lora_factors = None

    def close(self) -> None:
        """Leave the blocks as they were."""
        for hook, layer in zip(self._hooks, self._layers, strict=True):
            hook.remove()
            del layer.lora_factors


def make_room(
    transformer: torch.nn.Module, blocks: Collection[torch.nn.Module]
) -> LoraRoom:
    """Make room for LoRAs in the ``blocks`` of ``transformer``."""
    room = LoraRoom(blocks)
    transformer.lora_room = room  # type: ignore[assignment]
    return room


def room_in(transformer: torch.nn.Module | None) -> LoraRoom | None:
    """The room that was made in ``transformer``, if any was."""
    return getattr(transformer, "lora_room", None)


def close_room(transformer: torch.nn.Module) -> None:
    """Take back what :func:`make_room` did."""
    if (room := room_in(transformer)) is not None:
        room.close()
        del transformer.lora_room


def _add(layer: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> Any:
    if layer.lora_factors is None:
        return output
    down, up = layer.lora_factors
    return output + linear(linear(inputs[0], down), up)


def _factors(weighed: Weighed, layer: torch.nn.Linear) -> Factors | None:
    """Those of all of ``weighed`` together, as ``layer`` computes; None where one is of
    another kind."""
    pairs = [change.factors for change, _ in weighed]
    if any(pair is None for pair in pairs):
        return None
    weight = layer.weight
    # See Fp8Linear for its inputs.
    dtype = torch.bfloat16 if isinstance(layer, Fp8Linear) else weight.dtype
    downs = [weight.new_zeros(0, layer.in_features, dtype=torch.float32)]
    ups = [weight.new_zeros(layer.out_features, 0, dtype=torch.float32)]
    for (_, by), pair in zip(weighed, pairs, strict=True):
        assert pair is not None
        down, up = (part.to(weight.device, torch.float32) for part in pair)
        downs.append(down)
        ups.append(up * by)
    down, up = torch.cat(downs), torch.cat(ups, 1)
    missing = max(0, _LEAST_RANK - len(down))
    down, up = pad(down, (0, 0, 0, missing)), pad(up, (0, missing))
    return down.to(dtype), up.to(dtype)
