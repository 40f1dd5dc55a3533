"""LoRAs that lie at layers of blocks do what they do as hooks; those beside, too."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from flux_api.core import Lora
from flux_api.loading.lora_room import close_room, make_room
from flux_api.loading.loras import Adapters
from tests.support.lora_schemes import WEIGHT, Writer


def outputs(transformer, paths):
    """What each of the layers at ``paths`` makes of the same input."""
    made = {}
    for path in paths:
        layer = transformer.get_submodule(path)
        torch.manual_seed(0)
        with torch.no_grad():
            made[path] = layer(torch.randn(3, layer.in_features))
    return made


@pytest.fixture
def bench(tmp_path):
    """A transformer, the layers that LoRAs ``a`` of rank 1 and ``b`` change, in its
    blocks and beside them, and what puts them on."""
    writer = Writer("flux1")
    transformer = writer.module.eval()
    for name, rank in (("a", 1), ("b", 3)):
        made = writer.write(lambda path: f"transformer.{path}", rank=rank)
        made.save(tmp_path / f"{name}.safetensors")
    files = {name: tmp_path / f"{name}.safetensors" for name in "ab"}
    adapters = Adapters(SimpleNamespace(transformer=transformer), {}, files.get)
    return transformer, made.added, adapters


def test_layers_in_blocks_and_beside_them_change_as_by_hooks_alone(bench):
    transformer, paths, adapters = bench
    loras = (Lora("a", WEIGHT), Lora("b", -0.5))
    plain = outputs(transformer, paths)
    adapters.apply(loras)
    expected = outputs(transformer, paths)
    assert not any(torch.equal(plain[path], expected[path]) for path in paths)
    adapters.apply(())
    room = make_room(transformer, transformer.transformer_blocks)
    adapters.apply(loras)
    assert not room.overflows
    for path, made in outputs(transformer, paths).items():
        assert torch.allclose(made, expected[path], rtol=1e-4, atol=1e-5), path
    adapters.apply(())
    for path, made in outputs(transformer, paths).items():
        assert torch.equal(made, plain[path]), path
    close_room(transformer)
    modules = transformer.modules()
    assert not any(module._forward_hooks for module in modules)


def test_zeros_that_a_graph_is_made_with_change_nothing(bench):
    transformer, paths, _ = bench
    plain = outputs(transformer, paths)
    make_room(transformer, transformer.transformer_blocks).hold_zeros()
    for path, made in outputs(transformer, paths).items():
        assert torch.equal(made, plain[path]), path
