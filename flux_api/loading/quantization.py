"""Weights in 4 or 8 bits: bitsandbytes for nf4 and int8, torchao for fp8."""

from __future__ import annotations

import importlib.util
import logging
from typing import Any

import diffusers
import torch
import transformers

from flux_api.errors import BadSetting
from flux_api.loading.fp8 import has_fp8
from flux_api.settings import Quantization

# The large components. CLIP and the VAE are small, and a VAE shows rounding.
QUANTIZED = ("transformer", "text_encoder", "text_encoder_2", "prompt_upsampler")
SMALL = ("CLIPTextModel",)
# Input and output projections stay whole: they are small, and quantizing them shifts
# colours; FLUX 3 takes its data type from there. Embeddings share the weights of a text
# encoder's head.
_KEPT = ("x_embedder", "x_embedders", "context_embedder", "proj_out", "lm_head")


def quantization_of(
    quantization: Quantization, name: str, kind: type, dtype: torch.dtype
) -> Any:
    """The configuration for component ``name`` of class ``kind``, computing in
    ``dtype``; None where it stays as it is."""
    if quantization == "none" or name not in QUANTIZED or kind.__name__ in SMALL:
        return None
    # transformers finds the head of its models by itself.
    ours = name == "transformer"
    library: Any = diffusers if ours else transformers
    kept = list(_KEPT) if ours else None
    if quantization == "nf4":
        return library.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=kept,
        )
    if quantization == "int8":
        return library.BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
    from torchao.quantization import Float8WeightOnlyConfig

    return library.TorchAoConfig(Float8WeightOnlyConfig(), modules_to_not_convert=kept)


def is_quantized_layer(path: str, layer: torch.nn.Module) -> bool:
    """Whether ``layer``, at ``path`` in its component, is one that gets quantized."""
    return type(layer) is torch.nn.Linear and path.split(".")[0] not in _KEPT


def quantize(
    module: torch.nn.Module, quantization: Quantization, device: torch.device
) -> None:
    """Make ``module`` compute with quantized layers on ``device``, in place: the
    libraries do it for folders only, and on GPUs only, though there are kernels."""
    if quantization == "fp8":
        from torchao.quantization import Float8WeightOnlyConfig, quantize_

        quantize_(
            module,
            Float8WeightOnlyConfig(),
            lambda layer, path: is_quantized_layer(path, layer),
        )
        return
    import bitsandbytes

    for name, layer in list(module.named_modules()):
        if not is_quantized_layer(name, layer):
            continue
        sizes: Any = (layer.in_features, layer.out_features, layer.bias is not None)
        weight = layer.weight.data
        if quantization == "nf4":
            quantized = bitsandbytes.nn.Linear4bit(
                *sizes, quant_type="nf4", compute_dtype=weight.dtype
            )
            quantized.weight = bitsandbytes.nn.Params4bit(
                weight,
                requires_grad=False,
                quant_type="nf4",
                compress_statistics=False,
            )
        else:
            quantized = bitsandbytes.nn.Linear8bitLt(*sizes, has_fp16_weights=False)
            quantized.weight = bitsandbytes.nn.Int8Params(
                weight, requires_grad=False, has_fp16_weights=False
            )
        quantized.bias = layer.bias
        parent, _, last = name.rpartition(".")
        setattr(module.get_submodule(parent), last, quantized.to(device))


def quiet_bitsandbytes() -> None:
    """It warns at each forward of each layer in 8 bits that it casts bfloat16."""
    logging.getLogger("bitsandbytes.autograd").setLevel(logging.ERROR)


def check_quantization(quantization: Quantization, device: torch.device) -> None:
    """BadSetting where this machine cannot do ``quantization``."""
    if quantization == "fp8":
        _check_torchao()
        if not has_fp8(device):
            raise BadSetting(
                "FLUX_QUANTIZATION='fp8': needs an NVIDIA GPU of the Ada, Hopper or a "
                "later generation; take int8 or nf4"
            )
    elif quantization != "none":
        _check_bitsandbytes(quantization, device)


def _check_torchao() -> None:
    try:
        import torchao  # noqa: F401
    except ImportError:
        raise BadSetting(
            "FLUX_QUANTIZATION='fp8': torchao is missing; install it with "
            "'pip install -r requirements-fp8.txt'"
        ) from None


def _check_bitsandbytes(quantization: Quantization, device: torch.device) -> None:
    """Try the kernels on one small layer: what is installed may lack them."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise BadSetting(
            f"FLUX_QUANTIZATION={quantization!r}: bitsandbytes is missing; install it "
            "with 'pip install -r requirements.txt'"
        )
    try:
        layer = torch.nn.Sequential(torch.nn.Linear(64, 64, dtype=torch.bfloat16))
        quantize(layer, quantization, device)
        quiet_bitsandbytes()
        layer(torch.ones(1, 64, dtype=torch.bfloat16, device=device))
    except (ImportError, RuntimeError, AttributeError, NotImplementedError) as error:
        raise BadSetting(
            f"FLUX_QUANTIZATION={quantization!r}: the installed bitsandbytes cannot do "
            f"it on this machine's {device.type} ({type(error).__name__}); take none"
        ) from error
