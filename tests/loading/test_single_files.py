"""Components out of files, without a server: numbers that files scale, and what is
wrong with a file said before anything is drawn."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest
import torch

from flux_api.loading import components
from flux_api.loading.components import module_classes
from flux_api.loading.footprint import describe
from flux_api.loading.own_parts import FilePart, config_of
from flux_api.loading.packed import is_packed
from flux_api.loading.placement import Placement
from flux_api.loading.single_files import load_component
from flux_api.models.checkpoints import identify_file
from flux_api.models.file_sets import FILE_SETS
from flux_api.models.hub import ModelMissing
from flux_api.models.sources import File, Folder
from tests.support.checkpoint_forms import (
    from_bfl,
    read,
    save,
    to_bfl,
    to_ldm_vae,
    write_gguf,
)
from tests.support.lora_schemes import bfl_names
from tests.support.tiny_checkpoints import build, flux2_transformer


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """FLUX.1 dev in diffusers' layout."""
    return build("dev", tmp_path_factory.mktemp("base") / "dev")


def load(path, base, name, dtype=torch.float32):
    """The component ``name`` out of the file at ``path``."""
    facts = identify_file(path)
    part = FilePart(facts, facts.components[name])
    kind = module_classes(json.loads((base / "model_index.json").read_text()))[name]
    return load_component(kind, config_of(name, part, base), facts, part.prefix, dtype)


# As tools write the scale of a layer of so many rows: one, in either way, or one a row.
SCALES = {
    "one": lambda rows: torch.tensor(0.5),
    "one in a list": lambda rows: torch.tensor([0.5]),
    "a row": lambda rows: torch.linspace(0.5, 2, rows),
    "a row, as a column": lambda rows: torch.linspace(0.5, 2, rows)[:, None],
}


@pytest.mark.parametrize("kind", SCALES)
def test_scales_count_in_blocks_and_beside_them(tmp_path, base, kind):
    """Each row of a fused matrix by its own, in whichever layer it ends up."""
    tensors = read(base, "transformer")
    made = to_bfl("flux1", tensors)
    written, meant = dict(made), dict(made)
    for name in bfl_names("flux1"):
        key = f"{name}.weight"
        scale = SCALES[kind](made[key].shape[0])
        written[key] = (made[key] / 0.5).to(torch.float8_e4m3fn)
        written[f"{name}.scale_weight"] = scale
        meant[key] = written[key].float() * scale.reshape(-1, 1)
    loaded = load(save(tmp_path / "a.safetensors", written), base, "transformer")
    assert is_packed(loaded)
    for name, tensor in from_bfl("flux1", meant, tensors).items():
        path, _, ending = name.rpartition(".")
        layer = loaded.get_submodule(path)
        found = getattr(layer, ending)
        if found.dtype == torch.int8:
            found = layer.unpacked(torch.float32)
        assert torch.allclose(found, tensor, atol=1e-6), name


@pytest.mark.parametrize("wanted", [torch.float32, torch.bfloat16])
def test_plain_numbers_become_those_that_are_computed_with(tmp_path, base, wanted):
    made = {n: t.double() for n, t in read(base, "transformer").items()}
    path = save(tmp_path / "a.safetensors", made)
    loaded = load(path, base, "transformer", wanted)
    assert not is_packed(loaded)
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, made[name].to(wanted)), name


def lose(name):
    return lambda tensors: tensors.pop(name)


def add(name, *shape):
    return lambda tensors: tensors.update({name: torch.zeros(shape)})


LAYER = "double_blocks.0.img_attn.proj"
IN = "decoder.conv_in.weight"
SPOILED = {
    "lost": ("transformer", lose(f"{LAYER}.bias"), "lacks transformer_blocks.0.attn."),
    "more": ("transformer", add("a.weight", 1), "'a.weight', which is no part of it"),
    "shape": ("transformer", add(f"{LAYER}.weight", 2, 3), "is 2x3, expected 32x32"),
    "number": ("transformer", add(f"{LAYER}.bias"), "is a number, expected 32"),
    "vae lost": ("vae", lose("decoder.conv_in.bias"), "lacks decoder.conv_in.bias"),
    "vae more": ("vae", add("decoder.a.weight", 1), "decoder.a.weight, which is no pa"),
    "vae shape": ("vae", add(IN, 8, 4, 3, 3), "a VAE of another kind"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_what_is_wrong_with_a_file_is_said(tmp_path, base, name):
    component, spoil, words = SPOILED[name]
    tensors = read(base, component)
    made = tensors if component == "vae" else to_bfl("flux1", tensors)
    spoil(made)
    with pytest.raises(ModelMissing) as refused:
        load(save(tmp_path / "a.safetensors", made), base, component)
    assert words in refused.value.message


def test_a_gguf_without_its_package_says_what_to_install(tmp_path, base, monkeypatch):
    made = to_bfl("flux1", read(base, "transformer"))
    write_gguf(tmp_path / "a.gguf", made, "Q8_0")
    assert is_packed(load(tmp_path / "a.gguf", base, "transformer"))
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ModelMissing, match="pip install -r requirements-gguf.txt"):
        load(tmp_path / "a.gguf", base, "transformer")


def test_a_component_without_a_configuration_has_that_of_its_family(tmp_path, base):
    """Nobody saves one beside a file; a VAE's family is not known."""
    made = to_bfl("flux1", read(base, "transformer"))
    facts = identify_file(save(tmp_path / "kontext.safetensors", made))
    part = FilePart(facts, "")
    kontext = describe(FILE_SETS["kontext"].base_model)["transformer"][1]
    own = {"in_channels": 64, "out_channels": None}
    assert config_of("transformer", part, tmp_path) == kontext | own
    vae = save(tmp_path / "vae.safetensors", to_ldm_vae(read(base, "vae")))
    with pytest.raises(ModelMissing, match="there is no config.json of the vae"):
        config_of("vae", FilePart(identify_file(vae), ""), tmp_path)


@pytest.mark.parametrize(
    ("kind", "component", "words"),
    [
        ("klein", "transformer", "this model takes one of FLUX.1"),
        ("vae", "transformer", "a.safetensors is a VAE, fp32, and no transformer"),
        ("nothing", "vae", "a.safetensors holds no model that is known here"),
        ("gone", "vae", "there is no 'a.safetensors' in parts"),
        ("cut", "transformer", "the file, a transformer of FLUX.1 dev, fp32: the fi"),
    ],
)
def test_another_file_than_was_named_is_told_by_what_it_is(
    tmp_path, base, kind, component, words
):
    """As where it was another when the server started: callers see no path."""
    folder = tmp_path / "parts"
    folder.mkdir()
    if kind == "klein":
        tensors = to_bfl("klein", flux2_transformer().state_dict())
        save(folder / "a.safetensors", tensors)
    elif kind == "cut":
        tensors = to_bfl("flux1", read(base, "transformer"))
        del tensors[f"{LAYER}.weight"]
        save(folder / "a.safetensors", tensors)
    elif kind != "gone":
        tensors = read(base, "vae") if kind == "vae" else {"a": torch.zeros(1)}
        save(folder / "a.safetensors", tensors)
    info = replace(
        FILE_SETS["dev"],
        base_model=Folder(base),
        components={
            "text_encoder": Folder(base / "text_encoder"),
            component: File(Folder(folder), "a.safetensors"),
        },
    )
    with pytest.raises(ModelMissing) as refused:
        components.load(
            *(info, info.tasks["generate"], {}),
            *(Placement(torch.device("cpu")), print),
        )
    assert words in refused.value.message
    assert str(tmp_path) not in refused.value.message
