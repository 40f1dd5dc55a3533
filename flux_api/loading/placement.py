"""Where a set's weights lie, and in which precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import diffusers
import torch
from accelerate import cpu_offload, cpu_offload_with_hook
from diffusers.hooks import apply_group_offloading

from flux_api.errors import BadSetting
from flux_api.loading.activations import TEXT_PARTS
from flux_api.loading.host_copy import pin
from flux_api.loading.packed import is_packed
from flux_api.loading.quantization import (
    QUANTIZED,
    SMALL,
    check_quantization,
    quantize,
)
from flux_api.settings import Offload, Quantization

Parts = Mapping[str, torch.nn.Module]
# Has parts come when they are needed; gives the hooks that send them away again.
_Offloading = Callable[[Parts, torch.device], list[Any]]
_MARK, _HOOKS = "_flux_api_offloaded", "_flux_api_hooks"
# What else may be moved than weights of the model's own data type. Text encoders that
# come by themselves are not quantized.
_OFFLOADS: dict[Quantization, tuple[Offload, ...]] = {
    "nf4": ("none", "text", "model"),
    "int8": ("none", "text"),
}
_MODULAR_ORDER = (*TEXT_PARTS, "transformer", "vae")


@dataclass(frozen=True, slots=True)
class Placement:
    """How weights are loaded on ``device`` and which of them stay there; ``tiling``
    makes the VAE work in tiles where a picture is larger than one.

    Of a set's checkpoints ``resident`` stay on the device at once, and ``copies`` may
    be kept in the host's memory; None for all. ``number`` is the data type of weights
    on a device that is not the CPU."""

    device: torch.device
    quantization: Quantization = "none"
    offload: Offload = "none"
    tiling: bool = False
    resident: int | None = None
    copies: int | None = None
    number: torch.dtype = torch.bfloat16

    @property
    def offloads(self) -> bool:
        """Whether pipelines move their own parts, one picture at a time."""
        return self.offload not in ("none", "text")

    def waits(self, name: str) -> bool:
        """Whether the component ``name`` is in the host's memory until it is needed."""
        return self.offloads or (self.offload == "text" and name in TEXT_PARTS)

    @property
    def dtype(self) -> torch.dtype:
        """The data type of weights: a CPU computes fastest in float32, but who
        quantizes there is short of memory."""
        wide = self.device.type == "cpu" and self.quantization == "none"
        return torch.float32 if wide else self.number

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
        elif self.offload == "text":
            self._once(pipeline, _offload_texts)

    def release(self, pipeline: Any) -> None:
        """After a picture, finished or not: what was moved to the device leaves it."""
        if not is_modular(pipeline):
            pipeline.maybe_free_model_hooks()
        for hook in getattr(pipeline, _HOOKS, ()):
            hook.offload()

    def _once(self, pipeline: Any, offload: _Offloading) -> None:
        """Run ``offload`` for the components of ``pipeline`` that no other pipeline
        over them has run it for: its hooks are permanent."""
        fresh = {
            name: part
            for name, part in pipeline.components.items()
            if _is_module(part) and not hasattr(part, _MARK)
        }
        if fresh:
            setattr(pipeline, _HOOKS, offload(fresh, self.device))
        for part in fresh.values():
            setattr(part, _MARK, True)

    def settle(self, pipeline: Any) -> None:
        """Bring freshly loaded parts of ``pipeline`` to where they stay."""
        if self.offload == "none":
            pipeline.to(self.device)
        elif self.offload == "text":
            for name, part in pipeline.components.items():
                # 8 bits are there already, and refuse to be moved.
                movable = not getattr(part, "is_loaded_in_8bit", False)
                if _is_module(part) and movable and not self.waits(name):
                    part.to(self.device)

    def finish(self, parts: Mapping[str, Any]) -> None:
        """What is left to do with freshly loaded ``parts``."""
        if self.device.type == "cpu" and self.quantization != "none":
            for name in QUANTIZED:
                part = parts.get(name)
                if not _is_module(part) or is_packed(part):
                    continue
                if type(part).__name__ not in SMALL and not self._streams(name):
                    quantize(part, self.quantization, self.device)

    def load_quantization(self, name: str) -> Quantization:
        """What the loaders quantize the component ``name`` to: they cannot on a CPU,
        see :meth:`finish`."""
        if self.device.type == "cpu" or self._streams(name):
            return "none"
        return self.quantization

    def _streams(self, name: str) -> bool:
        """Whether it comes layer by layer, as only whole numbers of weights can."""
        return self.offload == "text" and name in TEXT_PARTS


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


def _offload_modular(parts: Parts, device: torch.device) -> list[Any]:
    """What classic pipelines do by themselves: each part comes when it is called, and
    sends the one before it away."""
    return _take_turns(parts, device, _MODULAR_ORDER)


def _take_turns(
    parts: Parts, device: torch.device, names: tuple[str, ...]
) -> list[Any]:
    hooks: list[Any] = []
    for name in names:
        if name in parts:
            before = hooks[-1] if hooks else None
            _, hook = cpu_offload_with_hook(
                parts[name].to("cpu"), device, prev_module_hook=before
            )
            hooks.append(hook)
    return hooks


def _offload_sequentially(parts: Parts, device: torch.device) -> list[Any]:
    for part in parts.values():
        # Freshly loaded, the VAE is on the device.
        cpu_offload(part.to("cpu"), device, offload_buffers=bool(part._parameters))
    return []


def _offload_groups(parts: Parts, device: torch.device) -> list[Any]:
    """Layer by layer; the VAE stays. A prompt upsampler, which reaches for weights of
    layers that it does not call, comes whole."""
    whole = ("prompt_upsampler",)
    for name, part in parts.items():
        if name == "vae":
            part.to(device)
        elif name not in whole:
            _stream(part, device)
    return _take_turns(parts, device, whole)


def _offload_texts(parts: Parts, device: torch.device) -> list[Any]:
    """Text encoders come for a prompt that was not read before. They come layer by
    layer, so that the card needs no room for them; a prompt upsampler, which goes
    through all of its layers for each word, whole, and so do those beside it."""
    if "prompt_upsampler" in parts:
        return _take_turns(parts, device, TEXT_PARTS)
    for name in TEXT_PARTS:
        if name in parts:
            _stream(parts[name], device)
    return []


def _stream(part: torch.nn.Module, device: torch.device) -> None:
    """Have each layer come when it is needed, the next one on its way meanwhile."""
    streams = device.type == "cuda"
    if streams:
        pin(part)
    apply_group_offloading(
        part,
        onload_device=device,
        offload_type="leaf_level",
        use_stream=streams,
        record_stream=streams,
    )


def _is_module(part: Any) -> TypeGuard[torch.nn.Module]:
    return isinstance(part, torch.nn.Module)
