"""Where a set's weights lie, and in which precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import diffusers
import torch
from accelerate import cpu_offload, cpu_offload_with_hook
from diffusers.hooks import apply_group_offloading

from flux_api.errors import BadSetting
from flux_api.loading.packed import is_packed
from flux_api.loading.quantization import (
    QUANTIZED,
    SMALL,
    check_quantization,
    quantize,
)
from flux_api.settings import Offload, Quantization

_MARK, _HOOKS = "_flux_api_offloaded", "_flux_api_hooks"
# What else may be moved than weights of the model's own data type.
_OFFLOADS: dict[Quantization, tuple[Offload, ...]] = {
    "nf4": ("none", "model"),
    "int8": ("none",),
}
_MODULAR_ORDER = ("prompt_upsampler", "text_encoder", "transformer", "vae")


@dataclass(frozen=True, slots=True)
class Placement:
    """How weights are loaded on ``device`` and which of them stay there; ``tiling``
    makes the VAE work in tiles where a picture is larger than one."""

    device: torch.device
    quantization: Quantization = "none"
    offload: Offload = "none"
    tiling: bool = False

    @property
    def offloads(self) -> bool:
        """Whether pipelines move their own parts, one picture at a time."""
        return self.offload != "none"

    @property
    def dtype(self) -> torch.dtype:
        """The data type of weights: a CPU computes fastest in float32, but who
        quantizes there is short of memory."""
        wide = self.device.type == "cpu" and self.quantization == "none"
        return torch.float32 if wide else torch.bfloat16

    def dtypes(self, overrides: Mapping[str, str]) -> dict[str, torch.dtype]:
        """The data type of each component, by its name or "default"."""
        own = {name: getattr(torch, word) for name, word in overrides.items()}
        return {"default": self.dtype} | own

    def place(self, pipeline: Any) -> None:
        """Make ``pipeline``, whose parts other pipelines may share, the one that
        moves them."""
        if self.offload == "model" and is_modular(pipeline):
            self._once(pipeline, _offload_modular)
        elif self.offload == "model":
            pipeline.enable_model_cpu_offload(device=self.device)
        elif self.offload == "sequential":
            self._once(pipeline, _offload_sequentially)
        elif self.offload == "group":
            self._once(pipeline, _offload_groups)

    def release(self, pipeline: Any) -> None:
        """After a picture, finished or not: what was moved to the device leaves it."""
        if not is_modular(pipeline):
            pipeline.maybe_free_model_hooks()
        for hook in getattr(pipeline, _HOOKS, ()):
            hook.offload()

    def _once(self, pipeline: Any, offload: Any) -> None:
        """Run ``offload`` once for each component, not for each pipeline over it: its
        hooks are permanent."""
        parts = [p for p in pipeline.components.values() if _is_module(p)]
        if not any(getattr(part, _MARK, False) for part in parts):
            offload(pipeline, self.device)
            for part in parts:
                setattr(part, _MARK, True)

    def finish(self, parts: Mapping[str, Any]) -> None:
        """What is left to do with freshly loaded ``parts``."""
        if self.device.type == "cpu" and self.quantization != "none":
            for name in QUANTIZED:
                part = parts.get(name)
                if not _is_module(part) or is_packed(part):
                    continue
                if type(part).__name__ not in SMALL:
                    quantize(part, self.quantization, self.device)

    @property
    def load_quantization(self) -> Quantization:
        """What the loaders quantize to: they cannot on a CPU, see :meth:`finish`."""
        return "none" if self.device.type == "cpu" else self.quantization


def choose_device() -> torch.device:
    """The accelerator that torch sees, else the CPU."""
    # A build for a GPU knows its kind of accelerator without a driver, too.
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator if accelerator is not None else torch.device("cpu")


def go_together(quantization: Quantization, offload: Offload) -> bool:
    """Whether weights that are stored so can be moved so. bitsandbytes keeps what it
    needs to read 4 bits beside them, where hooks of single layers leave it behind, and
    of 8 bits a second copy on the GPU."""
    return offload in _OFFLOADS.get(quantization, (offload,))


def check_placement(
    quantization: Quantization, offload: Offload, device: torch.device
) -> None:
    """BadSetting where this machine cannot do what was asked for."""
    if offload != "none" and device.type == "cpu":
        raise BadSetting(
            f"FLUX_OFFLOAD={offload!r}: there is no GPU to keep free; leave it out"
        )
    if not go_together(quantization, offload):
        possible = " or ".join(_OFFLOADS[quantization])
        raise BadSetting(
            f"FLUX_OFFLOAD={offload!r}: weights in {quantization} cannot be moved so; "
            f"take {possible}, or FLUX_QUANTIZATION=none"
        )
    check_quantization(quantization, device)


def is_modular(pipeline: Any) -> bool:
    """Whether ``pipeline`` is one of blocks, with another way of being called."""
    return isinstance(pipeline, diffusers.ModularPipeline)


def _offload_modular(pipeline: Any, device: torch.device) -> None:
    """What classic pipelines do by themselves: each part comes when it is called, and
    sends the one before it away."""
    hooks: list[Any] = []
    for name in _MODULAR_ORDER:
        part = getattr(pipeline, name, None)
        if _is_module(part):
            before = hooks[-1] if hooks else None
            _, hook = cpu_offload_with_hook(
                part.to("cpu"), device, prev_module_hook=before
            )
            hooks.append(hook)
    setattr(pipeline, _HOOKS, hooks)


def _offload_sequentially(pipeline: Any, device: torch.device) -> None:
    if not is_modular(pipeline):
        pipeline.enable_sequential_cpu_offload(device=device)
        return
    for part in pipeline.components.values():
        if _is_module(part):
            cpu_offload(part, device, offload_buffers=bool(part._parameters))


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


def _is_module(part: Any) -> TypeGuard[torch.nn.Module]:
    return isinstance(part, torch.nn.Module)
