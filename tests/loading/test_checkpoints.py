"""Checkpoints as people have them: incomplete, foreign, saved as a variant."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from flux_api.core import LoadingProgress
from flux_api.loading.model_sets import ModelSets
from flux_api.loading.placement import Placement
from flux_api.models.catalog import MODEL_INFO
from flux_api.models.hub import ModelMissing
from flux_api.models.sources import Folder
from flux_api.models.toml_file import load_models
from tests.support.servers import run_api, wait_for
from tests.support.tiny_checkpoints import build
from tests.support.wire import generate

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A complete checkpoint."""
    folder = tmp_path_factory.mktemp("whole") / "klein"
    build("klein", folder)
    return folder


@pytest.fixture
def copy(whole, tmp_path):
    """A copy of it to spoil."""
    return shutil.copytree(whole, tmp_path / "mine")


def weights_of(folder, component):
    """The one file of a component's weights."""
    [file] = (folder / component).glob("*.safetensors")
    return file


def load(folder):
    """The pipeline of a set over ``folder``."""
    file = folder.parent / "m.toml"
    file.write_text(f"[klein-4b]\nbase_model = '{folder}'\n")
    models = load_models(file, MODEL_INFO)
    sets = ModelSets(models, lambda *_: Placement(torch.device("cpu")))
    return sets.use("klein-4b", print).load("generate", (), print).pipeline


def drop_tensors(folder):
    file = weights_of(folder, "transformer")
    tensors = load_file(file)
    gone = sorted(tensors)[0]
    save_file({k: t for k, t in tensors.items() if k != gone}, file)
    return f"mine: the transformer lacks {gone}"


def rename_tensors(folder):
    file = weights_of(folder, "text_encoder")
    save_file({f"other.{k}": t for k, t in load_file(file).items()}, file)
    return "mine: the text_encoder lacks "


def drop_weights(folder):
    weights_of(folder, "vae").unlink()
    return "mine: there is no .safetensors file of the vae"


def drop_component(folder):
    shutil.rmtree(folder / "transformer")
    return "mine: there is no .safetensors file of the transformer"


def drop_shard(folder):
    file = weights_of(folder, "transformer")
    shards = [f"diffusion_pytorch_model-{n:05}-of-00002.safetensors" for n in (1, 2)]
    names = sorted(load_file(file))
    file.rename(file.with_name(shards[0]))
    weight_map = {name: shards[number % 2] for number, name in enumerate(names)}
    index = file.with_name("diffusion_pytorch_model.safetensors.index.json")
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return f"mine: the transformer lacks {shards[1]}"


def reshape_tensor(folder):
    file = weights_of(folder, "transformer")
    tensors = load_file(file)
    name = sorted(tensors)[0]
    save_file(tensors | {name: torch.zeros(3, 5)}, file)
    return "the weights of mine are missing or damaged"


SPOILED = (
    *(drop_tensors, rename_tensors, drop_weights, drop_component, drop_shard),
    reshape_tensor,
)


@pytest.mark.parametrize("spoil", SPOILED)
def test_what_is_missing_is_named(copy, spoil):
    expected = spoil(copy)
    with pytest.raises(ModelMissing) as caught:
        load(copy)
    assert caught.value.status == 503
    assert caught.value.message.startswith(expected)
    assert str(copy.parent) not in caught.value.message


def test_loading_counts_its_components(whole):
    info = replace(MODEL_INFO["klein-4b"], base_model=Folder(whole))
    sets = ModelSets({"mine": info}, lambda *_: Placement(torch.device("cpu")))
    told = []
    sets.use("mine", told.append).load("generate", (), told.append)
    counted = [one for one in told if isinstance(one, LoadingProgress)]
    assert [(one.done, one.total) for one in counted] == [(0, 3), (1, 3), (2, 3)]
    assert {one.unit for one in counted} == {"components"}


@pytest.mark.parametrize("variant", ["fp16", "bf16"])
def test_a_checkpoint_saved_as_a_variant_is_loaded(copy, variant):
    for component in ("transformer", "text_encoder", "vae"):
        file = weights_of(copy, component)
        file.rename(file.with_suffix(f".{variant}.safetensors"))
    assert load(copy).transformer.dtype == torch.float32


def test_a_folder_that_another_library_quantized_is_refused_by_it(copy):
    config = copy / "transformer" / "config.json"
    packed = {"quantization_config": {"quant_method": "quanto"}}
    config.write_text(json.dumps(json.loads(config.read_text()) | packed))
    with pytest.raises(ModelMissing, match="quantized by 'quanto'"):
        load(copy)


def test_a_server_says_what_is_missing_and_goes_on_once_it_is_there(copy, whole):
    spoiled = drop_weights(copy)
    file = copy.parent / "m.toml"
    file.write_text(f"[klein-4b]\nbase_model = '{copy}'\n")
    settings = {"MODEL_INFO": file, "FLUX_MODELS": "tiny,klein-4b"}
    with run_api(**settings) as server:
        server.wait_ready()
        answer = generate(server, model="klein-4b", steps=1)
        assert answer.status_code == 503
        assert spoiled in answer.json()["error"]["message"]
        shutil.copy(weights_of(whole, "vae"), copy / "vae")
        wait_for(
            lambda: generate(server, model="klein-4b", steps=1).status_code == 200,
            60,
            server,
        )


# -- one set for another ---------------------------------------------------------------


def cut_short(folder):
    file = weights_of(folder, "transformer")
    file.write_bytes(file.read_bytes()[:-100])
    return f"mine: {file.name} of the transformer is damaged"


def change_family(folder):
    index = folder / "model_index.json"
    text = index.read_text().replace("Flux2KleinPipeline", "FluxPipeline")
    index.write_text(text)
    return "mine holds a FluxPipeline, of another family"


def claim_much(folder):
    """A transformer of some TiB, by its configuration."""
    config = folder / "transformer" / "config.json"
    wide = {"num_attention_heads": 1024, "attention_head_dim": 128}
    config.write_text(json.dumps(json.loads(config.read_text()) | wide))
    return "mine has "


@pytest.fixture(scope="module")
def in_turn(whole, tmp_path_factory):
    """A server with room for one set: the good one, and one to spoil."""
    folder = tmp_path_factory.mktemp("turn")
    spoiled = shutil.copytree(whole, folder / "mine")
    file = folder / "m.toml"
    file.write_text(
        f"[good]\nlike = 'klein-4b'\nbase_model = '{whole}'\n"
        f"[mine]\nlike = 'klein-4b'\nbase_model = '{spoiled}'\n"
    )
    settings = {"MODEL_INFO": file, "FLUX_MODEL": "good", "FLUX_MAX_LOADED": 1}
    with run_api(**settings) as server:
        server.spoiled = spoiled
        yield server.wait_ready()


def draw(server, model):
    """A small picture by ``model``, and what the server has printed meanwhile."""
    before = len(server.output)
    answer = generate(server, model=model, size="64x64", steps=1, seed=5)
    return answer, server.output[before:]


@pytest.mark.parametrize(
    "spoil", [drop_weights, drop_component, drop_shard, cut_short, change_family]
)
def test_the_loaded_set_stays_where_the_other_cannot_load(in_turn, whole, spoil):
    good, _ = draw(in_turn, "good")
    shutil.rmtree(in_turn.spoiled)
    shutil.copytree(whole, in_turn.spoiled)
    expected = spoil(in_turn.spoiled)
    refused, said = draw(in_turn, "mine")
    assert refused.status_code == 503
    message = refused.json()["error"]["message"]
    assert message.startswith(expected)
    assert "unloading" not in said and str(in_turn.spoiled) not in message
    again, said = draw(in_turn, "good")
    assert "loading" not in said
    assert again.json()["data"] == good.json()["data"]


def test_the_loaded_set_stays_where_the_memory_would_never_do(in_turn, whole):
    shutil.rmtree(in_turn.spoiled)
    shutil.copytree(whole, in_turn.spoiled)
    expected = claim_much(in_turn.spoiled)
    draw(in_turn, "good")
    refused, said = draw(in_turn, "mine")
    assert refused.status_code == 503, refused.text
    message = refused.json()["error"]["message"]
    assert message.startswith(expected) and "GiB of memory" in message
    assert "unloading" not in said


def test_the_good_set_comes_back_by_itself(in_turn, whole):
    """What shows only while loading costs the good one its place, for one request."""
    good, _ = draw(in_turn, "good")
    shutil.rmtree(in_turn.spoiled)
    shutil.copytree(whole, in_turn.spoiled)
    expected = rename_tensors(in_turn.spoiled)
    refused, said = draw(in_turn, "mine")
    assert refused.status_code == 503
    assert refused.json()["error"]["message"].startswith(expected)
    assert "unloading good" in said
    again, said = draw(in_turn, "good")
    assert "loading" in said
    assert again.json()["data"] == good.json()["data"]


def test_a_set_that_could_not_be_loaded_costs_no_second_one_its_place(copy, whole):
    drop_tensors(copy)
    file = copy.parent / "m.toml"
    tables = {"one": whole, "two": whole, "mine": copy}
    file.write_text(
        "".join(
            f"[{name}]\nlike = 'klein-4b'\nbase_model = '{folder}'\n"
            for name, folder in tables.items()
        )
    )
    models = load_models(file, MODEL_INFO)
    sets = ModelSets(models, lambda *_: Placement(torch.device("cpu")), most=2)
    for name in ("one", "two"):
        sets.use(name, print).load("generate", (), print)
    with pytest.raises(ModelMissing):
        sets.use("mine", print).load("generate", (), print)
    said = []
    sets.use("one", said.append).load("generate", (), said.append)
    assert "unloading mine" in said and "unloading two" not in said
    assert sets.names == ("two", "one")
