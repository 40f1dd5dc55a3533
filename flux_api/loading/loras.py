"""LoRAs on a pipeline: applied for a request, gone afterwards."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch.utils.hooks import RemovableHandle

from flux_api.core import Lora
from flux_api.loading.deltas import Change
from flux_api.loading.lora_module import LayerChange
from flux_api.loading.lora_reader import read_lora
from flux_api.models.lora_files import check_lora, refusal

logger = logging.getLogger(__name__)

# What a LoRA may change.
COMPONENTS = ("transformer", "text_encoder", "text_encoder_2")


class Adapters:
    """The LoRAs on the components behind ``pipeline``. ``own`` are the set's, by name
    and file: read once and kept. ``find`` looks up the others, which stay only as long
    as requests ask for them."""

    def __init__(
        self,
        pipeline: Any,
        own: Mapping[str, Path],
        find: Callable[[str], Path | None],
    ) -> None:
        parts = {name: getattr(pipeline, name, None) for name in COMPONENTS}
        self._components = {
            name: part
            for name, part in parts.items()
            if isinstance(part, torch.nn.Module)
        }
        self._own, self._find = dict(own), find
        self._applied: tuple[Lora, ...] = ()
        self._hooks: list[RemovableHandle] = []
        self._read = {name: self._open(name, path) for name, path in own.items()}

    def apply(self, loras: tuple[Lora, ...]) -> None:
        """Work with exactly ``loras`` from now on. InvalidRequest where a file cannot
        be used; none are applied then."""
        # Weight 0 is off, and no reason to read a file.
        loras = tuple(lora for lora in loras if lora.adapter_weight != 0)
        if loras == self._applied:
            return
        self.reset(keep={lora.name for lora in loras})
        for lora in loras:
            if lora.name not in self._read:
                path = self._find(lora.name)
                if path is None:
                    raise refusal(lora.name, "is gone")
                self._read[lora.name] = self._open(lora.name, path)
        changes: dict[torch.nn.Linear, list[tuple[Change, float]]] = defaultdict(list)
        for lora in loras:
            for one in self._read[lora.name]:
                changes[one.layer].append((one.change, lora.adapter_weight))
        for layer, weighed in changes.items():
            add = partial(_add, weighed)
            self._hooks.append(layer.register_forward_hook(add))
        self._applied = loras

    def reset(self, keep: set[str] | frozenset[str] = frozenset()) -> None:
        """As it was before any request; the files in ``keep`` need not be read anew."""
        self._applied = ()
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        kept = keep | self._own.keys()
        self._read = {n: read for n, read in self._read.items() if n in kept}

    def _open(self, name: str, path: Path) -> list[LayerChange]:
        check_lora(path, name)
        try:
            return read_lora(path, name, self._components)
        except (torch.OutOfMemoryError, torch.AcceleratorError):
            raise
        # A file cut short meanwhile; number formats that torch lacks.
        except (OSError, SafetensorError, RuntimeError, TypeError, ValueError) as error:
            logger.warning("LoRA %s: %s", name, error)
            raise refusal(name, "cannot be read") from None


def _add(
    changes: list[tuple[Change, float]],
    layer: torch.nn.Linear,
    inputs: tuple[torch.Tensor, ...],
    output: torch.Tensor,
) -> torch.Tensor:
    # Each starts from the layer's own output, whatever the others add.
    added = [change(layer, inputs[0], output) * weight for change, weight in changes]
    return sum(added, output)
