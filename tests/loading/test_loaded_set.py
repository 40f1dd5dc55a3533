"""A set in memory: what becomes of it where it cannot leave the device."""

from __future__ import annotations

import pytest
import torch

from flux_api.loading import loaded_set
from flux_api.loading.model_sets import ModelSets
from flux_api.loading.placement import Placement
from flux_api.models.catalog import MODEL_INFO


def test_a_set_that_cannot_leave_whole_stays_whole(monkeypatch):
    """Kinds of weights that are not known are copied as they leave, which may fail."""
    away = []

    class Copy:
        def __init__(self, module, device):
            self._module = module

        def leave(self):
            if away:
                raise MemoryError
            away.append(self._module)

        def come(self):
            if self._module in away:
                away.remove(self._module)

    monkeypatch.setattr(loaded_set, "HostCopy", Copy)
    sets = ModelSets(MODEL_INFO, lambda *_: Placement(torch.device("cpu")))
    loaded = sets.use("tiny", print)
    loaded.load("generate", (), print)
    with pytest.raises(MemoryError):
        loaded.rest()
    assert not away
    assert not loaded.rests
