"""Components in folders that bitsandbytes quantized, on a CPU."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from safetensors.torch import load_file

from flux_api.loading.single_files import build
from flux_api.models.hub import ModelMissing, listed

# Beside a layer's weight: one of its numbers' state in 4 bits, its rows' scales in 8.
_FOUR_BITS = ".weight.quant_state.bitsandbytes__"
_SCALES = ".SCB"
_UNUSED = (".weight_format",)


def load_packed(
    kind: Any, folder: Path, files: Sequence[str], dtype: torch.dtype
) -> torch.nn.Module:
    """A ``kind`` with the weights in ``files`` of ``folder``: what is packed stays so,
    the rest becomes ``dtype``. ModelMissing where something is not as it should be."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    method = config.pop("quantization_config").get("quant_method")
    if method != "bitsandbytes":
        raise ModelMissing(f"it is quantized by {str(method)[:40]!r}, not bitsandbytes")
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        # Left out where no set needed it when the server started.
        raise ModelMissing(
            "it is quantized with bitsandbytes, which is not loaded: restart the server"
        ) from None
    # The packed layers, which come later, are left in training as those are that the
    # server packs: else some CPUs' kernels want sides that are multiples of theirs.
    module = build(kind, config).eval()
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        tensors |= load_file(folder / file)
    _put_packed(module, tensors)
    rest = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
        if not name.endswith(_UNUSED)
    }
    _, unexpected = module.load_state_dict(rest, strict=False, assign=True)
    if isinstance(module, transformers.PreTrainedModel):
        module.tie_weights()
    lacking = [name for name, one in module.named_parameters() if one.is_meta]
    if lacking:
        raise ModelMissing(f"the {kind.__name__} lacks {listed(lacking)}")
    if unexpected:
        raise ModelMissing(
            f"the {kind.__name__} has {listed(unexpected)}, which is no part of it"
        )
    return module.requires_grad_(False)


def _put_packed(module: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Make layers of ``module`` out of the packed ones among ``tensors``, which are
    taken from there."""
    four = {name.partition(_FOUR_BITS)[0] for name in tensors if _FOUR_BITS in name}
    eight = {name.removesuffix(_SCALES) for name in tensors if name.endswith(_SCALES)}
    layers = dict(module.named_modules())
    for path in four | eight:
        layer, weight = layers.get(path), tensors.pop(f"{path}.weight", None)
        if weight is None:
            raise ModelMissing(f"it lacks {path[:200]}.weight")
        begin = f"{path}.weight."
        state = {n: tensors.pop(n) for n in list(tensors) if n.startswith(begin)}
        if not isinstance(layer, torch.nn.Linear):
            raise ModelMissing(f"it has {path[:200]!r} packed, which is no part of it")
        if path in four:
            packed, shape = _four_bits(layer, weight, state)
        else:
            packed = _eight_bits(layer, weight, tensors.pop(f"{path}{_SCALES}"))
            shape = weight.shape
        if shape != layer.weight.shape:
            raise ModelMissing(
                f"{path!r} is {_by(shape)}, expected {_by(layer.weight.shape)}"
            )
        parent, _, last = path.rpartition(".")
        setattr(module.get_submodule(parent), last, packed)


def _four_bits(
    layer: torch.nn.Linear, weight: torch.Tensor, state: Mapping[str, torch.Tensor]
) -> tuple[torch.nn.Module, torch.Size]:
    """The layer, and the shape of what is packed in it."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    made = Linear4bit(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        device=torch.device("meta"),
    )
    made.weight = Params4bit.from_prequantized(
        weight, dict(state), device="cpu", module=made
    )
    quant = made.quant_state
    numbers = quant.shape.numel()
    # The kernels read as many as they are told that there are.
    expected = -(-numbers // 2), -(-numbers // quant.blocksize)
    if (weight.nbytes, quant.absmax.numel()) != expected:
        raise ModelMissing(f"a matrix of {_by(quant.shape)} is packed in other bytes")
    return made, quant.shape


def _eight_bits(
    layer: torch.nn.Linear, weight: torch.Tensor, scales: torch.Tensor
) -> torch.nn.Module:
    from bitsandbytes.nn import Int8Params, Linear8bitLt

    if scales.numel() != layer.out_features:
        raise ModelMissing(
            f"{layer.out_features} rows are packed with {scales.numel()} scales"
        )
    made = Linear8bitLt(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        has_fp16_weights=False,
        device=torch.device("meta"),
    )
    made.weight = Int8Params(weight, requires_grad=False, CB=weight, SCB=scales)
    return cast(torch.nn.Module, made)


def _by(shape: torch.Size) -> str:
    return "x".join(map(str, shape))
