"""Which checkpoints of a set are on the device, wait in the host's memory, or go."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch

from flux_api.loading.host_copy import HostCopy, bring
from flux_api.loading.placement import Placement
from flux_api.models.sources import Source


class Residence:
    """The checkpoints that ``placement`` has room for, the least recently used leaving
    first. What they have in common, ``shared`` by name, is never moved."""

    def __init__(self, placement: Placement, shared: tuple[str, ...]) -> None:
        self._placement, self._shared = placement, shared
        # Those on the device, the least recently used first.
        self._on_device: OrderedDict[Source, list[torch.nn.Module]] = OrderedDict()
        self._copies: dict[Source, list[HostCopy]] = {}
        self.common: dict[str, Any] = {}
        """What was in common with the one that was used last."""

    def make_room(self, source: Source) -> list[Source]:
        """Have room for ``source`` where it is to be used. Gives those that there is no
        memory for any more: drop them."""
        others = [other for other in self._on_device if other != source]
        offloads = self._placement.offloads
        most = self._placement.copies if offloads else self._placement.resident
        surplus = [] if most is None else others[: max(0, len(others) + 1 - most)]
        if offloads:
            # They move by themselves, and are in the host's memory all the time.
            for other in surplus:
                del self._on_device[other]
            return surplus
        return [other for other in surplus if not self._park(other)]

    def enter(self, source: Source, parts: Mapping[str, Any]) -> None:
        """Have ``source`` on the device; ``parts`` are its components by name, loaded
        there or left before. torch.OutOfMemoryError where it does not fit."""
        if source not in self._on_device and source in self._copies:
            bring(self._copies[source])
        self.common = {name: parts[name] for name in self._shared}
        self._on_device[source] = [
            part
            for name, part in parts.items()
            if isinstance(part, torch.nn.Module)
            and name not in self._shared
            and not self._placement.waits(name)
        ]
        self._on_device.move_to_end(source)

    def _park(self, source: Source) -> bool:
        """Whether ``source`` left for the host's memory; else it is to be dropped."""
        modules = self._on_device.pop(source)
        if source not in self._copies:
            most = self._placement.copies
            if most is not None and len(self._copies) >= most:
                return False
            device = self._placement.device
            self._copies[source] = [HostCopy(module, device) for module in modules]
        for copy in self._copies[source]:
            copy.leave()
        return True
