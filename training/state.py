"""What a stopped training run needs to go on: weights, averages, optimizer, time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from training.clock import Clock


class Average:
    """An exponential moving average of the weights, which is what gets exported."""

    def __init__(self, modules: Sequence[nn.Module], decay: float) -> None:
        """Start from the modules' present weights."""
        self.decay = decay
        self.values = [v.detach().clone().float() for v in _weights(modules)]

    @torch.no_grad()
    def update(self, modules: Sequence[nn.Module], step: int) -> None:
        """Move a little towards the present weights, faster in the first steps."""
        keep = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.values, _weights(modules), 1 - keep)

    @torch.no_grad()
    def copy_to(self, modules: Sequence[nn.Module]) -> None:
        """Overwrite the modules' weights with the averages."""
        torch._foreach_copy_(_weights(modules), self.values)


def _weights(modules: Sequence[nn.Module]) -> list[torch.Tensor]:
    return [p.data for module in modules for p in module.parameters()]


def save_state(
    path: Path,
    modules: Sequence[nn.Module],
    optimizer: torch.optim.Optimizer,
    average: Average,
    clock: Clock,
    step: int,
    random: Any = None,
) -> None:
    """Write everything to a file at once, so that a kill leaves the old one whole."""
    state = {
        "weights": [module.state_dict() for module in modules],
        "average": average.values,
        "optimizer": optimizer.state_dict(),
        "spent": clock.spent,
        "step": step,
        "random": random,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def load_state(
    path: Path,
    modules: Sequence[nn.Module],
    optimizer: torch.optim.Optimizer,
    average: Average,
    clock: Clock,
) -> int:
    """Restore all but the random state, and return the step to go on with."""
    state = torch.load(path, map_location="cpu", weights_only=False)
    for module, weights in zip(modules, state["weights"], strict=True):
        module.load_state_dict(weights)
    torch._foreach_copy_(average.values, state["average"])
    optimizer.load_state_dict(state["optimizer"])
    clock.spent = state["spent"]
    return state["step"]
