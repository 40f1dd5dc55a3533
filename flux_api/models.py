"""The model sets as data, and how a request's words choose among them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from flux_api.core import Lora, Mode
from flux_api.errors import InvalidRequest, ModelNotFound

Task = Literal["generate", "edit", "variation", "inpaint"]
"""A mode, or ``inpaint``: an edit with a mask, where a set has a pipeline for it."""


@dataclass(frozen=True, slots=True)
class SizeRules:
    """The sizes that may be asked for, in pixels: each side a multiple of ``multiple``
    from ``minimum`` to ``maximum``."""

    multiple: int = 16
    minimum: int = 64
    maximum: int = 2048
    default: tuple[int, int] = (1024, 1024)

    def __str__(self) -> str:
        return f"multiples of {self.multiple} from {self.minimum} to {self.maximum}"

    def allows(self, side: int) -> bool:
        """Whether ``side`` pixels lie on the grid."""
        return self.minimum <= side <= self.maximum and side % self.multiple == 0

    def fit(self, size: tuple[int, int]) -> tuple[int, int]:
        """The legal size nearest to ``size`` = (width, height) in shape and area."""
        width, height = size
        scale = min(1.0, self.maximum / max(width, height))
        scale = max(scale, min(self.minimum / min(width, height), 1e4))
        return self._snap(width * scale), self._snap(height * scale)

    def _snap(self, side: float) -> int:
        snapped = round(side / self.multiple) * self.multiple
        low = math.ceil(self.minimum / self.multiple) * self.multiple
        return max(low, min(snapped, self.maximum // self.multiple * self.multiple))


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskInfo:
    """How a set does one task.

    ``pipeline`` is a diffusers class. ``guidance_parameter`` is the argument of its
    ``__call__`` that the request's ``guidance_scale`` becomes, None where guidance
    plays no part.
    """

    pipeline: str
    num_inference_steps: int
    guidance_scale: float | None = None
    guidance_parameter: Literal["guidance_scale", "true_cfg_scale"] | None = None
    negative_prompt: bool = False
    strength: float | None = None
    max_images: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """One model set: a family of tasks over one set of weights.

    ``native_size`` is the side in pixels of the square that the model works at,
    whatever is asked for (the picture is scaled), None where it draws any size.
    """

    base_model: str
    tasks: Mapping[Task, TaskInfo]
    loras: tuple[Lora, ...] = ()
    sizes: SizeRules = field(default_factory=SizeRules)
    native_size: int | None = None
    licence: str = ""
    description: str = ""

    def task(self, mode: Mode, *, masked: bool = False) -> TaskInfo:
        """The row for a request; InvalidRequest names what the set cannot do."""
        if masked and "inpaint" not in self.tasks:
            raise InvalidRequest("This model takes no mask.", param="mask")
        name: Task = "inpaint" if masked else mode
        if name not in self.tasks:
            raise InvalidRequest(f"This model does no {name}.", param="model")
        return self.tasks[name]


_TINY = Path(__file__).resolve().parent.parent / "models" / "tiny"

MODEL_INFO: dict[str, ModelInfo] = {
    "tiny": ModelInfo(
        base_model=str(_TINY),
        description="the embedded demo model: draws emoji, runs on any CPU",
        licence="MIT; trained on openly licensed emoji art, see models/tiny/NOTICE",
        native_size=64,
        sizes=SizeRules(multiple=16, minimum=64, maximum=2048, default=(512, 512)),
        tasks={
            "generate": TaskInfo(
                pipeline="FluxPipeline",
                num_inference_steps=12,
                guidance_scale=2.5,
                guidance_parameter="true_cfg_scale",
                negative_prompt=True,
            ),
            "edit": TaskInfo(
                pipeline="FluxKontextPipeline",
                num_inference_steps=12,
                guidance_scale=2.0,
                guidance_parameter="true_cfg_scale",
                negative_prompt=True,
            ),
            "variation": TaskInfo(
                pipeline="FluxImg2ImgPipeline",
                num_inference_steps=16,
                guidance_scale=1.0,
                guidance_parameter="true_cfg_scale",
                negative_prompt=True,
                strength=0.6,
            ),
            "inpaint": TaskInfo(
                pipeline="FluxInpaintPipeline",
                num_inference_steps=16,
                guidance_scale=2.5,
                guidance_parameter="true_cfg_scale",
                negative_prompt=True,
                strength=1.0,
            ),
        },
    ),
}


def find_model(
    models: Mapping[str, ModelInfo], default: str, name: str | None, *, strict: bool
) -> str:
    """The key of the set that ``name`` asks for: itself where it is offered, else the
    default, or ModelNotFound when ``strict``."""
    if name in models:
        return str(name)
    if strict and name:
        raise ModelNotFound(f"The model {name[:64]!r} does not exist.", param="model")
    return default
