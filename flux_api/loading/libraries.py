"""What libraries read when they are imported: set before torch and diffusers are."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from flux_api.models.info import COMPONENTS, ModelInfo
from flux_api.models.sources import Folder
from flux_api.settings import Settings

SPIN_COUNT = "1000"
"""How often a CPU thread that waits for the others looks again before it sleeps. With
libgomp's own 300,000 it takes the core from those that it waits for on a busy machine;
with none it sleeps at every wait, which an idle machine pays for."""


def prepare_libraries(settings: Settings, models: Mapping[str, ModelInfo]) -> None:
    """Call it before the first import of torch, in the process that makes pictures."""
    if "OMP_WAIT_POLICY" not in os.environ:
        # libgomp reads it when torch is imported; benchmarks/first_picture.py
        # compares it with other values, idle and busy.
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    if settings.performance != "exact":
        # A temporary folder, the default, is gone with the container.
        compiled = str(settings.state_folder / "compiled")
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", compiled)
    _keep_bitsandbytes_out(settings, models)


def _keep_bitsandbytes_out(settings: Settings, models: Mapping[str, ModelInfo]) -> None:
    """diffusers and peft import bitsandbytes wherever they find it, and it looks for
    kernels on the Hub: None in its place while nothing can ask for it."""
    import torch

    automatic = settings.quantization is None and settings.memory == "auto"
    asked = {settings.quantization, *(info.quantization for info in models.values())}
    if asked & {"nf4", "int8"} or any(map(_is_packed, models.values())):
        return
    if not (automatic and torch.cuda.is_available()):
        sys.modules.setdefault("bitsandbytes", None)  # type: ignore[arg-type]


def _is_packed(info: ModelInfo) -> bool:
    """Whether a folder on this machine holds quantized weights."""
    # It imports the Hub's client, which takes a while.
    from flux_api.models.hub import is_packed_folder, present_folder

    folders = [present_folder(source) for source in info.sources]
    inner = [path / name for path in folders if path for name in COMPONENTS]
    parts = info.components.values()
    own = [part.path for part in parts if isinstance(part, Folder)]
    return any(map(is_packed_folder, [*inner, *own]))
