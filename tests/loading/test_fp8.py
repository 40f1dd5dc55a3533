"""Layers that multiply 8-bit floats: which do, on what numbers, and back again."""

from __future__ import annotations

import pytest
import torch

from flux_api.loading.fp8 import Fp8Linear, restore, to_fp8


def block(**layers):
    """A module with these layers in bfloat16."""
    made = torch.nn.Module()
    for name, (inputs, outputs) in layers.items():
        made.add_module(name, torch.nn.Linear(inputs, outputs, dtype=torch.bfloat16))
    return made


@pytest.mark.parametrize("bias", [True, False])
def test_rows_of_nothing_stay_nothing(bias):
    """Their scale would be a division by zero."""
    torch.manual_seed(0)
    made = block(proj=(32, 48))
    with torch.no_grad():
        made.proj.weight[1] = 0
        if not bias:
            made.proj.bias = None
        tokens = torch.randn(2, 3, 32, dtype=torch.bfloat16)
        tokens[0, 1] = 0
        exact = made.proj(tokens)
        to_fp8(made)
        near = made.proj(tokens)
    assert near.shape == exact.shape
    assert torch.equal(near[:, :, 1], exact[:, :, 1])
    assert torch.equal(near[0, 1], exact[0, 1])
    assert torch.allclose(near, exact, atol=0.15)


def test_only_whole_layers_whose_sides_the_kernels_take_are_changed():
    made = block(proj=(32, 48), odd=(32, 40), narrow=(24, 48), norm_linear=(32, 48))
    made.wide = torch.nn.Linear(32, 48)
    originals = to_fp8(made)
    changed = {n for n, one in made.named_children() if isinstance(one, Fp8Linear)}
    assert changed == {"proj"}
    assert to_fp8(made) == [], "a second time there is nothing to do"
    [(layer, weight)] = originals
    restore(originals)
    assert type(layer) is torch.nn.Linear and layer.weight is weight
    assert not list(made.buffers())
