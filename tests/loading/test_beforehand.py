"""What is looked at before a set is unloaded for another: all files of its task."""

from __future__ import annotations

import json

import pytest
import torch

from flux_api.loading.beforehand import check_files
from flux_api.loading.components import load, load_prior
from flux_api.loading.footprint import footprint_of
from flux_api.loading.placement import Placement
from flux_api.models.catalog import MODEL_INFO
from flux_api.models.file_sets import set_of_path
from flux_api.models.hub import ModelMissing
from flux_api.models.toml_file import load_models
from tests.gpu.test_quantized_folder import write_folder
from tests.support.checkpoint_forms import read, save, to_bfl
from tests.support.tiny_sets import write_sets

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Checkpoints of the sets with the most of them."""
    return tmp_path_factory.mktemp("sets")


@pytest.fixture(scope="module")
def models(folder):
    """Those sets."""
    names = ("flux1", "flux3-klein", "flux3-klein-direct", "klein-4b")
    return load_models(write_sets(folder, names), MODEL_INFO)


@pytest.fixture
def spoiled(folder, request):
    """A component without its weights, for a while."""
    away = folder / "away"
    (folder / request.param).rename(away)
    yield request.param
    away.rename(folder / request.param)


NEEDED = [
    ("flux1", "generate", "dev/transformer"),
    ("flux1", "edit", "kontext/transformer"),
    ("flux1", "edit", "dev/vae"),
    ("flux1", "edit", "dev/text_encoder_2"),
    ("flux1", "inpaint", "fill/transformer"),
    ("flux1", "variation", "redux/image_embedder"),
    ("flux3-klein", "edit", "flux3-klein/transformer"),
    ("flux3-klein", "generate", "flux3-klein/prompt_upsampler"),
]
NOT_NEEDED = [
    # What is the same in all of them comes from the set's own.
    ("flux1", "edit", "kontext/vae"),
    ("flux1", "edit", "dev/transformer"),
    ("flux1", "generate", "redux/image_embedder"),
    ("flux3-klein-direct", "generate", "flux3-klein/prompt_upsampler"),
]


@pytest.mark.parametrize(("name", "task", "spoiled"), NEEDED, indirect=["spoiled"])
def test_what_a_task_needs_is_missed(models, name, task, spoiled):
    checkpoint, _, component = spoiled.partition("/")
    with pytest.raises(ModelMissing) as caught:
        check_files(models[name], task, print)
    said = f"{checkpoint}: there is no .safetensors file of the {component}"
    assert caught.value.message == said


@pytest.mark.parametrize(("name", "task", "spoiled"), NOT_NEEDED, indirect=["spoiled"])
def test_what_it_does_not_need_is_not(models, name, task, spoiled):
    check_files(models[name], task, print)


@pytest.mark.parametrize(
    "text", ['{"weight_map": {"a', "{}", "[]", '{"weight_map": 1}']
)
def test_an_index_that_was_cut_short_is_damaged(models, folder, text):
    name = "diffusion_pytorch_model.safetensors.index.json"
    index = folder / "dev/transformer" / name
    index.write_text(text)
    try:
        with pytest.raises(ModelMissing) as caught:
            check_files(models["flux1"], "generate", print)
    finally:
        index.unlink()
    assert caught.value.message == f"dev: {name} of the transformer is damaged"


def test_a_file_takes_the_rest_from_another_model_of_its_family(models, folder):
    """Fill over the folder of dev, which alone would be no checkpoint for it."""
    tensors = to_bfl("flux1", read(folder / "fill", "transformer"))
    path = save(folder / "my-fill.safetensors", tensors)
    _, info = set_of_path(str(path), None, folder / "dev")
    assert list(info.tasks) == ["inpaint"]
    check_files(info, "inpaint", print)


def test_a_component_that_no_index_names_is_missed(models, folder):
    """Where each lies is written there alone."""
    index = folder / "flux3-klein" / "modular_model_index.json"
    whole = index.read_text()
    named = json.loads(whole)
    del named["vae"]
    index.write_text(json.dumps(named))
    info = models["flux3-klein-direct"]
    try:
        with pytest.raises(ModelMissing, match="^flux3-klein has no vae$"):
            load(info, info.tasks["generate"], {}, Placement(CPU), print)
    finally:
        index.write_text(whole)


def test_a_prior_of_other_shapes_is_said_to_be_damaged(models, folder, tmp_path):
    [file] = (folder / "redux" / "image_embedder").glob("*.safetensors")
    whole = file.read_bytes()
    tensors = read(folder / "redux", "image_embedder")
    save(file, {name: torch.zeros(3, 5) for name in tensors})
    source = models["flux1"].tasks["variation"].prior
    texts = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    try:
        with pytest.raises(ModelMissing, match="the weights of redux are missing or"):
            load_prior(source, dict.fromkeys(texts), Placement(CPU), print)
    finally:
        file.write_bytes(whole)


def test_weights_that_were_packed_before_count_as_they_are(models, folder, tmp_path):
    """In the folder that they come from, not in that of the rest."""
    packed = write_folder(tmp_path / "nf4", "nf4", folder / "klein" / "transformer")
    table = tmp_path / "m.toml"
    table.write_text(
        f'[mine]\nlike = "klein-4b"\nbase_model = "{folder / "klein"}"\n'
        f'transformer = "{packed}"\n'
    )
    mine = footprint_of(load_models(table, MODEL_INFO)["mine"])
    [file] = packed.glob("*.safetensors")
    for quantization in ("none", "nf4"):
        assert mine.named("transformer", quantization) == file.stat().st_size
    plain = footprint_of(models["klein-4b"])
    assert mine.named("vae", "none") == plain.named("vae", "none")
    assert mine.named("transformer", "none") < plain.named("transformer", "none", 4)
