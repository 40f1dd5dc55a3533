"""Linear layers that multiply 8-bit floats: weights scaled by row, inputs by token.

By torch itself: torchao would be imported at every start, and its layers replace those
that LoRAs already hang on. Uncompiled it is slower than 16 bits.
"""

from __future__ import annotations

import torch

_FLOAT8 = torch.float8_e4m3fn
_MOST = torch.finfo(_FLOAT8).max
# What the kernels ask of both sides of a matrix.
_MULTIPLE = 16

Originals = list[tuple[torch.nn.Linear, torch.nn.Parameter]]


class Fp8Linear(torch.nn.Linear):
    """A linear layer that :func:`to_fp8` has changed, for inputs in bfloat16."""

    weight_scale: torch.Tensor

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As a linear layer's, rounded to 8 bits on its way in."""
        tokens = input.reshape(-1, self.in_features)
        numbers, scale = _scaled(tokens)
        output = torch._scaled_mm(
            numbers,
            self.weight.t(),
            scale_a=scale,
            scale_b=self.weight_scale.t(),
            out_dtype=input.dtype,
            # Sums in the precision that these units have themselves, as torchao
            # multiplies when nothing is trained.
            use_fast_accum=True,
        )
        output = output.reshape(*input.shape[:-1], self.out_features)
        bias: torch.Tensor | None = self.bias
        return output if bias is None else output + bias


def has_fp8(device: torch.device) -> bool:
    """Whether ``device`` multiplies 8-bit floats: NVIDIA's Ada, Hopper and later."""
    # AMD's cards count otherwise, and have 8-bit floats of another kind.
    if device.type != "cuda" or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 9)


def to_fp8(block: torch.nn.Module) -> Originals:
    """Change the plain layers of ``block`` that are in bfloat16, in place; what was
    changed, for :func:`restore`. What works on a picture's few conditions, not on its
    tokens, stays."""
    changed: Originals = []
    for path, layer in block.named_modules():
        if type(layer) is not torch.nn.Linear or "norm" in path:
            continue
        sides = layer.in_features, layer.out_features
        if layer.weight.dtype != torch.bfloat16 or any(n % _MULTIPLE for n in sides):
            continue
        weight = layer.weight
        assert isinstance(weight, torch.nn.Parameter)
        changed.append((layer, weight))
        numbers, scale = _scaled(weight.data)
        layer.weight = torch.nn.Parameter(numbers, requires_grad=False)
        layer.register_buffer("weight_scale", scale)
        # The same object: LoRAs hang on it.
        layer.__class__ = Fp8Linear
    return changed


def restore(originals: Originals) -> None:
    """Take back what :func:`to_fp8` did."""
    for layer, weight in originals:
        layer.__class__ = torch.nn.Linear
        layer.weight = weight
        del layer.weight_scale


def _scaled(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``rows`` in 8 bits, and what to multiply each of them by, (rows, 1)."""
    scale = rows.abs().amax(1, keepdim=True).float().clamp(min=1e-12) / _MOST
    return (rows / scale).clamp(-_MOST, _MOST).to(_FLOAT8), scale
