"""Linear layers whose weights stay as their file packs them: GGUF and 8-bit floats."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

Unpack = Callable[[torch.Tensor, torch.dtype], torch.Tensor]

# Whose layers a folder may have been saved with.
_PACKERS = "bitsandbytes."
FLOAT8 = {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}


class PackedLinear(torch.nn.Linear):
    """``plain`` with the packed ``weight``, which is unpacked for each forward. LoRAs
    are added to the output; nothing quantizes it once more."""

    scale: torch.Tensor | None

    def __init__(
        self,
        plain: torch.nn.Linear,
        weight: torch.Tensor,
        unpack: Unpack,
        scale: torch.Tensor | None,
    ) -> None:
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features = plain.in_features, plain.out_features
        # As int8: not cast with the model's numbers, and models that look at a layer's
        # data type to cast their input to it leave this one alone.
        packed = weight.view(torch.int8)
        self.weight = torch.nn.Parameter(packed, requires_grad=False)
        self.bias = plain.bias
        self.register_buffer("scale", scale)
        self._unpack = unpack

    def unpacked(self, dtype: torch.dtype) -> torch.Tensor:
        """The weight as a matrix of ``dtype``."""
        matrix = self._unpack(self.weight.data, dtype)
        matrix = matrix.reshape(self.out_features, self.in_features)
        return matrix if self.scale is None else matrix * self.scale.to(dtype)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As a linear layer's, in the data type of ``input``."""
        bias: torch.Tensor | None = self.bias
        return torch.nn.functional.linear(
            input,
            self.unpacked(input.dtype),
            None if bias is None else bias.to(input.dtype),
        )


def is_packed(module: torch.nn.Module) -> bool:
    """Whether ``module`` came out of a file or folder that was quantized already."""
    return any(
        isinstance(layer, PackedLinear) or type(layer).__module__.startswith(_PACKERS)
        for layer in module.modules()
    )


def unpacker(dtype: str) -> Unpack | None:
    """How weights that a file calls ``dtype`` are unpacked; None for plain numbers."""
    if dtype in FLOAT8:
        return partial(_from_float8, FLOAT8[dtype])
    if dtype in ("F32", "F16", "BF16", "F64"):
        return None
    from diffusers.quantizers.gguf import utils
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    kind = GGMLQuantizationType[dtype]
    block, width = GGML_QUANT_SIZES[kind]
    return partial(_from_blocks, utils.dequantize_functions[kind], block, width)


def _from_float8(
    kind: torch.dtype, packed: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    return packed.view(kind).to(dtype)


def _from_blocks(
    function: Callable[..., torch.Tensor],
    block: int,
    width: int,
    packed: torch.Tensor,
    dtype: torch.dtype,
) -> torch.Tensor:
    blocks = packed.view(torch.uint8).reshape(-1, width)
    return function(blocks, block, width, dtype=dtype).to(dtype)
