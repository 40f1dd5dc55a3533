"""What files of weights take in memory, by their headers, and what is loaded."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from flux_api.loading.components import module_classes
from flux_api.loading.file_weights import own_files, weigh_file
from flux_api.loading.footprint import weigh
from flux_api.loading.own_parts import FilePart, config_of
from flux_api.loading.single_files import load_component
from flux_api.models.catalog import MODEL_INFO
from flux_api.models.checkpoints import identify_file
from flux_api.models.sources import File, Folder
from tests.loading.test_checkpoint_forms import FORMS
from tests.models.test_file_sets import ENCODERS, write_encoder
from tests.support.checkpoint_forms import build_base, read, save

FAMILIES = ("flux1", "klein")
WRITTEN = (
    "bfl",
    "fp8",
    "fp8-all",
    "fp8-scaled",
    "all-in-one",
    "gguf-Q8_0",
    "gguf-Q2_K",
)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Folders in diffusers' layout."""
    folder = tmp_path_factory.mktemp("bases")
    return {family: build_base(family, folder / family) for family in FAMILIES}


def check(path, base, *names):
    """The bytes of each component in the file are those that its header tells."""
    facts = identify_file(path)
    assert set(facts.components) == set(names)
    kinds = module_classes(json.loads((base / "model_index.json").read_text()))
    for name, prefix in facts.components.items():
        config = config_of(name, FilePart(facts, prefix), base)
        weights = weigh_file(name, facts, prefix)
        small = name == "vae" or "CLIP" in kinds[name].__name__
        assert weights.quantizable is not small
        if name == "transformer":
            # Those that would be quantized are those of a folder.
            kind = f"diffusers.{kinds[name].__name__}"
            same = weigh(name, kind, json.dumps(config))
            assert (weights.linear, weights.rows) == (same.linear, same.rows)
        for dtype in (torch.bfloat16, torch.float32):
            loaded = load_component(kinds[name], config, facts, prefix, dtype)
            # One that has two names counts once.
            tensors = {t.data_ptr(): t.nbytes for t in loaded.state_dict().values()}
            told = weights.bytes_in("none", dtype.itemsize)
            assert told == pytest.approx(sum(tensors.values()), rel=0.02), name


@pytest.mark.parametrize("form", WRITTEN)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_header_tells_the_bytes(tmp_path, bases, family, form):
    path, _ = FORMS[form](tmp_path / "a", family, bases[family])
    whole = ["transformer", "vae", "text_encoder"]
    whole += ["text_encoder_2"] if family == "flux1" else []
    names = whole if form == "all-in-one" else ["transformer"]
    check(path, bases[family], *names)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_encoders_embeddings_are_unpacked(tmp_path, bases, family):
    component = ENCODERS[family][0]
    tensors = read(bases[family], component)
    write_encoder(tmp_path / "a.gguf", family, tensors)
    check(tmp_path / "a.gguf", bases[family], component)
    packed = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in tensors.items()}
    path = save(tmp_path / "fp8.safetensors", packed)
    check(path, bases[family], component)


def test_embeddings_that_a_file_holds_twice_count_once(tmp_path, bases):
    tensors = read(bases["flux1"], "text_encoder_2")
    again = {"encoder.embed_tokens.weight": tensors["shared.weight"]}
    # In either order.
    for number, both in enumerate((again | tensors, tensors | again)):
        path = save(tmp_path / f"{number}.safetensors", both)
        check(path, bases["flux1"], "text_encoder_2")


def test_clips_other_half_is_not_counted(tmp_path, bases):
    text = read(bases["flux1"], "text_encoder")
    text = {f"text_model.{n.removeprefix('text_model.')}": t for n, t in text.items()}
    whole = text | {"vision_model.layer.weight": torch.ones(999, 999)}
    check(save(tmp_path / "a.safetensors", whole), bases["flux1"], "text_encoder")


def test_files_count_whatever_else_a_set_names(tmp_path, bases):
    """A folder, a file that is not here yet, and one that is none of weights."""
    made = {"vae": read(bases["klein"], "vae")}
    made["transformer"] = read(bases["klein"], "transformer")
    for name, tensors in made.items():
        save(tmp_path / f"{name}.safetensors", tensors)
    (tmp_path / "page.safetensors").write_text("<html>")
    folder = Folder(tmp_path)
    for other in (folder, File(folder, "gone.gguf"), File(folder, "page.safetensors")):
        info = replace(
            MODEL_INFO["klein-4b"],
            components={
                "text_encoder": other,
                "transformer": File(folder, "transformer.safetensors"),
                "vae": File(folder, "vae.safetensors"),
            },
        )
        assert own_files(info).keys() == {"transformer", "vae"}


def test_a_file_with_all_in_it_gives_what_nothing_else_is_named_for(tmp_path, bases):
    path, _ = FORMS["all-in-one"](tmp_path / "a", "klein", bases["klein"])
    save(tmp_path / "vae.safetensors", read(bases["klein"], "vae"))
    folder = Folder(tmp_path)
    whole = {"transformer": File(folder, path.name)}
    info = replace(MODEL_INFO["klein-4b"], components=whole)
    assert own_files(info).keys() == {"transformer", "vae", "text_encoder"}
    vae = {"vae": File(folder, "vae.safetensors")}
    for components in (whole | vae, vae | whole):
        found = own_files(replace(info, components=components))
        assert found.keys() == {"transformer", "vae", "text_encoder"}
        assert found["vae"][0].header.path.name == "vae.safetensors"
