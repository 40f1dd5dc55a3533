"""A set in memory: what becomes of it where it cannot leave the device."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from flux_api.core import Lora
from flux_api.loading import loaded_set
from flux_api.loading.model_sets import ModelSets
from flux_api.loading.placement import Placement
from flux_api.models.catalog import MODEL_INFO
from flux_api.models.sources import File, Folder


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


def test_a_lora_of_the_set_is_fetched_as_its_weights_are(monkeypatch, tmp_path):
    """Also where no task has it by itself: with what shows life, and once."""
    pencil = File(Folder(tmp_path), "pencil.safetensors")
    info = replace(MODEL_INFO["tiny"], lora_files={"pencil": pencil})
    sets = ModelSets({"tiny": info}, lambda *_: Placement(torch.device("cpu")))
    loaded, said, asked = sets.use("tiny", print), [], []
    transformer = loaded.load("generate", (), print).pipeline.transformer
    name, layer = next(
        (name, part)
        for name, part in transformer.named_modules()
        if name.endswith("to_q")
    )

    def fetch(file, report):
        asked.append(file)
        report("downloading")
        up, down = torch.ones(layer.out_features, 1), torch.ones(1, layer.in_features)
        tensors = {"lora_A": down, "lora_B": up}
        path = tmp_path / file.name
        save_file(
            {f"transformer.{name}.{k}.weight": t for k, t in tensors.items()}, path
        )
        return path

    monkeypatch.setattr(loaded_set, "fetch_file", fetch)
    for weight in (1.0, 0.5):
        done = loaded.load("generate", (Lora("pencil", weight),), said.append)
        assert len(done.lora_stamps) == 1
    assert asked == [pencil]
    assert said.count("downloading") == 1
