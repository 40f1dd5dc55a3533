"""Names of layers against diffusers' own converters, and changes on packed weights."""

from __future__ import annotations

import pytest
import torch
from accelerate import cpu_offload
from diffusers import FluxTransformer2DModel
from diffusers.loaders import single_file_utils
from torch.utils._python_dispatch import TorchDispatchMode

from flux_api.loading.deltas import Kronecker, dense_weight
from flux_api.loading.lora_layers import known_layers
from flux_api.loading.lora_reader import read_lora
from flux_api.loading.quantization import quantize
from flux_api.models.lora_keys import flat
from tests.support import tiny_checkpoints
from tests.support.lora_schemes import Writer, bfl_names, metadata_of

FLUX1_NORMS = [
    f"{attention}.{kind}_norm"
    for block in range(2)
    for kind in ("query", "key")
    for attention in (
        f"double_blocks.{block}.img_attn.norm",
        f"double_blocks.{block}.txt_attn.norm",
        f"single_blocks.{block}.norm",
    )
]


def transformer_of(family):
    """A transformer; FLUX.1's of true width, which is written into the converter."""
    if family == "klein":
        return tiny_checkpoints.flux2_transformer()
    with torch.device("meta"):
        return FluxTransformer2DModel(
            num_layers=2, num_single_layers=2, guidance_embeds=True
        )


@pytest.mark.parametrize("family", ["flux1", "klein"])
def test_names_mean_what_diffusers_converters_make_of_them(family):
    """Each row of each matrix is numbered: where it lands tells what was meant."""
    module = transformer_of(family)
    layers = known_layers(module)
    original, expected = {}, {}
    for number, name in enumerate(bfl_names(family)):
        targets = layers[flat(name)]
        rows = sum(module.get_submodule(t.path).out_features for t in targets)
        matrix = torch.arange(rows).unsqueeze(1) + 100_000 * number
        original[f"{name}.weight"] = matrix
        original[f"{name}.bias"] = matrix.flatten()
        for target in targets:
            parts = [matrix[row] for row in target.rows] or [matrix]
            expected[f"{target.path}.weight"] = torch.cat(parts)
    if family == "klein":
        original = {k: t for k, t in original.items() if k.endswith(".weight")}
    else:
        original |= {f"{name}.scale": torch.ones(1) for name in FLUX1_NORMS}
    kind = "flux" if family == "flux1" else "flux2"
    convert = getattr(
        single_file_utils, f"convert_{kind}_transformer_checkpoint_to_diffusers"
    )
    converted = convert(original)
    for key, matrix in expected.items():
        assert torch.equal(converted[key], matrix), key


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
@pytest.mark.parametrize("kind", ["lora", "lokr", "loha", "dora"])
def test_a_packed_layer_gets_the_same_change(tmp_path, kind, quantization):
    writer = Writer("klein", seed=4)
    options = {} if kind == "dora" else {"kind": kind}
    made = writer.write(lambda name: f"transformer.{name}", only=("to_q",), **options)
    module = writer.module
    quantize(module, quantization, torch.device("cpu"))
    for path in made.added:
        if kind == "dora":
            base = dense_weight(module.get_submodule(path))
            lengths = (base + made.added[path]).norm(dim=1)
            made.tensors[f"transformer.{path}.lora_magnitude_vector"] = lengths * 1.5
            made.added[path] = 1.5 * (base + made.added[path]) - base
    made.save(tmp_path / "a.safetensors")
    changes = read_lora(tmp_path / "a.safetensors", "a", {"transformer": module})
    assert {one.layer for one in changes} == {
        module.get_submodule(path) for path in made.added
    }
    for path, matrix in made.added.items():
        layer = module.get_submodule(path)
        [one] = [change for change in changes if change.layer is layer]
        sample = torch.randn(3, 5, layer.in_features)
        added = one.change(layer, sample, layer(sample))
        assert torch.allclose(added, sample @ matrix.T, atol=0.05, rtol=0.02)


class Largest(TorchDispatchMode):
    """How many bytes the largest tensor takes that is made meanwhile."""

    nbytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.nbytes = max(self.nbytes, made.untyped_storage().nbytes())
        return made


@pytest.mark.parametrize("shape", [(1, 64), (64, 1), (64, 64), (1, 1), (8, 8)])
def test_a_lokr_never_takes_a_matrix_for_each_token(shape):
    """However its two factors share the sides of the layer."""
    first = torch.randn(shape)
    second = torch.randn(64 // shape[0], 64 // shape[1])
    factors = {"lokr_w1": first, "lokr_w2": second}
    change = Kronecker(factors, 2.0, (slice(16, 48),))
    sample = torch.randn(1, 10, 64)
    with Largest() as largest:
        added = change(sample)
    expected = sample @ (2 * torch.kron(first, second)[16:48]).T
    assert torch.allclose(added, expected, atol=1e-3)
    assert largest.nbytes <= 4 * 64 * 64


def test_pefts_loha_has_its_alpha_in_the_metadata(tmp_path):
    writer = Writer("klein", seed=8)
    made = writer.write(lambda name: f"transformer.{name}", kind="loha", only=("to_q",))
    # In the file it is 1.
    made.tensors = {k: t for k, t in made.tensors.items() if not k.endswith(".alpha")}
    made.metadata = metadata_of(peft_type="LOHA", r=2, alpha=3)
    made.save(tmp_path / "a.safetensors")
    found = read_lora(tmp_path / "a.safetensors", "a", {"transformer": writer.module})
    changed = {one.layer: one.change for one in found}
    for path, matrix in made.added.items():
        layer = writer.module.get_submodule(path)
        sample = torch.randn(2, layer.in_features)
        added = changed.pop(layer)(layer, sample, layer(sample))
        assert torch.allclose(added, 3 * sample @ matrix.T, atol=1e-4)
    assert not changed


@pytest.mark.parametrize("by_column", [False, True])
def test_a_dora_on_layers_that_are_offloaded_one_by_one(tmp_path, by_column):
    """Their weights and biases are on the device during their forward alone."""
    writer = Writer("flux1", seed=6)
    made = writer.write(lambda name: f"transformer.{name}", only=("to_q", "proj_mlp"))
    for path, matrix in made.added.items():
        shape = (1, matrix.shape[1]) if by_column else (matrix.shape[0],)
        made.tensors[f"transformer.{path}.lora_magnitude_vector"] = torch.ones(shape)
    made.save(tmp_path / "a.safetensors")

    def added():
        found = read_lora(tmp_path / "a.safetensors", "a", {"transformer": module})
        samples = [torch.ones(1, 2, one.layer.in_features) for one in found]
        return [
            one.change(one.layer, sample, one.layer(sample))
            for one, sample in zip(found, samples, strict=True)
        ]

    module = writer.module
    expected = added()
    cpu_offload(module, torch.device("cpu"))
    assert all(parameter.is_meta for parameter in module.parameters())
    assert len(expected) == len(made.added)
    for one, other in zip(added(), expected, strict=True):
        assert torch.equal(one, other)


def test_a_lora_takes_the_memory_of_all_that_is_in_its_file(tmp_path):
    """Biases and a DoRA's lengths too: a cache counts it."""
    writer = Writer("flux1", seed=7)
    made = writer.write(lambda name: f"transformer.{name}", only=("attn.to_q",))
    for path, matrix in made.added.items():
        layer = f"transformer.{path}"
        made.tensors[f"{layer}.lora_magnitude_vector"] = torch.ones(len(matrix))
        made.tensors[f"{layer}.lora_B.bias"] = torch.ones(len(matrix))
    made.save(tmp_path / "a.safetensors")
    found = read_lora(tmp_path / "a.safetensors", "a", {"transformer": writer.module})
    whole = sum(tensor.nbytes for tensor in made.tensors.values())
    assert sum(one.change.nbytes for one in found) == whole


def test_a_file_that_is_written_over_while_it_is_used_changes_nothing(tmp_path):
    writer = Writer("klein", seed=5)
    made = writer.write(lambda name: f"transformer.{name}", only=("to_q",))
    path = tmp_path / "a.safetensors"
    made.save(path)
    [one, *_] = read_lora(path, "a", {"transformer": writer.module})
    sample = torch.randn(1, 2, one.layer.in_features)
    before = one.change(one.layer, sample, one.layer(sample))
    path.write_bytes(bytes(path.stat().st_size))
    assert torch.equal(one.change(one.layer, sample, one.layer(sample)), before)
