"""Where a set's weights lie, and in which precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import diffusers
import torch
import transformers
from diffusers.hooks import apply_group_offloading

from flux_api.config import BadSetting, Offload, Quantization

# CLIP and the VAE are small, and a VAE shows rounding.
_QUANTIZED = ("transformer", "text_encoder", "text_encoder_2", "prompt_upsampler")
_SMALL = ("CLIPTextModel",)
_MARK = "_flux_api_offloaded"

Library = Literal["diffusers", "transformers"]


@dataclass(frozen=True, slots=True)
class Placement:
    """How weights are loaded on ``device`` and which of them stay there."""

    device: torch.device
    quantization: Quantization = "none"
    offload: Offload = "none"

    @property
    def offloads(self) -> bool:
        """Whether pipelines move their own parts, one picture at a time."""
        return self.offload != "none"

    @property
    def dtype(self) -> torch.dtype:
        """The data type of weights: a CPU computes fastest in float32."""
        return torch.float32 if self.device.type == "cpu" else torch.bfloat16

    def dtypes(self, overrides: Mapping[str, str]) -> dict[str, torch.dtype]:
        """The data type of each component, by its name or "default"."""
        own = {name: getattr(torch, word) for name, word in overrides.items()}
        return {"default": self.dtype} | own

    def place(self, pipeline: Any) -> None:
        """Make ``pipeline``, whose parts other pipelines may share, the one that
        moves them."""
        if self.offload == "model":
            pipeline.enable_model_cpu_offload(device=self.device)
        elif self.offload == "sequential":
            self._once(pipeline, _offload_sequentially)
        elif self.offload == "group":
            self._once(pipeline, _offload_groups)

    def _once(self, pipeline: Any, offload: Any) -> None:
        """These ways hook the parts for good: once for all pipelines over them."""
        parts = [p for p in pipeline.components.values() if _is_module(p)]
        if not any(getattr(part, _MARK, False) for part in parts):
            offload(pipeline, self.device)
            for part in parts:
                setattr(part, _MARK, True)

    def pipeline_quantization(
        self, index: Mapping[str, Any], given: Mapping[str, Any]
    ) -> Any:
        """The quantization of a classic pipeline's components as its ``index`` lists
        them, less those that are ``given``; None for none."""
        mapping = {
            name: self._config(index[name][0])
            for name in _QUANTIZED
            if name in index and name not in given and index[name][1] not in _SMALL
        }
        if self.quantization == "none" or not mapping:
            return None
        return diffusers.PipelineQuantizationConfig(quant_mapping=mapping)

    def quantization_of(self, name: str, kind: type) -> Any:
        """The quantization of one component of class ``kind``; None for none."""
        if self.quantization == "none" or name not in _QUANTIZED:
            return None
        library = kind.__module__.partition(".")[0]
        return self._config("diffusers" if library == "diffusers" else "transformers")

    def _config(self, library: Library) -> Any:
        module: Any = diffusers if library == "diffusers" else transformers
        if self.quantization == "nf4":
            return module.BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_compute_dtype=self.dtype,
            )
        if self.quantization == "int8":
            return module.BitsAndBytesConfig(load_in_8bit=True)
        if self.quantization == "fp8":
            from torchao.quantization import Float8WeightOnlyConfig

            return module.TorchAoConfig(Float8WeightOnlyConfig())
        return None


def check_placement(
    quantization: Quantization, offload: Offload, device: torch.device
) -> None:
    """BadSetting where this machine cannot do what was asked for."""
    if offload != "none" and device.type == "cpu":
        raise BadSetting(
            f"FLUX_OFFLOAD={offload!r}: there is no GPU to keep free; leave it out"
        )
    if quantization == "fp8":
        _check_torchao()
        if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 9):
            raise BadSetting(
                "FLUX_QUANTIZATION='fp8': needs a GPU of the Ada, Hopper or a later "
                "generation; take int8 or nf4"
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
    try:
        import bitsandbytes

        if quantization == "nf4":
            layer = bitsandbytes.nn.Linear4bit(
                64, 64, quant_type="nf4", compute_dtype=torch.float32
            )
        else:
            layer = bitsandbytes.nn.Linear8bitLt(64, 64, has_fp16_weights=False)
        layer.to(device)(torch.ones(1, 64, device=device))
    except (ImportError, RuntimeError, AttributeError, NotImplementedError) as error:
        raise BadSetting(
            f"FLUX_QUANTIZATION={quantization!r}: bitsandbytes cannot do it on this "
            f"machine's {device.type} ({type(error).__name__}); leave it out or use "
            f"a CUDA GPU"
        ) from error


def _offload_sequentially(pipeline: Any, device: torch.device) -> None:
    pipeline.enable_sequential_cpu_offload(device=device)


def _offload_groups(pipeline: Any, device: torch.device) -> None:
    """Layer by layer, the next one on its way while one computes; the VAE stays."""
    streams = device.type == "cuda"
    for name, part in pipeline.components.items():
        if not _is_module(part):
            continue
        if name == "vae":
            part.to(device)
            continue
        apply_group_offloading(
            part,
            onload_device=device,
            offload_type="leaf_level",
            use_stream=streams,
            record_stream=streams,
        )


def _is_module(part: Any) -> bool:
    return isinstance(part, torch.nn.Module)
