"""``doctor FILE``: what a file is, from its header, and whether it fits a card."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from flux_api.commands.doctor import examine
from flux_api.commands.doctor_file import examine_file
from flux_api.errors import BadSetting
from flux_api.loading.footprint import build_empty, describe, footprint_of
from flux_api.models.catalog import MODEL_INFO
from flux_api.models.file_sets import set_of_path
from flux_api.models.headers import GGML_TYPES
from flux_api.models.sources import File, Folder, Repository
from flux_api.models.toml_file import load_models
from tests.support.checkpoint_forms import is_packed, to_bfl
from tests.support.tiny_checkpoints import build

NUMBERS = {name: number for number, (name, _, _) in GGML_TYPES.items()}


def true_sizes(family, name):
    """The tensors of a published transformer, on the meta device."""
    repository = Repository(f"black-forest-labs/{name}")
    module = build_empty(*describe(repository)["transformer"])
    blocks = max(module.config.num_layers, module.config.num_single_layers)
    return to_bfl(family, dict(module.state_dict()), blocks)


def write_header(path, tensors, kind):
    """A GGUF whose data are a hole in the file."""
    infos, offset = [], 0
    for name, tensor in tensors.items():
        own = kind if is_packed(name, tensor) else "F32"
        _, block, width = GGML_TYPES[NUMBERS[own]]
        shape = tuple(tensor.shape)
        infos.append(
            struct.pack("<Q", len(name))
            + name.encode()
            + struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
            + struct.pack("<IQ", NUMBERS[own], offset)
        )
        offset += -(-(math.prod(shape) // block * width) // 32) * 32
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), 0) + b"".join(infos)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(-(-len(head) // 32) * 32 + offset)
    return path


@pytest.fixture(scope="module")
def dev(tmp_path_factory):
    """FLUX.1 dev in true size as Q4_K."""
    path = tmp_path_factory.mktemp("dev") / "flux1-dev-Q4_K_S.gguf"
    return write_header(path, true_sizes("flux1", "FLUX.1-dev"), "Q4_K")


def test_a_gguf_counts_by_its_bytes(dev):
    name, info = set_of_path(str(dev), None, None)
    footprint = footprint_of(info)
    own = footprint.named("transformer", "none")
    assert abs(own - dev.stat().st_size) < 0.05 * dev.stat().st_size
    assert own == footprint.named("transformer", "nf4")
    whole = footprint_of(MODEL_INFO["schnell"]).named("transformer", "none")
    assert 0.25 < own / whole < 0.35
    assert name == "flux1-dev-q4_k_s"


def test_doctor_says_what_a_gguf_is_and_whether_it_fits(doctor, dev):
    done = doctor(dev, "--gpu", "12", HF_HOME=dev.parent)
    assert done.returncode == 0, done.stderr
    assert "a transformer of FLUX.1 dev" in done.stdout
    assert f"Q4_K, {dev.stat().st_size / 2**30:.2f} GiB, 780 tensors" in done.stdout
    assert "serves it as flux1-dev-q4_k_s: generate, edit" in done.stdout
    assert "on a 12 GB GPU: fits with" in done.stdout
    needs = re.search(r"fits with .+, ([\d.]+) GiB of RAM\n", done.stdout)
    assert 1 < float(needs[1]) < 64
    assert "because 'dev' in its name; FLUX_MODEL_LIKE says otherwise" in done.stdout


def test_what_is_only_taken_for_something_is_told_with_the_reason(tmp_path):
    tensors = true_sizes("flux1", "FLUX.1-schnell")
    path = write_header(tmp_path / "unnamed.gguf", tensors, "Q4_K")
    reason = "  because it has no layer for guidance; FLUX_MODEL_LIKE says otherwise"
    assert reason in examine_file(path, {}, 12).splitlines()


def test_plain_files_are_weighed_like_the_set_itself(tmp_path):
    tensors = true_sizes("klein", "FLUX.2-klein-4B")
    path = write_header(tmp_path / "klein.gguf", tensors, "F16")
    _, info = set_of_path(str(path), None, None)
    own, other = footprint_of(info), footprint_of(MODEL_INFO["klein-4b"])
    for quantization in ("none", "nf4", "int8"):
        one, two = own.total(quantization), other.total(quantization)
        assert abs(one - two) < 0.03 * two, quantization
    assert own.working == other.working
    # What is in the file has not to come.
    [line] = [x for x in examine({"mine": info}, 12).splitlines() if "downloads" in x]
    assert "14.9 GiB in bfloat16; downloads about 8 GiB from" in line
    source = "black-forest-labs/FLUX.2-klein-4B"
    with_it = f"  with what comes from {source}: 14.9 GiB of weights"
    assert with_it in examine_file(path, {}, 12).splitlines()


def test_a_lora_is_tried_on_each_set(tmp_path):
    layer = "transformer.single_transformer_blocks.30.attn.to_q"
    path = tmp_path / "ink.safetensors"
    tensors = {
        f"{layer}.lora_A.weight": torch.ones(8, 3072),
        f"{layer}.lora_B.weight": torch.ones(3072, 8),
    }
    save_file(tensors, path, {"modelspec.trigger_phrase": "ink drawing"})
    models = {name: MODEL_INFO[name] for name in ("flux1", "klein-4b")}
    report = examine_file(path, models)
    assert "ink.safetensors: a LoRA, rank 8" in report
    assert "trigger words: ink drawing" in report
    assert "flux1: takes it, 1 layers change" in report
    assert "klein-4b: does not fit this model: it has no layer for" in report
    # One that scales by the weights' values, which are not here: that it fits is known.
    tensors[f"{layer}.dora_scale"] = torch.ones(3072, 1)
    save_file(tensors, path)
    assert "  flux1: takes it" in examine_file(path, models).splitlines()


def test_other_files_are_named(doctor, tmp_path):
    vae = tmp_path / "ae.safetensors"
    save_file({"decoder.conv_in.weight": torch.zeros(1)}, vae)
    assert f'vae = "{vae}"' in examine_file(vae, {})
    pickle = tmp_path / "a.ckpt"
    pickle.write_bytes(b"\x80\x04.")
    with pytest.raises(BadSetting, match="pickle"):
        examine_file(pickle, {})
    done = doctor(pickle)
    assert done.returncode == 1
    assert "a.ckpt is a pickle" in done.stderr


def pasted(report, folder):
    """The set that the table in ``report`` makes, read as MODEL_INFO is."""
    _, _, table = report.partition("in the file of MODEL_INFO:\n")
    lines = [line[4:] for line in table.splitlines() if line.startswith("    ")]
    file = folder / "models.toml"
    file.write_text("\n".join(lines))
    models = load_models(file, MODEL_INFO)
    [name] = models.keys() - MODEL_INFO.keys()
    return models[name]


def qwen(width):
    return {
        "model.embed_tokens.weight": torch.zeros(4, width),
        "model.layers.0.self_attn.q_norm.weight": torch.zeros(1),
    }


def latents(channels, prefix=""):
    return {f"{prefix}decoder.conv_in.weight": torch.zeros(2, channels, 1, 1)}


CLIP = "text_model.encoder.layers.0.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("name", "tensors", "key", "like"),
    [
        ("ae.safetensors", latents(16), "vae", "flux1"),
        ("flux2 vae.v1.safetensors", latents(32), "vae", "klein-4b"),
        ("old vae.safetensors", latents(16, "first_stage_model."), "vae", "flux1"),
        ("qwen_3_4b.safetensors", qwen(2560), "text_encoder", "klein-4b"),
        ("qwen_3_8b.safetensors", qwen(4096), "text_encoder", "klein-9b"),
        ('clip"l.safetensors', {CLIP: torch.zeros(1)}, "text_encoder", "flux1"),
    ],
)
def test_what_is_printed_for_model_info_works_as_pasted(
    tmp_path, monkeypatch, name, tensors, key, like
):
    save_file(tensors, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    made = pasted(examine_file(Path(name), {}), tmp_path)
    assert made.components[key] == File(Folder(tmp_path), name)
    assert made.base_model == MODEL_INFO[like].base_model


def test_a_transformers_table_works_as_pasted(dev, tmp_path):
    made = pasted(examine_file(dev, {}, 12), tmp_path)
    assert made.components["transformer"] == File(Folder(dev.parent), dev.name)
    assert made.tasks["generate"].num_inference_steps == 28


def test_a_whole_folder_is_told_with_what_it_lacks(tmp_path):
    folder = build("klein", tmp_path / "My Klein")
    report = examine_file(folder, {}, 12)
    assert "My Klein: klein-" in report and "a folder" in report
    assert f"FLUX_MODEL='{folder}' serves it as my-klein: generate, edit" in report
    assert "on a 12 GB GPU: fits with" in report and "cannot be loaded" not in report
    shutil.rmtree(folder / "vae")
    report = examine_file(folder, {})
    assert "cannot be loaded: My Klein: there is no .safetensors file of the" in report
    if not torch.cuda.is_available():
        assert "this machine has no GPU; --gpu 12 judges by a card" in report
    component = examine_file(folder / "transformer", {})
    assert "a Flux2Transformer2DModel, one component" in component
    made = pasted(component, tmp_path)
    assert made.components["transformer"] == Folder(folder / "transformer")


def test_a_folder_of_files_is_listed(tmp_path):
    save_file(latents(16), tmp_path / "ae.safetensors")
    (tmp_path / "page.safetensors").write_text("<html>")
    report = examine_file(tmp_path, {})
    assert "ae.safetensors: a VAE" in report and "page.safetensors is" in report
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadSetting, match="empty holds no model"):
        examine_file(tmp_path / "empty", {})


def test_of_very_many_files_the_first_are_told(tmp_path):
    for number in range(53):
        (tmp_path / f"{number:02}.safetensors").write_text("<html>")
    first, *listed = examine_file(tmp_path, {}).splitlines()
    assert first == f"{tmp_path.name}: a folder with 53 files of weights"
    assert [line.split()[0] for line in listed[:50]] == [
        f"{number:02}.safetensors" for number in range(50)
    ]
    assert listed[50] == "  and 3 more" and len(listed) == 52
    (tmp_path / "52.safetensors").unlink()
    (tmp_path / "51.safetensors").unlink()
    (tmp_path / "50.safetensors").unlink()
    assert "more" not in examine_file(tmp_path, {})


def test_of_a_repository_in_the_hubs_cache_the_newest_commit_counts(tmp_path):
    for number, commit in enumerate(("b" * 40, "a" * 40, "0" * 40)):
        folder = tmp_path / "snapshots" / commit
        folder.mkdir(parents=True)
        (folder / f"{number}.safetensors").write_text("<html>")
        # The second came last.
        os.utime(folder, (100 + number % 2, 100 + number % 2))
    assert "1.safetensors" in examine_file(tmp_path, {})


def test_a_modular_pipelines_table_works_as_pasted(tmp_path):
    folder = tmp_path / "modular"
    folder.mkdir()
    (folder / "modular_model_index.json").write_text("{}")
    report = examine_file(folder, {})
    assert report.startswith("modular: a modular pipeline, a folder\n")
    made = pasted(report, tmp_path)
    assert made.base_model == Folder(folder)
    assert made.description == MODEL_INFO["flux3-klein"].description


@pytest.mark.parametrize(
    ("config", "key", "like"),
    [
        ({"_class_name": "FluxTransformer2DModel"}, "transformer", "dev"),
        ({"_class_name": "Flux2Transformer2DModel"}, "transformer", "klein-4b"),
        ({"_class_name": "AutoencoderKL"}, "vae", "flux1"),
        ({"_class_name": "AutoencoderKLFlux2"}, "vae", "klein-4b"),
        ({"architectures": ["CLIPTextModel"]}, "text_encoder", "flux1"),
        ({"architectures": ["T5EncoderModel"]}, "text_encoder_2", "flux1"),
        ({"architectures": ["Qwen3ForCausalLM"]}, "text_encoder", "klein-4b"),
    ],
)
def test_a_component_is_known_by_its_config(tmp_path, config, key, like):
    (tmp_path / "config.json").write_text(json.dumps(config))
    report = examine_file(tmp_path, {})
    assert f'    like = "{like}"' in report.splitlines()
    assert f'    {key} = "{tmp_path}"' in report.splitlines()


@pytest.mark.parametrize(
    "config",
    ["{", "[]", "7", "{}", '{"architectures": []}', '{"_class_name": "Other"}'],
)
def test_a_config_that_says_nothing_makes_no_component(tmp_path, config):
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(BadSetting, match="holds no model"):
        examine_file(tmp_path, {})


def test_doctor_tells_of_one_set_and_of_a_slip(doctor):
    done = doctor("klein-4b", "--gpu", "12")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("klein-4b: FLUX.2 klein 4B")
    assert "fits with" in done.stdout and "flux1" not in done.stdout
    assert "does generate in 4 steps" in done.stdout
    slip = doctor("klein4b")
    assert slip.returncode == 2
    assert "no file or folder klein4b" in slip.stderr
    assert "Did you mean 'klein-4b'?" in slip.stderr
