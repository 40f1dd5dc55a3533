"""Where a set's weights lie, and in which precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import diffusers
import torch

from flux_api.errors import BadSetting
from flux_api.loading.activations import TEXT_PARTS
from flux_api.loading.offloading import (
    is_module,
    modules_of,
    offload_groups,
    offload_of,
    offload_sequentially,
    offload_texts,
    offload_whole,
    once,
)
from flux_api.loading.packed import is_packed
from flux_api.loading.quantization import (
    QUANTIZED,
    SMALL,
    check_quantization,
    quantize,
)
from flux_api.settings import Offload, Quantization

# What else may be moved than weights of the model's own data type. Text encoders that
# come by themselves are not quantized.
_OFFLOADS: dict[Quantization, tuple[Offload, ...]] = {
    "nf4": ("none", "text", "model"),
    "int8": ("none", "text"),
    "fp8": ("none", "text", "model"),
}
_BY_LAYER = {
    "sequential": offload_sequentially,
    "group": offload_groups,
    "text": offload_texts,
}


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
        parts = modules_of(pipeline)
        if self.offload == "model":
            offload_whole(parts, self.device)
        elif self.offload != "none":
            once(parts, self.device, _BY_LAYER[self.offload])

    def release(self, pipeline: Any) -> None:
        """After a picture, finished or not: what was moved to the device leaves it."""
        for part in modules_of(pipeline).values():
            if (hook := offload_of(part)) is not None:
                hook.leave()

    def settle(self, pipeline: Any) -> None:
        """Bring freshly loaded parts of ``pipeline`` to where they stay."""
        if self.offload == "none":
            pipeline.to(self.device)
        elif self.offload == "text":
            for name, part in pipeline.components.items():
                # 8 bits are there already, and refuse to be moved.
                movable = not getattr(part, "is_loaded_in_8bit", False)
                if is_module(part) and movable and not self.waits(name):
                    part.to(self.device)

    def finish(self, parts: Mapping[str, Any]) -> None:
        """What is left to do with freshly loaded ``parts``."""
        if self.device.type == "cpu" and self.quantization != "none":
            for name in QUANTIZED:
                part = parts.get(name)
                if not is_module(part) or is_packed(part):
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
    of 8 bits a second copy on the GPU; torchao's tensors, of a kind of their own, find
    no place in pinned memory, where single layers wait."""
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
