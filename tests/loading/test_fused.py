"""A set's own LoRAs as part of the weights, and out of them again to the last bit."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch

from flux_api.core import Lora
from flux_api.loading import fused
from flux_api.loading.deltas import Change
from flux_api.loading.loras import Adapters
from tests.loading.test_lora_schemes import CASES
from tests.support.lora_schemes import WEIGHT, Writer
from tests.support.tiny_sets import write_lora

OWN = (Lora("own", WEIGHT),)
FORMS = [(f, scheme) for f, component, scheme in CASES if component == "transformer"]


class Bench:
    """A transformer whose set has a LoRA of its own, in the ``scheme`` of some trainer,
    and another that a request may ask for."""

    def __init__(self, folder, family="flux1", scheme="peft"):
        writer = Writer(family)
        self.transformer = writer.module.eval()
        self.layers = writer.layers
        writer.base = self.state()
        self.made = CASES[family, "transformer", scheme](writer)
        self.made.save(folder / "own.safetensors")
        other = write_lora(folder / "other.safetensors", family=family, seed=5)
        self.adapters = Adapters(
            SimpleNamespace(transformer=self.transformer),
            {"own": folder / "own.safetensors"},
            {"other": other}.get,
        )

    def state(self):
        return {k: v.clone() for k, v in self.transformer.state_dict().items()}

    def outputs(self):
        """What each layer that the LoRA changes makes of the same input."""
        made = {}
        for path in self.made.added:
            layer = self.transformer.get_submodule(path)
            torch.manual_seed(0)
            with torch.no_grad():
                made[path] = layer(torch.randn(3, layer.weight.shape[-1]))
        return made

    def hooked(self):
        """The layers to whose output something is added."""
        modules = self.transformer.named_modules()
        return {path for path, module in modules if module._forward_hooks}

    def is_base(self, base):
        """Whether the weights are those of ``base`` to the last bit."""
        return all(torch.equal(v, base[k]) for k, v in self.state().items())


@pytest.mark.parametrize(("family", "scheme"), FORMS)
def test_fused_they_do_what_they_do_beside_the_weights(tmp_path, family, scheme):
    bench = Bench(tmp_path, family, scheme)
    base, plain = bench.state(), bench.outputs()
    bench.adapters.apply(OWN)
    beside = bench.outputs()
    assert bench.hooked() >= bench.made.added.keys()
    bench.adapters.fuse()
    inside = bench.outputs()
    for path, wanted in beside.items():
        assert torch.allclose(inside[path], wanted, rtol=1e-4, atol=1e-4), path
        assert not torch.allclose(plain[path], wanted, rtol=1e-3), path
    # Norms and layers with a new bias keep their hook.
    fits = bench.layers.keys() & bench.made.added.keys() - bench.made.biases.keys()
    assert bench.hooked() == (bench.made.added.keys() | bench.made.biases) - fits
    for path in fits:
        weight = base[f"{path}.weight"] + WEIGHT * bench.made.added[path]
        now = bench.state()[f"{path}.weight"]
        assert torch.allclose(now, weight, rtol=1e-4, atol=1e-4), path
    bench.adapters.rest()
    assert bench.is_base(base)
    assert not bench.hooked()


def test_another_request_gets_the_own_weights_and_they_are_fused_no_more(tmp_path):
    bench = Bench(tmp_path)
    base = bench.state()
    bench.adapters.apply(OWN)
    bench.adapters.fuse()
    assert not bench.is_base(base)
    bench.adapters.apply((*OWN, Lora("other", 1.0)))
    assert bench.is_base(base)
    bench.adapters.apply(OWN)
    bench.adapters.fuse()
    assert bench.is_base(base), "turns would cost a copy of the weights each"
    bench.adapters.rest()
    bench.adapters.apply(OWN)
    bench.adapters.fuse()
    assert not bench.is_base(base)


@pytest.mark.parametrize("lacking", ["host", "device"])
def test_without_memory_they_stay_beside_the_weights(
    tmp_path, monkeypatch, caplog, lacking
):
    monkeypatch.setattr(logging.getLogger("flux_api"), "propagate", True)
    bench = Bench(tmp_path)
    base = bench.state()
    bench.adapters.apply(OWN)
    beside, hooked = bench.outputs(), bench.hooked()
    size = sum(bench.layers[path].weight.nbytes for path in bench.made.added)
    if lacking == "host":
        monkeypatch.setattr(fused, "free_host_bytes", lambda: 2 * size - 1)
    else:
        fail_after(monkeypatch, 3, torch.OutOfMemoryError())
    with caplog.at_level(logging.INFO, "flux_api.loading"):
        bench.adapters.fuse()
    assert "LoRAs stay beside the weights: " in caplog.text
    assert bench.is_base(base)
    assert bench.hooked() == hooked
    assert all(torch.equal(v, beside[k]) for k, v in bench.outputs().items())


def test_a_failure_in_the_middle_leaves_no_layer_changed_twice(tmp_path, monkeypatch):
    bench = Bench(tmp_path)
    base = bench.state()
    bench.adapters.apply(OWN)
    beside = bench.outputs()
    fail_after(monkeypatch, 3, ValueError("of a library"))
    with pytest.raises(ValueError, match="of a library"):
        bench.adapters.fuse()
    assert bench.is_base(base)
    assert all(torch.equal(v, beside[k]) for k, v in bench.outputs().items())


def fail_after(monkeypatch, count, error):
    """Have ``error`` raised once ``count`` differences were computed."""
    computed, difference = [], Change.difference

    def fail(change, weight):
        if len(computed) == count:
            raise error
        computed.append(change)
        return difference(change, weight)

    monkeypatch.setattr(Change, "difference", fail)
