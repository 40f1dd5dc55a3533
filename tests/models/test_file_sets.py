"""FLUX_MODEL=/path: a set over one file, called by its name and nothing else of it."""

from __future__ import annotations

import os
import re
import shutil
import struct

import gguf
import numpy as np
import pytest
import requests
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPTextModel, Qwen3ForCausalLM, T5EncoderModel

from flux_api.errors import BadSetting
from flux_api.loading.model_sets import ModelSets
from flux_api.loading.own_parts import FilePart, config_of
from flux_api.loading.placement import Placement
from flux_api.loading.single_files import load_component
from flux_api.models.checkpoints import identify_file
from flux_api.models.file_sets import FILE_SETS, set_of_path
from flux_api.models.headers import BadFile
from flux_api.models.hub import ModelMissing
from flux_api.models.sources import Folder
from flux_api.models.toml_file import load_models
from tests.loading.test_checkpoint_forms import SETS, all_in_one, draw
from tests.support.checkpoint_forms import (
    build_base,
    prefixed,
    quantize_rows,
    read,
    save,
    to_bfl,
    to_ldm_vae,
    with_component,
    write_gguf,
)
from tests.support.pictures import make_png
from tests.support.servers import ROOT, run_api
from tests.support.tiny_checkpoints import build, flux1_transformer

IS_ROOT = os.geteuid() == 0


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Folders in diffusers' layout."""
    folder = tmp_path_factory.mktemp("bases")
    return {
        "flux1": build_base("flux1", folder / "flux1"),
        "klein": build_base("klein", folder / "klein"),
    }


def flux1(base, **changes):
    """A FLUX.1 transformer's tensors by Black Forest Labs' names."""
    made = to_bfl("flux1", read(base, "transformer")) | changes
    return {name: tensor for name, tensor in made.items() if tensor is not None}


# How the file is called and what is written in it -> what it is taken for.
VARIANTS = {
    "some-model": ("", "dev"),
    "my_Kontext_tune": ("", "kontext"),
    "flux1-krea-dev": ("", "krea"),
    "no-words": ("FLUX.1 Kontext [dev]", "kontext"),
    "kontext-by-name": ("FLUX.1 Krea", "krea"),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_metadata_then_the_name_tell_the_variant(tmp_path, bases, name):
    title, variant = VARIANTS[name]
    metadata = {"modelspec.title": title}
    path = save(tmp_path / f"{name}.safetensors", flux1(bases["flux1"]), metadata)
    assert identify_file(path).variant == variant
    made = write_gguf(tmp_path / f"{name}.gguf", flux1(bases["flux1"]), "Q8_0", title)
    assert made
    assert identify_file(tmp_path / f"{name}.gguf").variant == variant
    old = path.rename(path.with_suffix(".sft"))
    assert set_of_path(str(old), None, bases["flux1"])[0] == name.lower()


def test_shapes_tell_schnell_fill_and_control(tmp_path, bases):
    made = flux1(bases["flux1"])
    bare = {name: t for name, t in made.items() if not name.startswith("guidance_in")}
    assert identify_file(save(tmp_path / "a.safetensors", bare)).variant == "schnell"
    wide = made | {"img_in.weight": torch.zeros(256, 384)}
    assert identify_file(save(tmp_path / "b.safetensors", wide)).variant == "fill"
    control = made | {"img_in.weight": torch.zeros(256, 128)}
    with pytest.raises(BadFile, match="control"):
        identify_file(save(tmp_path / "c.safetensors", control))


@pytest.mark.parametrize(
    ("name", "width", "variant"),
    [
        ("flux-2-klein", 3072, "klein-4b"),
        ("flux-2-klein-base", 3072, "klein-base-4b"),
        ("flux-2-klein", 4096, "klein-9b"),
        ("flux-2-klein-kv", 4096, "klein-9b-kv"),
        ("flux-2-klein_base", 4096, "klein-base-9b"),
        ("flux2-dev", 6144, "flux2-dev"),
    ],
)
def test_widths_and_names_tell_the_flux2_models(tmp_path, name, width, variant):
    tensors = {
        "double_stream_modulation_img.lin.weight": torch.zeros(1, 1),
        "img_in.weight": torch.zeros(width, 128),
    }
    path = save(tmp_path / f"{name}.safetensors", tensors)
    assert identify_file(path).variant == variant
    assert variant in FILE_SETS


OTHERS = {
    "lora": ({"a.lora_A.weight": torch.ones(1)}, "a LoRA"),
    "sdxl": (
        {"model.diffusion_model.input_blocks.0.0.weight": torch.ones(1)},
        "Stable Diffusion",
    ),
    "controlnet": (
        {
            "controlnet_blocks.0.weight": torch.ones(1),
            "double_blocks.0.img_mod.lin.weight": torch.ones(1),
        },
        "a ControlNet",
    ),
    "qwen-image": (
        {"transformer_blocks.0.img_mod.1.weight": torch.ones(1)},
        "Qwen-Image",
    ),
    "svdq": ({"transformer_blocks.0.qweight": torch.ones(1)}, "Nunchaku"),
    "mistral": (
        {"model.layers.0.self_attn.q_proj.weight": torch.ones(1)},
        "a Mistral or other language model",
    ),
    "t5": ({"encoder.block.0.layer.0.SelfAttention.q.weight": torch.ones(1)}, "T5"),
    "vae": ({"decoder.conv_in.weight": torch.ones(1)}, "a VAE"),
    "nothing": ({"a": torch.ones(1)}, "no model"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_file_is_refused_by_what_it_is(tmp_path, name):
    tensors, words = OTHERS[name]
    path = save(tmp_path / f"{name}.safetensors", tensors)
    with pytest.raises(BadSetting, match=words):
        set_of_path(str(path), None, None)


def gguf_of(count=1, values=0, body=b""):
    return b"GGUF" + struct.pack("<IQQ", 3, count, values) + body


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


ENDLESS_LIST = text("a") + struct.pack("<IIQ", 9, 0, 2**62)
NESTED = text("a") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 2**40) * 5
LONG_TEXT = text("a") + struct.pack("<IQ", 8, 2**60)
FAR = text("img_in.weight") + struct.pack("<IQIQ", 1, 32, 0, 2**50)
ODD = text("img_in.weight") + struct.pack("<IQIQ", 1, 33, 8, 0)
UNKNOWN = text("img_in.weight") + struct.pack("<IQIQ", 1, 32, 77, 0)
DIMENSIONS = text("img_in.weight") + struct.pack("<I", 2**31)
DAMAGED = {
    "no.gguf": b"GGML" + bytes(64),
    "old.gguf": b"GGUF" + struct.pack("<I", 1) + bytes(64),
    "short.gguf": b"GGUF",
    "counts.gguf": gguf_of(2**62, 0),
    "values.gguf": gguf_of(0, 2**62),
    "list.gguf": gguf_of(0, 1, ENDLESS_LIST),
    "nested.gguf": gguf_of(0, 1, NESTED),
    "text.gguf": gguf_of(0, 1, LONG_TEXT),
    "far.gguf": gguf_of(1, 0, FAR),
    "odd.gguf": gguf_of(1, 0, ODD),
    "kind.gguf": gguf_of(1, 0, UNKNOWN),
    "dimensions.gguf": gguf_of(1, 0, DIMENSIONS),
    "empty.gguf": b"",
    "empty.safetensors": b"",
    "header.safetensors": struct.pack("<Q", 2**60),
    "brackets.safetensors": struct.pack("<Q", 100_000) + b"[" * 100_000,
    "cut.safetensors": struct.pack("<Q", 100) + b"{}",
    "a.ckpt": b"\x80\x04.",
    "a.pt": b"PK\x03\x04",
    "a.dduf": b"PK\x03\x04",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_or_foreign_file_is_refused_at_once(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(DAMAGED[name])
    with pytest.raises(BadSetting, match=r"FLUX_MODEL=.*: it (is|cannot|has)"):
        set_of_path(str(path), None, None)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.mkdir(), "folder without model_index.json"),
        (lambda path: path.symlink_to(path), "cannot be read"),
        (os.mkfifo, "a folder or a device"),
        (lambda path: path.touch(0), "empty" if IS_ROOT else "cannot be read"),
    ],
    ids=["folder", "loop", "pipe", "forbidden"],
)
def test_what_is_no_file_is_refused_at_once(tmp_path, make, words):
    make(tmp_path / "a.safetensors")
    with pytest.raises(BadSetting, match=words):
        set_of_path(str(tmp_path / "a.safetensors"), None, None)


def test_a_list_without_end_is_refused_at_once(tmp_path):
    """Texts of no letters, as many as the file has room for."""
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf_of(0, 1, text("a") + struct.pack("<IIQ", 9, 8, 2**32)))
    os.truncate(path, 2**36)
    with pytest.raises(BadSetting, match="a list of 4294967296 values"):
        set_of_path(str(path), None, None)


def test_a_gguf_of_no_rows_is_refused(tmp_path, bases):
    path = tmp_path / "a.gguf"
    rows = struct.pack("<IQQIQ", 2, 32, 0, 8, 0)
    path.write_bytes(gguf_of(1, 0, text("decoder.conv_in.weight") + rows) + bytes(64))
    facts = identify_file(path)
    config = config_of("vae", FilePart(facts, ""), bases["flux1"])
    with pytest.raises(ModelMissing, match="VAE"):
        load_component(AutoencoderKL, config, facts, "", torch.float32)


LAYER = "double_blocks.0.img_attn.proj"
FP8, BYTES = torch.zeros(256, 256).to(torch.float8_e4m3fn), torch.uint8
# How ComfyUI writes what is not read here: a layer's tensors, and the answer.
PACKED = {
    "mxfp8": (
        {"weight": FP8, "weight_scale": torch.zeros(256, 8, dtype=BYTES)},
        "several scales a row",
    ),
    "blocks": (
        {"weight": FP8, "weight_scale": torch.zeros(4, 4)},
        "several scales a row",
    ),
    "nvfp4": (
        {
            "weight": torch.zeros(256, 128, dtype=BYTES),
            "weight_scale": torch.zeros(256, 16).to(torch.float8_e4m3fn),
            "weight_scale_2": torch.ones(()),
        },
        "in the kind U8|several scales a row",
    ),
    "int8": (
        {"weight": FP8.to(torch.int8), "weight_scale": torch.ones(256, 1)},
        "in the kind I8",
    ),
}


@pytest.mark.parametrize("name", PACKED)
def test_numbers_that_are_not_read_are_refused_before_anything_is_loaded(
    tmp_path, bases, name
):
    parts, words = PACKED[name]
    made = flux1(bases["flux1"], **{f"{LAYER}.{n}": t for n, t in parts.items()})
    path = save(tmp_path / "a.safetensors", made)
    with pytest.raises(BadSetting, match=words) as refused:
        set_of_path(str(path), None, None)
    assert LAYER in str(refused.value)


def test_another_gguf_kind_is_refused_by_its_name(tmp_path, bases):
    made = to_bfl("klein", read(bases["klein"], "transformer"))
    write_gguf(tmp_path / "a.gguf", made, "Q8_0")
    content = (tmp_path / "a.gguf").read_bytes()
    # The same bytes a row as IQ1_S would need are not checked before the kind is.
    name = b"double_blocks.0.img_attn.proj.weight"
    place = content.index(name) + len(name) + 4 + 16
    changed = content[:place] + struct.pack("<I", 19) + content[place + 4 :]
    (tmp_path / "a.gguf").write_bytes(changed)
    info = tmp_path / "m.toml"
    info.write_text(
        f'[mine]\nlike = "klein-4b"\nbase_model = "{bases["klein"]}"\n'
        f'transformer = "{tmp_path / "a.gguf"}"\n'
    )
    for start in (
        lambda: set_of_path(str(tmp_path / "a.gguf"), None, None),
        lambda: load_models(info, {}),
    ):
        with pytest.raises(BadSetting, match="in the kind IQ1_S, which is not supp"):
            start()


def ask(server, where, model, **files):
    form = {"prompt": "a", "size": "64x64", "num_inference_steps": 2, "model": model}
    return requests.post(
        f"{server.url}/v1/images/{where}", data=form, files=files, timeout=120
    )


def test_a_gguf_by_its_path_alone(tmp_path, bases):
    base = bases["klein"]
    made = to_bfl("klein", read(base, "transformer"))
    path = tmp_path / "My Klein (Q8_0).gguf"
    write_gguf(path, made, "Q8_0")
    with run_api(FLUX_MODEL=path, FLUX_COMPONENTS=base) as server:
        server.wait_ready()
        listed = requests.get(f"{server.url}/v1/models", timeout=10)
        image = ("a.png", make_png((64, 64)), "image/png")
        assert ask(server, "generations", "my-klein-q8_0").status_code == 200
        assert ask(server, "edits", "my-klein-q8_0", image=image).status_code == 200
        assert str(tmp_path) not in server.output
    [model] = listed.json()["data"]
    assert model["id"] == "my-klein-q8_0"
    assert "FLUX.2 klein-4b (its width" in model["description"]
    assert ", Q8_0" in model["description"]
    assert str(tmp_path) not in listed.text


def test_an_all_in_one_file_needs_only_what_is_not_in_it(tmp_path, bases):
    base = bases["flux1"]
    path, _ = all_in_one(tmp_path / "whole", "flux1", base)
    save(path, load_file(path) | {"text_encoders.mine.layer.weight": torch.ones(1)})
    rest = tmp_path / "rest"
    shutil.copytree(base, rest)
    for component in ("transformer", "vae", "text_encoder", "text_encoder_2"):
        for file in (rest / component).glob("*.safetensors"):
            file.unlink()
    with run_api(FLUX_MODEL=path, FLUX_COMPONENTS=rest) as server:
        server.wait_ready()
        with run_api(FLUX_MODEL=base) as other:
            other.wait_ready()
            one, two = draw(server, "whole"), draw(other, "flux1")
        image = ("a.png", make_png((64, 64)), "image/png")
        # What this one transformer can do: pictures from pictures, no instructions.
        assert ask(server, "edits", "whole", image=image).status_code == 200
        left = "1 tensors are not used: text_encoders.mine.layer.weight"
        assert left in server.output
    assert np.abs(one - two).max() <= 1


def test_kontext_edits_and_nothing_else(tmp_path):
    base = build("dev", tmp_path / "dev")
    path = tmp_path / "kontext.safetensors"
    save(path, to_bfl("flux1", flux1_transformer().state_dict()))
    _, info = set_of_path(str(path), None, base)
    assert list(info.tasks) == ["edit"]
    assert info.tasks["edit"].num_inference_steps == 28
    _, info = set_of_path(str(path), "dev", base)
    assert set(info.tasks) == {"generate", "edit", "variation", "inpaint"}
    assert not info.lora_files


def test_an_operator_knows_better_what_a_file_is(tmp_path, bases):
    """Kontext by its name, which would not generate."""
    path = tmp_path / "kontext-merge.safetensors"
    save(path, flux1(bases["flux1"]))
    settings = {"FLUX_COMPONENTS": bases["flux1"], "FLUX_MODEL_LIKE": "dev"}
    with run_api(FLUX_MODEL=path, **settings) as server:
        server.wait_ready()
        assert ask(server, "generations", "kontext-merge").status_code == 200
        listed = requests.get(f"{server.url}/v1/models", timeout=10).json()["data"]
    assert "dev (FLUX_MODEL_LIKE)" in listed[0]["description"]


DRAWN = {
    "kontext": (lambda: flux1_transformer(), "edit", (3.0, True)),
    "fill": (
        lambda: flux1_transformer(in_channels=384, out_channels=64),
        "inpaint",
        (3.0, True),
    ),
    "schnell": (lambda: flux1_transformer(guidance=False), "generate", (1.0, False)),
    "dev": (lambda: flux1_transformer(), "inpaint", (3.0, True)),
}


@pytest.mark.parametrize("variant", DRAWN)
def test_a_variant_draws_with_the_components_of_another(tmp_path, variant):
    """All over one folder: scheduler, channels and guidance are the file's own."""
    make, task, shift = DRAWN[variant]
    path = tmp_path / f"my-{variant}.safetensors"
    save(path, to_bfl("flux1", make().state_dict()))
    base = build("dev", tmp_path / "dev")
    name, info = set_of_path(str(path), None, base)
    sets = ModelSets({name: info}, lambda *_: Placement(torch.device("cpu")))
    pipeline = sets.use(name, print).load(task, (), print).pipeline
    config = pipeline.scheduler.config
    assert (config.shift, config.use_dynamic_shifting) == shift
    inputs = {"image": Image.new("RGB", (64, 64), "red")} if task != "generate" else {}
    if task == "inpaint":
        inputs["mask_image"] = Image.new("L", (64, 64), 255)
    if task == "edit":
        inputs |= {"_auto_resize": False, "max_area": 64 * 64}
    options = {"num_inference_steps": 2, "height": 64, "width": 64}
    made = pipeline(prompt="a", output_type="np", **options, **inputs).images
    assert made.std() > 0


def test_a_base_klein_over_a_distilled_one_takes_guidance(tmp_path, bases):
    path = tmp_path / "klein-base.safetensors"
    save(path, to_bfl("klein", read(bases["klein"], "transformer")))
    name, info = set_of_path(str(path), None, bases["klein"])
    assert info.tasks["generate"].guidance_scale == 4.0
    sets = ModelSets({name: info}, lambda *_: Placement(torch.device("cpu")))
    pipeline = sets.use(name, print).load("generate", (), print).pipeline
    assert pipeline.config.is_distilled is False


def test_the_example_of_a_fine_tune_is_read(tmp_path, bases):
    page = (ROOT / "docs" / "models.md").read_text()
    [example] = [
        t for t in re.findall(r"```toml\n(.*?)```", page, re.S) if "[toon]" in t
    ]
    save(tmp_path / "toonFlux_v2_fp8.safetensors", flux1(bases["flux1"]))
    t5 = read(bases["flux1"], "text_encoder_2")
    save(tmp_path / "t5xxl_fp8_e4m3fn.safetensors", t5)
    (tmp_path / "m.toml").write_text(example.replace("/models", str(tmp_path)))
    toon = load_models(tmp_path / "m.toml", {})["toon"]
    assert set(toon.components) == {"transformer", "text_encoder_2"}
    assert toon.offload == "model"
    assert toon.tasks["generate"].num_inference_steps == 28


def test_a_wrong_family_stops_the_start(tmp_path, bases):
    path = tmp_path / "a.safetensors"
    save(path, to_bfl("klein", read(bases["klein"], "transformer")))
    with pytest.raises(BadSetting, match=r"FLUX\.2"):
        set_of_path(str(path), "dev", bases["flux1"])


def test_text_encoders_and_vae_come_from_files_too(tmp_path, bases):
    base = bases["flux1"]
    lines = [f'base_model = "{base}"']
    clip = read(base, "text_encoder")
    clip = {n.removeprefix("text_model."): t for n, t in clip.items()}
    other_half = {"vision_model.layer.weight": torch.ones(1)}
    whole = prefixed("text_model.", clip) | other_half
    save(tmp_path / "clip_l.safetensors", whole)
    t5 = {n: t.to(torch.float8_e4m3fn) for n, t in read(base, "text_encoder_2").items()}
    save(tmp_path / "t5xxl_fp8.safetensors", t5)
    vae = {n: t.to(torch.float8_e4m3fn) for n, t in read(base, "vae").items()}
    save(tmp_path / "ae.safetensors", to_ldm_vae(vae))
    lines += [
        f'text_encoder = "{tmp_path}/clip_l.safetensors"',
        f'text_encoder_2 = "{tmp_path}/t5xxl_fp8.safetensors"',
        f'vae = "{tmp_path}/ae.safetensors"',
    ]
    task = (
        'tasks.generate = { pipeline = "FluxPipeline", num_inference_steps = 2, '
        'guidance_parameter = "guidance_scale", guidance_scale = 3.5 }'
    )
    same = with_component(base, tmp_path / "t5", "text_encoder_2", t5)
    same = with_component(same, tmp_path / "same", "vae", vae)
    info = tmp_path / "m.toml"
    info.write_text(
        "\n".join(["[files]", *lines, task, "[folder]", f'base_model = "{same}"', task])
    )
    with run_api(MODEL_INFO=info, FLUX_MODEL="files", FLUX_MAX_LOADED=2) as server:
        server.wait_ready()
        one, other = draw(server, "files"), draw(server, "folder")
    assert np.abs(one - other).max() <= 1


@pytest.mark.parametrize("prefix", ["text_model.", ""], ids=["old", "bare"])
def test_a_clip_is_read_however_transformers_saved_it(tmp_path, bases, prefix):
    base = bases["flux1"]
    clip = CLIPTextModel.from_pretrained(base / "text_encoder").state_dict()
    bare = {name.removeprefix("text_model."): t for name, t in clip.items()}
    facts = identify_file(save(tmp_path / "a.safetensors", prefixed(prefix, bare)))
    part = FilePart(facts, facts.components["text_encoder"])
    config = config_of("text_encoder", part, base)
    loaded = load_component(CLIPTextModel, config, facts, part.prefix, torch.float32)
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, bare[name.removeprefix("text_model.")]), name


def test_a_folder_for_a_transformer_needs_no_set_to_be_like(tmp_path, bases):
    base, info = bases["flux1"], tmp_path / "m.toml"
    transformer = f'[mine]\ntransformer = "{base / "transformer"}"\n'
    rest = f'base_model = "{base}"\n{SETS["flux1"].format()}'
    info.write_text(transformer + rest)
    mine = load_models(info, {})["mine"]
    assert mine.components == {"transformer": Folder(base / "transformer")}
    assert list(mine.tasks) == ["generate"]
    info.write_text(transformer)
    with pytest.raises(
        BadSetting, match=r"mine\.like: missing; no file on this machine"
    ):
        load_models(info, {})


# llama.cpp's names of a text encoder's layers: outside of the blocks, then in each.
T5_NAMES = {
    "shared": "token_embd",
    "encoder.final_layer_norm": "enc.output_norm",
    "layer.0.SelfAttention.q": "attn_q",
    "layer.0.SelfAttention.k": "attn_k",
    "layer.0.SelfAttention.v": "attn_v",
    "layer.0.SelfAttention.o": "attn_o",
    "layer.0.SelfAttention.relative_attention_bias": "attn_rel_b",
    "layer.0.layer_norm": "attn_norm",
    "layer.1.layer_norm": "ffn_norm",
    "layer.1.DenseReluDense.wi_0": "ffn_gate",
    "layer.1.DenseReluDense.wi_1": "ffn_up",
    "layer.1.DenseReluDense.wo": "ffn_down",
}
QWEN_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
# Family -> component, architecture, layers' names, their blocks and llama.cpp's.
ENCODERS = {
    "flux1": ("text_encoder_2", "t5encoder", T5_NAMES, "encoder.block", "enc.blk"),
    "klein": ("text_encoder", "qwen3", QWEN_NAMES, "model.layers", "blk"),
}


def write_encoder(path, family, tensors):
    """Write a text encoder as GGUF, 8 bits where a row holds whole blocks; gives what
    it stands for."""
    _, architecture, names, blocks, theirs = ENCODERS[family]
    writer, meant = gguf.GGUFWriter(path, architecture), dict(tensors)
    for name, tensor in tensors.items():
        found = re.fullmatch(rf"{re.escape(blocks)}\.(\d+)\.(.+)\.weight", name)
        layer = found[2] if found else name.removesuffix(".weight")
        if layer not in names:
            # Heads and second names of embeddings, which llama.cpp leaves out, too.
            assert layer in ("lm_head", "encoder.embed_tokens"), name
            continue
        key = f"{theirs}.{found[1]}.{names[layer]}" if found else names[layer]
        kind = gguf.GGMLQuantizationType.Q8_0
        if tensor.dim() == 2 and "rel_b" not in key and tensor.shape[1] % 32 == 0:
            packed, meant[name] = quantize_rows("Q8_0", tensor, None)
            writer.add_tensor(f"{key}.weight", packed, raw_dtype=kind)
        else:
            writer.add_tensor(f"{key}.weight", tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return meant


@pytest.mark.parametrize("family", ENCODERS)
def test_a_text_encoder_in_gguf_reads_as_its_weights_do(tmp_path, bases, family):
    """Closer than a picture tells: what they do in a random model's is faint."""
    component, base, path = ENCODERS[family][0], bases[family], tmp_path / "a.gguf"
    meant = write_encoder(path, family, read(base, component))
    kind = {"flux1": T5EncoderModel, "klein": Qwen3ForCausalLM}[family]
    facts = identify_file(path)
    part = FilePart(facts, facts.components[component])
    config = config_of(component, part, base)
    loaded = load_component(kind, config, facts, part.prefix, torch.float32)
    plain = kind.from_pretrained(base / component).eval()
    plain.load_state_dict(meant, strict=False)
    tokens = torch.arange(20).reshape(1, 20)
    with torch.no_grad():
        one, other = (
            model(tokens, output_hidden_states=True).hidden_states[-1]
            for model in (loaded, plain)
        )
    assert torch.allclose(one, other, atol=1e-4)


def test_text_encoders_in_gguf_draw_what_their_weights_draw(tmp_path, bases):
    lines = []
    for family, (component, *_) in ENCODERS.items():
        base, path = bases[family], tmp_path / f"{family}.gguf"
        meant = write_encoder(path, family, read(base, component))
        same = with_component(base, tmp_path / family, component, meant)
        lines += [f"[{family}-file]", SETS[family].format()]
        lines += [f'base_model = "{base}"', f'{component} = "{path}"']
        lines += [f"[{family}-folder]", SETS[family].format(), f'base_model = "{same}"']
    info = tmp_path / "m.toml"
    info.write_text("\n".join(lines))
    with run_api(MODEL_INFO=info, FLUX_MODEL="klein-file", FLUX_MAX_LOADED=2) as server:
        server.wait_ready()
        for family in ENCODERS:
            one, other = (
                draw(server, f"{family}-file"),
                draw(server, f"{family}-folder"),
            )
            assert np.abs(one - other).max() <= 1
