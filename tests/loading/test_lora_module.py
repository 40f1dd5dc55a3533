"""Tensors of one layer that do not go together are refused by that layer, whatever kind
of LoRA they are of; what they do where they fit is in test_lora_schemes.py."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from flux_api.errors import InvalidRequest
from flux_api.loading.lora_reader import read_lora
from tests.support.lora_schemes import component_of
from tests.support.tiny_checkpoints import flux1_transformer

# A layer of 32 inputs and outputs with a bias, three of them fused, and a norm.
LAYER = "transformer.transformer_blocks.0.attn.to_q"
FUSED = "lora_unet_double_blocks_0_img_attn_qkv"
NORM = "transformer.transformer_blocks.0.attn.norm_q"


def ones(**shapes):
    """Tensors of these shapes."""
    return {
        name.replace("__", "."): torch.ones(shape) for name, shape in shapes.items()
    }


LORA = ones(lora_A__weight=(2, 32), lora_B__weight=(32, 2))
LOHA = ones(hada_w1_a=(32, 2), hada_w1_b=(2, 32), hada_w2_a=(32, 2), hada_w2_b=(2, 32))
LOKR = ones(lokr_w1=(4, 2), lokr_w2=(8, 16))
LOW = ones(lokr_w1=(4, 2), lokr_w2_a=(8, 2), lokr_w2_b=(2, 16))
FITTING = {
    "lora": LORA,
    "bias": LORA | ones(lora_B__bias=(32,)),
    "bias alone": ones(diff_b=(32,)),
    "loha": LOHA,
    "lokr": LOKR,
    "lokr of low rank": LOW,
    "lokr of low ranks": LOW
    | {"lokr_w1": None}
    | ones(lokr_w1_a=(4, 1), lokr_w1_b=(1, 2)),
    "whole": ones(diff=(32, 32)),
    "dora": LORA | ones(dora_scale=(32, 1)),
    "dora of columns": LORA | ones(dora_scale=(1, 32)),
    "dora alone": ones(dora_scale=(32,)),
    "of a pixel": ones(lora_A__weight=(2, 32, 1, 1), lora_B__weight=(32, 2, 1, 1)),
}
REFUSED = {
    "two kinds": (LORA | LOKR, "mixes down and lokr and up"),
    "half a loha": (LOHA | {"hada_w2_b": None}, "lacks hada_w2_b beside"),
    "unlike halves": (
        LOHA | ones(hada_w2_a=(32, 3), hada_w2_b=(3, 32)),
        "has factors that do not fit together",
    ),
    "a loha's ranks": (
        LOHA | ones(hada_w1_a=(32, 3)),
        "has factors that do not fit together",
    ),
    "half a lokr": (LOKR | {"lokr_w2": None}, "lacks lokr_w2 beside"),
    "half a factor": (LOW | {"lokr_w2_b": None}, "lacks a factor of lokr_w2"),
    "a factor twice": (
        LOKR | ones(lokr_w2_a=(8, 2), lokr_w2_b=(2, 16)),
        "lacks a fact",
    ),
    "a factor's ranks": (LOW | ones(lokr_w2_b=(3, 16)), "do not fit together"),
    "a large factor": (LOW | ones(lokr_w2_a=(64, 2)), "64 outputs, the model's layer"),
    "a wide factor": (LOW | ones(lokr_w2_b=(2, 64)), "is for 64 inputs and 8 outputs"),
    "a lokr's shape": (LOKR | ones(lokr_w1=(4, 4)), "is for 64 inputs and 32 outputs"),
    "a tall lokr": (LOKR | ones(lokr_w1=(2, 2)), "is for 32 inputs and 16 outputs"),
    "no matrix": (LOKR | ones(lokr_w2=(8, 16, 3)), "no matrix in"),
    "a lora's inputs": (LORA | ones(lora_A__weight=(2, 16)), "is for 16 inputs and 32"),
    "a lora's outputs": (LORA | ones(lora_B__weight=(16, 2)), "32 inputs and 16 outp"),
    "a whole one's shape": (ones(diff=(32, 31)), "is for 31 inputs and 32 outputs"),
    "a bias's size": (LORA | ones(diff_b=(31,)), "has a bias for 31 outputs"),
    "a bias's shape": (LORA | ones(diff_b=(32, 2)), "has a bias for 64 outputs"),
    "a dora's size": (LORA | ones(dora_scale=(31,)), "has 31 numbers, expected 32"),
    "a dora's columns": (
        LORA | ones(dora_scale=(1, 31)),
        "has 31 numbers, expected 32",
    ),
    "scalar": (ones(diff=(32, 32), scalar=()), "has a scalar and nothing it is for"),
}


def read(folder, layer, tensors):
    """The changes of a file with these tensors of ``layer``."""
    path = folder / "a.safetensors"
    made = {f"{layer}.{n}": t for n, t in tensors.items() if t is not None}
    save_file(made, path)
    return read_lora(path, "a", {"transformer": flux1_transformer()})


@pytest.mark.parametrize("name", FITTING)
def test_what_fits_changes_its_layer_alone(tmp_path, name):
    [one] = read(tmp_path, LAYER, FITTING[name])
    sample, output = torch.ones(1, 32), torch.ones(1, 32)
    added = one.change(one.layer, sample, output)
    assert added.shape == (1, 32)
    assert added.isfinite().all() and added.any()


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_is_refused(tmp_path, name):
    tensors, words = REFUSED[name]
    with pytest.raises(InvalidRequest, match=words) as refused:
        read(tmp_path, LAYER, tensors)
    assert LAYER in refused.value.message


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        (ones(diff=(16,)), None),
        (ones(diff=(15,)), "has 15 numbers, the model's norm 16"),
        (ones(diff=(16,), diff_b=(16,)), "more than a difference for a norm"),
        (ones(diff_b=(16,)), "more than a difference for a norm"),
    ],
)
def test_a_norm_takes_a_difference_of_its_size_and_nothing_else(
    tmp_path, tensors, words
):
    if words is None:
        [one] = read(tmp_path, NORM, tensors)
        assert one.layer.weight.shape == (16,)
        return
    with pytest.raises(InvalidRequest, match=words):
        read(tmp_path, NORM, tensors)


@pytest.mark.parametrize(
    ("layer", "numbers", "words"),
    [
        ("text_model_encoder_layers_0_self_attn_q_proj", 1, None),
        ("text_model_encoder_layers_9_self_attn_q_proj", 1, "it has no layer for"),
        # Nothing was trained; and no picture depends on that.
        ("text_model_encoder_layers_9_self_attn_q_proj", 0, "holds no LoRA weights"),
        ("text_projection", 1, "holds no LoRA weights"),
    ],
)
def test_layers_that_a_text_encoder_lacks_are_left_out_where_they_do_nothing(
    tmp_path, layer, numbers, words
):
    tensors = {"lora_down.weight": LORA["lora_A.weight"]}
    tensors["lora_up.weight"] = LORA["lora_B.weight"] * numbers
    made = {f"lora_te1_{layer}.{name}": tensor for name, tensor in tensors.items()}
    save_file(made, tmp_path / "a.safetensors")
    parts = {"text_encoder": component_of("flux1", "text_encoder")}
    if words is None:
        assert len(read_lora(tmp_path / "a.safetensors", "a", parts)) == 1
        return
    with pytest.raises(InvalidRequest, match=words):
        read_lora(tmp_path / "a.safetensors", "a", parts)


def test_a_fused_layer_is_cut_where_the_models_layers_begin(tmp_path):
    """Each of them takes the rows that are its own."""
    up = torch.arange(96.0).repeat_interleave(2).reshape(96, 2)
    tensors = {"lora_down.weight": torch.ones(2, 32), "lora_up.weight": up}
    tensors["diff_b"] = torch.arange(96.0) / 2
    found = read(tmp_path, FUSED, tensors)
    added = [
        one.change(one.layer, torch.ones(1, 32), torch.zeros(1, 32)) for one in found
    ]
    # Two ranks of 32 inputs, and the bias.
    assert torch.cat(added, 1).tolist() == [[64.5 * row for row in range(96)]]


@pytest.mark.parametrize("name", FITTING)
def test_what_was_on_a_device_is_in_the_hosts_memory_all_the_time(tmp_path, name):
    """torch's meta device stands for one, from where nothing comes back."""
    [one] = read(tmp_path, LAYER, FITTING[name])
    sample, size = torch.ones(1, 32), one.change.nbytes
    if "dora" in name:
        # A gain goes there and back.
        one.change.leave_device()
        assert one.change.nbytes == size
        return
    expected = one.change(one.layer, sample, sample)
    far = sample.to("meta")
    assert one.change(one.layer, far, far).is_meta
    assert one.change.nbytes == size
    one.change.leave_device()
    assert torch.equal(one.change(one.layer, sample, sample), expected)


def test_alphas_count_over_the_rank_and_scalars_as_they_are(tmp_path):
    """PEFT's scale and LyCORIS' number."""
    for more, factor in (
        ({}, 1),
        ({"alpha": torch.tensor(1.0)}, 0.5),
        ({"alpha": torch.tensor([4.0])}, 2),
        ({"alpha": torch.tensor(1.0), "scalar": torch.tensor(-3.0)}, -1.5),
        ({"alpha": torch.tensor(2, dtype=torch.long)}, 1),
    ):
        [one] = read(tmp_path, LAYER, LORA | more)
        added = one.change(one.layer, torch.ones(1, 32), torch.zeros(1, 32))
        assert torch.equal(added, torch.full((1, 32), 64.0 * factor)), more
    # Of a LoKr it counts where a factor is of low rank.
    for tensors, factor in ((LOKR, 1), (LOW, 2 * 0.25)):
        [one] = read(tmp_path, LAYER, tensors | {"alpha": torch.tensor(0.5)})
        added = one.change(one.layer, torch.ones(1, 32), torch.zeros(1, 32))
        assert torch.equal(added, torch.full((1, 32), 32.0 * factor))
