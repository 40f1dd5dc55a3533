"""LoRA files that cannot be applied whole: refused soon, by the layer or the format,
and the next picture is the base again."""

from __future__ import annotations

import io
import json
import os

import numpy as np
import pytest
import requests
import torch
from PIL import Image
from safetensors.torch import save, save_file

from tests.support.lora_schemes import Writer

# A hang is one; a refusal takes a fraction of it.
SOON = 20
LAYER = "transformer.transformer_blocks.0.attn.to_q"
DOWN, UP = f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight"
NORM = "transformer.transformer_blocks.0.attn.norm_q"
KOHYA = "lora_unet_double_blocks_0_img_attn_proj"


def pair(rank=2, down=DOWN, up=UP, inputs=32, outputs=32, **more):
    """One layer's LoRA."""
    tensors = {down: torch.ones(rank, inputs), up: torch.ones(outputs, rank)}
    return tensors | more


def kohya(**more):
    tensors = pair(down=f"{KOHYA}.lora_down.weight", up=f"{KOHYA}.lora_up.weight")
    return tensors | {f"{KOHYA}.{name}": value for name, value in more.items()}


def text(prefix):
    layer = "encoder_block_0_layer_0_SelfAttention_q"
    names = (f"{prefix}{layer}.lora_down.weight", f"{prefix}{layer}.lora_up.weight")
    return pair(down=names[0], up=names[1])


def of_family(family):
    return Writer(family).write(lambda name: f"transformer.{name}").tensors


def guidance(width=256):
    layer = "lora_unet_guidance_in_in_layer"
    names = (f"{layer}.lora_down.weight", f"{layer}.lora_up.weight")
    return pair(down=names[0], up=names[1], inputs=width)


def embedder():
    layer = "transformer.x_embedder"
    names = (f"{layer}.lora_A.weight", f"{layer}.lora_B.weight")
    return pair(down=names[0], up=names[1], inputs=384)


def raw(header, data=b""):
    """A file with this header, whatever it says."""
    return len(header).to_bytes(8, "little") + header + data


def described(config):
    """One layer's LoRA with this text as PEFT's configuration."""
    return save(pair(), {"lora_adapter_metadata": config})


def patterns(**alphas):
    return described(json.dumps({"transformer.alpha_pattern": alphas}))


def one_tensor(**entry):
    whole = {"dtype": "F32", "shape": [2, 32], "data_offsets": [0, 256]} | entry
    return raw(json.dumps({DOWN: whole}).encode(), bytes(256))


# 2 GiB of nothing in it.
HUGE = one_tensor(dtype="F16", shape=[2**15, 2**15], data_offsets=[0, 2**31])
NAN = torch.full((2, 32), float("nan"))
# Name -> (set, the file, words of the answer).
REFUSED = {
    "negative-alpha": ("schnell", kohya(alpha=torch.tensor(-1.0)), "alpha"),
    "zero-alpha": ("schnell", kohya(alpha=torch.tensor(0.0)), "alpha"),
    "nan-alpha": ("schnell", kohya(alpha=torch.tensor(float("nan"))), "alpha"),
    "infinite-alpha": ("schnell", kohya(alpha=torch.tensor(float("inf"))), "alpha"),
    "huge-alpha": ("schnell", kohya(alpha=torch.tensor(1e30)), "alpha"),
    "alphas": ("schnell", kohya(alpha=torch.ones(2)), "alpha"),
    "alpha-alone": ("schnell", {f"{KOHYA}.alpha": torch.tensor(1.0)}, "alpha"),
    "huge-scalar": ("schnell", kohya(scalar=torch.tensor(-1e30)), "scalar"),
    "nan-scalar": ("schnell", kohya(scalar=torch.tensor(float("nan"))), "scalar"),
    "scalars": ("schnell", kohya(scalar=torch.ones(2)), "scalar"),
    "scalar-alone": ("schnell", {f"{KOHYA}.scalar": torch.ones(())}, "scalar"),
    "config": ("schnell", described("[1]"), "lora_adapter_metadata"),
    "config-cut": ("schnell", described('{"transformer.r'), "lora_adapter_metadata"),
    "config-deep": ("schnell", described("[" * 100_000), "lora_adapter_metadata"),
    "config-words": (
        "schnell",
        described('{"transformer.lora_alpha": "16"}'),
        "no number",
    ),
    "config-digits": (
        "schnell",
        described(f'{{"transformer.lora_alpha": {"9" * 4000}}}'),
        "alpha",
    ),
    "patterns": ("schnell", patterns(**{"(a+)+to_q": 8}), "layers like '(a+)+to_q'"),
    "patterns-many": (
        "schnell",
        patterns(**{f"a{number}": 1 for number in range(300_000)}),
        "300000 alphas",
    ),
    "patterns-of-words": ("schnell", patterns(to_q="1"), "no number"),
    "rank": ("schnell", pair(rank=100_000), "rank 100000"),
    "rank-of-none": ("schnell", pair(rank=0), "rank 0"),
    "nan": ("schnell", pair() | {DOWN: NAN}, "NaN"),
    "integers": ("schnell", pair() | {DOWN: torch.ones(2, 32).int()}, "whole numbers"),
    "half": ("schnell", {DOWN: torch.ones(2, 32)}, "lacks up"),
    "ranks-differ": ("schnell", pair() | {UP: torch.ones(32, 3)}, "fit together"),
    "twice": (
        "schnell",
        pair() | pair(down=f"{LAYER}.lora_down.weight"),
        "both",
    ),
    "two-spellings": (
        "schnell",
        pair()
        | pair(
            down="lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight",
            up="lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight",
            outputs=96,
        ),
        "twice",
    ),
    "no-such-block": (
        "schnell",
        pair(down=DOWN.replace("0", "77"), up=UP.replace("0", "77")),
        "transformer_blocks.77",
    ),
    "other-family": ("schnell", of_family("klein"), "does not fit"),
    "other-family-klein": ("klein-4b", of_family("flux1"), "does not fit"),
    "wide-embedder": ("schnell", embedder(), "384 inputs"),
    "guidance-on-schnell": ("schnell", guidance(), "guidance_in"),
    "t5-on-klein": ("klein-4b", text("lora_te3_"), "no text_encoder_2"),
    "oft": ("schnell", {f"{LAYER}.oft_blocks": torch.ones(2, 2, 2)}, "OFT"),
    "glora": ("schnell", {f"{LAYER}.a1.weight": torch.ones(2, 2)}, "GLoRA"),
    "norms": ("schnell", {"transformer.norm.weight": torch.ones(2)}, "norm.weight"),
    "norms-lycoris": ("schnell", {f"{KOHYA}.b_norm": torch.ones(2)}, "norms"),
    "norm-matrix": ("schnell", pair(down=f"{NORM}.lora_A.weight"), "lora_A"),
    "norm-size": ("schnell", {f"{NORM}.diff": torch.ones(3)}, "has 3 numbers"),
    "scaled-fp8": (
        "schnell",
        pair() | {f"{LAYER}.lora_A.scale_weight": torch.ones(1)},
        "lora_A.scale_weight",
    ),
    "type": ("schnell", described('{"transformer.peft_type": "VERA"}'), "'VERA'"),
    "lokr-of-no-rank": (
        "schnell",
        described('{"transformer.peft_type": "LOKR"}'),
        "without one rank",
    ),
    "lokr-of-ranks": (
        "schnell",
        described(
            '{"transformer.peft_type": "LOKR", "transformer.r": 8, '
            '"transformer.rank_pattern": {"to_q": 4}}'
        ),
        "without one rank",
    ),
    "type-of-none": ("schnell", described('{"transformer.peft_type": []}'), "'[]'"),
    "another-base": (
        "schnell",
        described('{"transformer.init_lora_weights": "pissa_niter_4"}'),
        "pissa_niter_4",
    ),
    "norms-control": (
        "schnell",
        pair() | {"double_blocks.0.img_attn.norm.key_norm.scale": torch.ones(8)},
        "control LoRA",
    ),
    "convolution": ("schnell", pair() | {DOWN: torch.ones(2, 32, 3, 3)}, "no matrix"),
    "convolution-mid": (
        "schnell",
        kohya(**{"lora_mid.weight": torch.ones(2, 2, 3, 3)}),
        "convolutions",
    ),
    "projection": (
        "schnell",
        pair(down="text_projection.lora_A.weight", up="text_projection.lora_B.weight"),
        "text_projection",
    ),
    "empty": ("schnell", {}, "no LoRA weights"),
    "no-header": ("schnell", b"", "safetensors"),
    "long-header": ("schnell", raw(b" " * (17 << 20)), "header"),
    "endless-header": ("schnell", b"\xff" * 64, "header"),
    "nested-header": ("schnell", raw(b"[" * 100_000), "safetensors"),
    "shape": ("schnell", one_tensor(shape=[2**60, 2**60]), "safetensors"),
    "offsets": ("schnell", one_tensor(data_offsets=[0, 2**40]), "safetensors"),
    "negative": ("schnell", one_tensor(shape=[-2, 32]), "safetensors"),
    "kind": ("schnell", one_tensor(dtype="F7"), "safetensors"),
    "huge": ("schnell", HUGE, "1073741824 numbers"),
    "long-key": (
        "schnell",
        # As many names of wrappers as a header has room for.
        pair(down=f"{'module.' * 2_000_000}lora_A.weight"),
        "a name of 14000013 characters",
    ),
    "many-layers": (
        "schnell",
        {
            # Of no effect, so that each is looked at.
            f"layer{number}.lora_{one}.weight": torch.zeros(1, 1)
            for number in range(10_001)
            for one in "AB"
        },
        "20002 tensors",
    ),
    "many-keys": (
        "schnell",
        {f"{LAYER}{number}.lora_A.weight": torch.ones(1) for number in range(20_000)},
        "does not fit",
    ),
}


def ask(server, model, loras=None):
    form = {"prompt": "a duck", "width": 64, "height": 64, "seed": 3, "model": model}
    form |= {"num_inference_steps": 1} | ({"loras": loras} if loras else {})
    return requests.post(f"{server.url}/process/raw", data=form, timeout=SOON)


def read_picture(content):
    return np.asarray(Image.open(io.BytesIO(content)))


@pytest.fixture(scope="module")
def plain(families):
    """The pictures without a LoRA."""
    return {
        model: read_picture(ask(families, model).content)
        for model in ("schnell", "klein-4b")
    }


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_by_name_and_nothing_is_left(families, plain, name):
    model, content, words = REFUSED[name]
    path = families.lora_folder / f"refused-{name}.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
        if content is HUGE:
            os.truncate(path, len(content) - 256 + 2**31)
    else:
        save_file(content, path)
    answer = ask(families, model, f"refused-{name}")
    path.unlink()
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert words in error and f"refused-{name}" in error
    assert str(families.lora_folder) not in error
    after = read_picture(ask(families, model).content)
    assert np.array_equal(after, plain[model])


def test_what_has_no_effect_is_left_out_and_said(families, plain):
    """Zeros for what was not trained, embeddings beside a LoRA."""
    t5 = "text_encoders.t5xxl.transformer.encoder.block.9.layer.0.SelfAttention.q"
    tensors = pair() | {
        f"{t5}.lora_down.weight": torch.ones(2, 32),
        f"{t5}.lora_up.weight": torch.zeros(32, 2),
        "lora_te1_text_projection.lora_down.weight": torch.ones(2, 32),
        "lora_te1_text_projection.lora_up.weight": torch.ones(32, 2),
        "bundle_emb.me.string_to_param.*": torch.ones(1, 32),
    }
    path = families.lora_folder / "extras.safetensors"
    save_file(tensors, path)
    save_file(pair(), path.with_name("bare.safetensors"))
    both = [ask(families, "schnell", name) for name in ("extras", "bare")]
    one, other = (read_picture(answer.content) for answer in both)
    assert np.array_equal(one, other)
    assert not np.array_equal(one, plain["schnell"])
    assert "extras: its embeddings are not used" in families.output
    assert "extras: 2 layers have no effect" in families.output


def folder_of_peft(families, name, **config):
    """What ``save_pretrained`` of PEFT writes; gives the LoRA's name."""
    folder = families.lora_folder / name
    folder.mkdir()
    layer = LAYER.replace("transformer.", "base_model.model.", 1)
    names = (f"{layer}.lora_A.weight", f"{layer}.lora_B.weight")
    tensors = pair(down=names[0], up=names[1], rank=4)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return f"{name}/adapter_model"


# What PEFT writes beside a LoRA of rank 4 -> what its matrix is multiplied with.
CONFIGS = {
    "alpha": ({"peft_type": "LORA", "lora_alpha": 8}, 2),
    "rslora": ({"lora_alpha": 8, "use_rslora": True}, 4),
    "pattern": (
        {"lora_alpha": 8, "alpha_pattern": {"^transformer_blocks.0.attn.to_q": 4}},
        1,
    ),
    "first": ({"lora_alpha": 8, "alpha_pattern": {"attn.to_q": 4, "to_q": 16}}, 1),
    "another": ({"lora_alpha": 8, "alpha_pattern": {"dd_to_q": 4, "attn.to_k": 16}}, 2),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_folder_of_peft_is_read_with_its_configuration(families, plain, name):
    config, factor = CONFIGS[name]
    lora = folder_of_peft(families, f"peft-{name}", **config)
    alpha = {f"{LAYER}.alpha": torch.tensor(4.0 * factor)}
    save_file(pair(rank=4) | alpha, families.lora_folder / f"same-{name}.safetensors")
    answers = [ask(families, "schnell", one) for one in (lora, f"same-{name}")]
    one, other = (read_picture(answer.content) for answer in answers)
    assert np.array_equal(one, other)
    assert not np.array_equal(one, plain["schnell"])


def test_a_folder_of_peft_of_another_kind_is_refused_by_it(families):
    lora = folder_of_peft(families, "peft-vera", peft_type="VERA", lora_alpha=8)
    answer = ask(families, "schnell", lora)
    assert answer.status_code == 400
    assert "VERA" in answer.json()["error"]
