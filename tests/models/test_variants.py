"""What a file or folder is taken for, and what no set is made of."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from flux_api.errors import BadSetting
from flux_api.models.checkpoints import identify_file
from flux_api.models.file_sets import FILE_SETS, set_of_path
from flux_api.models.headers import BadFile

FLUX1, FLUX2 = (
    "double_blocks.0.img_mod.lin.weight",
    "double_stream_modulation_img.lin.weight",
)


def write_folder(path, pipeline, index=None, config=None):
    """As much of a checkpoint as tells what it is."""
    (path / "transformer").mkdir(parents=True)
    named = {"_class_name": pipeline} | (index or {})
    (path / "model_index.json").write_text(json.dumps(named))
    (path / "transformer" / "config.json").write_text(json.dumps(config or {}))
    return str(path)


FOLDERS = {
    "klein": ("Flux2KleinPipeline", {}, {"num_attention_heads": 24}, "klein-4b"),
    "large": ("Flux2KleinPipeline", {}, {"num_attention_heads": 32}, "klein-9b"),
    "base": ("Flux2KleinPipeline", {"is_distilled": False}, {}, "klein-base-4b"),
    "large-base": (
        "Flux2KleinPipeline",
        {"is_distilled": False},
        {"num_attention_heads": 32},
        "klein-base-9b",
    ),
    "distilled": ("Flux2KleinPipeline", {"is_distilled": True}, {}, "klein-4b"),
    "kv": ("Flux2KleinKVPipeline", {}, {}, "klein-9b-kv"),
    "dev2": ("Flux2Pipeline", {}, {}, "flux2-dev"),
    "context": ("FluxKontextPipeline", {}, {}, "kontext"),
    "filler": ("FluxFillPipeline", {}, {}, "fill"),
    "fast": ("FluxPipeline", {}, {"guidance_embeds": False}, "schnell"),
    "guided": ("FluxPipeline", {}, {"guidance_embeds": True}, "dev"),
    "plain": ("FluxPipeline", {}, {}, "dev"),
    "My-Krea": ("FluxPipeline", {}, {"guidance_embeds": True}, "krea"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folders_index_and_widths_tell_what_it_is(tmp_path, name):
    pipeline, index, config, variant = FOLDERS[name]
    path = write_folder(tmp_path / name, pipeline, index, config)
    called, info = set_of_path(path, None, None)
    assert called == name.lower()
    assert info.tasks == FILE_SETS[variant].tasks
    assert info.description.startswith(f"{name}: {variant} (")
    assert set_of_path(path, "flux1", None)[1].tasks == FILE_SETS["dev"].tasks


@pytest.mark.parametrize(
    ("index", "words"),
    [
        (
            '{"_class_name": "WanPipeline"}',
            "holds a WanPipeline, which is not supported",
        ),
        ("[]", "is a folder without model_index.json"),
        ("{", "is a folder without model_index.json"),
    ],
)
def test_a_folder_of_another_model_is_refused_by_what_it_is(tmp_path, index, words):
    path = write_folder(tmp_path / "mine", "")
    (tmp_path / "mine" / "model_index.json").write_text(index)
    with pytest.raises(BadSetting, match=words):
        set_of_path(path, None, None)


def test_a_name_for_requests_is_made_of_any_files_name(tmp_path):
    for name, called in (
        ("Ärger & Co.", "rger-co"),
        ("絵", "model"),
        ("a" * 99, "a" * 64),
    ):
        path = write_folder(tmp_path / name, "FluxPipeline")
        assert set_of_path(path, None, None)[0] == called


def save(path, *names, dtype="float32", **shapes):
    """A file of small tensors."""
    tensors = {name: np.zeros(shapes.get(name, (2, 64)), dtype) for name in names}
    save_file(tensors, path)
    return path


# A tensor by which it is known -> what it is.
KNOWN = {
    "distilled_guidance_layer.layers.0.in_layer.weight": "is a Chroma transformer",
    "joint_blocks.0.x_block.attn.qkv.weight": "is a Stable Diffusion 3 transformer",
    "noise_refiner.0.attention.qkv.weight": "is a Lumina or Z-Image transformer",
    "redux_up.weight": "is a Redux prior in one file",
    "blk.0.attn_q.weight": "is a Mistral or other language model",
    "a.smooth_factor": "is a Nunchaku",
    "svdq.weight": "is a Nunchaku",
    "a.quant_state.bitsandbytes__nf4": "is quantized with bitsandbytes in one file",
    FLUX1: "is incomplete: it has no layer for its input",
    "a.weight": "holds no model that is known here",
}


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_what_is_not_served_is_told_by_what_it_is(tmp_path, name, prefix):
    path = save(tmp_path / "a.safetensors", prefix + name)
    with pytest.raises(BadFile, match=f"^{KNOWN[name]}"):
        identify_file(path)


@pytest.mark.parametrize(
    ("name", "component"),
    [
        ("text_model.encoder.layers.0.self_attn.q_proj.weight", "text_encoder"),
        ("embeddings.token_embedding.weight", "text_encoder"),
        ("model.layers.0.self_attn.q_norm.weight", "text_encoder"),
        ("blk.0.attn_q_norm.weight", "text_encoder"),
        ("encoder.block.0.layer.0.SelfAttention.q.weight", "text_encoder_2"),
        ("enc.blk.0.attn_q.weight", "text_encoder_2"),
        ("decoder.conv_in.weight", "vae"),
    ],
)
def test_a_component_by_itself_is_told_apart(tmp_path, name, component):
    assert identify_file(save(tmp_path / "a.safetensors", name)).components == {
        component: ""
    }


@pytest.mark.parametrize(
    ("dtype", "word"), [("float16", "fp16"), ("float32", "fp32"), ("float64", "F64")]
)
def test_most_of_a_files_numbers_are_told_in_words(tmp_path, dtype, word):
    path = save(tmp_path / "a.safetensors", FLUX1, "img_in.weight", dtype=dtype)
    facts = identify_file(path)
    assert str(facts) == f"a transformer of FLUX.1 schnell, {word}"
    assert facts.size == 2 * 2 * 64 * np.dtype(dtype).itemsize


def test_a_file_with_more_in_it_is_all_in_one(tmp_path):
    names = (FLUX1, "img_in.weight", "vae.decoder.conv_in.weight")
    facts = identify_file(save(tmp_path / "a.safetensors", *names))
    assert facts.kind == "an all-in-one checkpoint of FLUX.1"
    assert facts.components == {"transformer": "", "vae": "vae."}


def test_a_width_that_no_model_has_is_said_and_the_small_one_assumed(tmp_path):
    path = save(tmp_path / "a.safetensors", FLUX2, "img_in.weight")
    facts = identify_file(path)
    assert facts.variant == "klein-4b"
    assert "its width of 2 is that of none, assumed" in facts.why


@pytest.mark.parametrize(
    ("mark", "pipeline", "words"),
    [
        # One of the same family will do, as the transformer is not taken from there.
        (FLUX1, "FluxFillPipeline", None),
        (FLUX1, "FluxKontextPipeline", None),
        (FLUX1, "Flux2KleinPipeline", "which is of another family than FluxPipeline"),
        (FLUX2, "Flux2Pipeline", None),
        (FLUX2, "FluxPipeline", "of another family than Flux2KleinPipeline"),
    ],
)
def test_the_rest_of_a_file_comes_from_its_family(tmp_path, mark, pipeline, words):
    path = save(tmp_path / "a.safetensors", mark, "img_in.weight")
    write_folder(tmp_path / "rest", pipeline)
    if words is None:
        name, info = set_of_path(str(path), None, tmp_path / "rest")
        assert (name, info.licence) == ("a", "not stated, see where the file is from")
        return
    with pytest.raises(BadSetting, match=words):
        set_of_path(str(path), None, tmp_path / "rest")
