"""LoRAs on a pipeline: applied for a request, gone afterwards."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch.utils.hooks import RemovableHandle

from flux_api.core import Lora
from flux_api.loading.deltas import Change, Weighed
from flux_api.loading.fused import FusedLayers
from flux_api.loading.lora_cache import LoraCache, ReadLora, Stamp, stamp_of
from flux_api.loading.lora_reader import read_lora
from flux_api.loading.lora_room import LoraRoom, room_in
from flux_api.models.lora_files import check_lora, refusal

logger = logging.getLogger(__name__)

Changes = dict[torch.nn.Module, list[tuple[Change, float]]]

# What a LoRA may change.
COMPONENTS = ("transformer", "text_encoder", "text_encoder_2")


class Adapters:
    """The LoRAs on the components behind ``pipeline``. ``own`` are the set's, by name
    and file: read once and kept. ``find`` looks up the others, of which ``kept_bytes``
    stay in the host's memory when no request asks for them; on the device are those
    alone that are on."""

    def __init__(
        self,
        pipeline: Any,
        own: Mapping[str, Path],
        find: Callable[[str], Path | None],
        *,
        kept_bytes: int = 0,
    ) -> None:
        parts = {name: getattr(pipeline, name, None) for name in COMPONENTS}
        self._components = {
            name: part
            for name, part in parts.items()
            if isinstance(part, torch.nn.Module)
        }
        self._find = find
        self._cache = LoraCache(kept_bytes)
        self._applied: tuple[tuple[Lora, ReadLora], ...] = ()
        self._fused: FusedLayers | None = None
        self._may_fuse = True
        self._hooks: list[RemovableHandle] = []
        self._own = {name: self._open(name, path) for name, path in own.items()}

    def apply(self, loras: tuple[Lora, ...]) -> None:
        """Work with exactly ``loras`` from now on. InvalidRequest where a file cannot
        be used; none are applied then, unless just these were before: those stay."""
        # Weight 0 is off, and no reason to read a file.
        wanted = tuple(lora for lora in loras if lora.adapter_weight != 0)
        on = tuple(lora for lora, _ in self._applied)
        if wanted == on and all(self._is_current(*one) for one in self._applied):
            return
        # Where others take turns with it, a switch must not cost a copy of the weights.
        self._may_fuse = self._may_fuse and self._fused is None
        before = self._applied
        self._take_off()
        self._cache.trim({lora.name for lora in wanted})
        try:
            self._put_on(tuple((lora, self._read(lora.name)) for lora in wanted))
        except BaseException:
            if wanted == on:
                # Other pictures are in the middle of being drawn with them.
                self._put_on(before)
            raise

    def fuse(self) -> None:
        """Have those that are on become part of the transformer's weights, for as long
        as they stay on; not again once others were asked for meanwhile."""
        if not self._applied or not self._may_fuse or self._fused is not None:
            return
        changes = _by_layer(self._applied)
        self._fused = FusedLayers(self._components["transformer"], changes)
        self._clear_outputs()
        fused = self._fused.layers
        self._add_to_outputs({k: v for k, v in changes.items() if k not in fused})

    def rest(self) -> None:
        """Nothing is on: the weights are about to move."""
        self._take_off()
        self._may_fuse = True

    def reset(self) -> None:
        """As it was before any request: nothing is on and nothing is kept."""
        self.rest()
        self._cache.clear()

    @property
    def stamps(self) -> tuple[Stamp, ...]:
        """Those of the files that are on: others, once a file is written over."""
        return tuple(read.stamp for _, read in self._applied)

    def _put_on(self, loras: tuple[tuple[Lora, ReadLora], ...]) -> None:
        self._add_to_outputs(_by_layer(loras))
        self._applied = loras

    def _add_to_outputs(self, changes: Changes) -> None:
        room = self._room
        held = set() if room is None else room.take(changes)
        for layer, weighed in changes.items():
            if layer in held:
                continue
            add = partial(_add, weighed)
            self._hooks.append(layer.register_forward_hook(add))

    def _clear_outputs(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        if (room := self._room) is not None:
            room.clear()

    def _take_off(self) -> None:
        self._clear_outputs()
        if self._fused is not None:
            self._fused.restore()
            self._fused = None
        for _, read in self._applied:
            for one in read.changes:
                one.change.leave_device()
        self._applied = ()

    @property
    def _room(self) -> LoraRoom | None:
        return room_in(self._components.get("transformer"))

    def _is_current(self, lora: Lora, read: ReadLora) -> bool:
        return lora.name in self._own or read.is_current

    def _read(self, name: str) -> ReadLora:
        if name in self._own:
            return self._own[name]

        def read() -> ReadLora:
            path = self._find(name)
            if path is None:
                raise refusal(name, "is gone")
            return self._open(name, path)

        return self._cache.get(name, read)

    def _open(self, name: str, path: Path) -> ReadLora:
        check_lora(path, name)
        try:
            # Before it is read: what is written meanwhile is not taken for it.
            stamp = stamp_of(path)
            return ReadLora(path, stamp, read_lora(path, name, self._components))
        except (torch.OutOfMemoryError, torch.AcceleratorError):
            raise
        # A file cut short meanwhile; number formats that torch lacks.
        except (OSError, SafetensorError, RuntimeError, TypeError, ValueError) as error:
            logger.warning("LoRA %s: %s", name, error)
            raise refusal(name, "cannot be read") from None


def _by_layer(loras: Iterable[tuple[Lora, ReadLora]]) -> Changes:
    changes: Changes = defaultdict(list)
    for lora, read in loras:
        for one in read.changes:
            changes[one.layer].append((one.change, lora.adapter_weight))
    return changes


def _add(
    changes: Weighed,
    layer: Any,
    inputs: tuple[torch.Tensor, ...],
    output: torch.Tensor,
) -> torch.Tensor:
    # Each starts from the layer's own output, whatever the others add.
    added = [change(layer, inputs[0], output) * weight for change, weight in changes]
    return sum(added, output)
