"""The table of sets, the MODEL_INFO file, and what a set refuses by name."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import requests
from safetensors.numpy import save_file

from flux_api.core import Lora
from flux_api.errors import BadSetting, InvalidRequest
from flux_api.http.parameters import Parameters
from flux_api.models.catalog import MODEL_INFO
from flux_api.models.lora_files import check_lora
from flux_api.models.offered import offered_models
from flux_api.models.sizes import SizeRules
from flux_api.models.sources import File, Folder, Repository, parse_source
from flux_api.models.toml_file import ModelTable, TaskTable, load_models
from flux_api.settings import Settings
from tests.support.pictures import make_png
from tests.support.servers import ROOT, run_api
from tests.support.wire import generate, post, seen

SHIPPED = "tiny,klein-4b,klein-9b-kv,flux2-dev,flux1,schnell,flux3-klein"


@pytest.fixture(scope="module")
def offered():
    """Several sets over the backend without torch: requests are judged as in life."""
    with run_api(app="tests.support.fake_app:app", FLUX_MODELS=SHIPPED) as server:
        yield server.wait_ready()


def edit(server, count=1, mask=False, **values):
    """An edit of ``count`` pictures."""
    files = [("image[]", ("a.png", make_png())) for _ in range(count)]
    if mask:
        files.append(("mask", ("mask.png", make_png())))
    values = {"prompt": "a duck"} | values
    return post(server, "/v1/images/edits", data=values, files=files)


REFUSED = [
    ("klein-4b", {"guidance_scale": 3.5}, "guidance_scale"),
    ("schnell", {"guidance_scale": 3.5}, "guidance_scale"),
    ("flux3-klein", {"guidance_scale": 4}, "guidance_scale"),
    ("klein-4b", {"negative_prompt": "ugly"}, "negative_prompt"),
    ("flux1", {"negative_prompt": "ugly"}, "negative_prompt"),
    ("klein-4b", {"size": "1000x1024"}, "size"),
    ("klein-4b", {"size": "4096x1024"}, "size"),
    ("flux1", {"size": "2048x2048"}, "size"),
    ("flux3-klein", {"size": "4096x4096"}, "size"),
    ("tiny", {"loras": "turbo-alpha"}, "loras"),
    ("klein-4b", {"loras": [{"name": "../../etc/passwd"}]}, "loras"),
    ("klein-4b", {"loras": [{"name": "https://host/a.safetensors"}]}, "loras"),
]


@pytest.mark.parametrize(("name", "values", "param"), REFUSED)
def test_what_a_set_cannot_honour_is_refused_by_name(offered, name, values, param):
    answer = generate(offered, model=name, **values)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_sizes_off_the_grid_are_told_the_grid(offered):
    message = generate(offered, model="flux1", size="1000x1000").json()["error"]
    assert "multiples of 16 from 64 to 2048" in message["message"]
    assert "2.1 megapixels" in message["message"]


@pytest.mark.parametrize(
    ("name", "size", "status"),
    [
        ("klein-4b", "64x64", 200),
        ("klein-4b", "48x64", 400),
        ("klein-4b", "64x48", 400),
        ("klein-4b", "2048x2048", 200),
        ("klein-4b", "2064x64", 400),
        ("klein-4b", "64x2064", 400),
        ("flux1", "2048x1024", 200),
        ("flux1", "1024x2048", 200),
        ("flux1", "2048x1040", 400),
        ("flux1", "1040x2048", 400),
    ],
)
def test_sizes_are_taken_up_to_their_very_limits(offered, name, size, status):
    answer = generate(offered, model=name, size=size, num_inference_steps=1)
    assert answer.status_code == status
    if status == 200:
        assert answer.json()["size"] == size
        assert seen(offered)["size"] == [int(side) for side in size.split("x")]


@pytest.mark.parametrize("name", ["flux2-dev", "klein-9b-kv", "flux3-klein"])
def test_masks_need_an_inpaint_pipeline(offered, name):
    answer = edit(offered, mask=True, model=name)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "mask"


@pytest.mark.parametrize(
    ("name", "most"), [("tiny", 1), ("flux1", 1), ("klein-4b", 10), ("flux3-klein", 10)]
)
def test_more_references_than_a_set_takes_are_refused(offered, name, most):
    assert edit(offered, most, model=name).status_code == 200
    answer = edit(offered, most + 1, model=name)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "image"


@pytest.mark.parametrize(
    ("name", "default"), [("klein-4b", 1), ("schnell", 0), ("flux3-klein", 1.0)]
)
def test_default_guidance_of_a_distilled_set_is_accepted(offered, name, default):
    form = {"prompt": "a duck", "model": name, "guidance_scale": default}
    answer = requests.post(f"{offered.url}/process", data=form, timeout=30)
    assert answer.status_code == 200
    assert answer.json()["guidance_scale"] is None
    assert answer.json()["model"] == answer.headers["X-Flux-Model"] == name


@pytest.mark.parametrize(
    ("name", "steps", "guidance"),
    [
        ("klein-4b", 4, None),
        ("klein-9b-kv", 4, None),
        ("flux2-dev", 28, 4.0),
        ("flux1", 8, 3.5),
        ("schnell", 4, None),
        ("flux3-klein", 16, None),
    ],
)
def test_defaults_are_those_of_the_set(offered, name, steps, guidance):
    form = {"prompt": "a star", "model": name}
    body = requests.post(f"{offered.url}/process", data=form, timeout=30).json()
    assert (body["num_inference_steps"], body["guidance_scale"]) == (steps, guidance)
    assert (body["width"], body["height"]) == (1024, 1024)


def test_strict_models_refuse_unknown_names():
    settings = {"FLUX_STRICT_MODELS": 1, "FLUX_MODEL": "klein-4b"}
    with run_api(app="tests.support.fake_app:app", **settings) as server:
        server.wait_ready()
        assert generate(server).json()["model"] == "klein-4b"
        assert generate(server, model="klein-4b").status_code == 200
        for name in ("gpt-image-1", "tiny", "klein"):
            answer = generate(server, model=name)
            assert answer.status_code == 404
            assert answer.json()["error"]["code"] == "model_not_found"
        for name in ("klein4b", "Klein-4B"):
            answer = generate(server, model=name)
            told = requests.get(f"{server.url}/v1/models/{name}", timeout=10)
            for refusal in (answer, told):
                assert refusal.status_code == 404
                message = refusal.json()["error"]["message"]
                assert "Did you mean 'klein-4b'?" in message


def test_a_name_that_is_no_models_is_told(fake):
    """It gets the default model; those of OpenAI, which apps have built in, too."""
    for name in (
        "gpt-image-1",
        "dall-e-3",
        "openai/gpt-image-1",
        "chatgpt-image-latest",
    ):
        assert "warning" not in generate(fake, model=name).json()
    for name, meant in (
        ("tinny", " Did you mean 'tiny'?"),
        ("sdxl", ""),
        ("klein", ""),
    ):
        answer = generate(fake, model=name).json()
        assert answer["model"] == "tiny"
        said = f"There is no model '{name}', so 'tiny' was taken.{meant}"
        assert answer["warning"] == said
    form = {"prompt": "a cat", "model": "klein4b", "steps": 1}
    raw = requests.post(f"{fake.url}/process/raw", data=form, timeout=30)
    # What it does not offer it does not suggest.
    assert raw.headers["X-Flux-Warning"].endswith("so 'tiny' was taken.")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("black-forest-labs/FLUX.1-schnell", "schnell"),
        ("flux.1-SCHNELL", "schnell"),
        ("FLUX.2-klein-4B", "klein-4b"),
        ("black-forest-labs/FLUX.1-Kontext-dev", "flux1"),
        ("FLUX.1-dev", "flux1"),
    ],
)
def test_a_models_name_on_the_hub_is_its_name(offered, name, key):
    form = {"prompt": "a star", "model": name}
    answer = requests.post(f"{offered.url}/process", data=form, timeout=30)
    told = requests.get(f"{offered.url}/v1/models/{name}", timeout=10)
    assert (answer.json()["model"], told.json()["root"]) == (key, key)
    assert "warning" not in answer.json()


def test_a_name_on_the_hub_of_a_model_that_is_not_offered_is_404(fake):
    for name in ("flux1", "black-forest-labs/FLUX.1-dev", "FLUX.1-Fill-dev"):
        answer = generate(fake, model=name)
        assert answer.status_code == 404
        assert f"does not offer {name} but tiny" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("klein4b", "Did you mean 'klein-4b'?"),
        ("black-forest-labs/FLUX.2-klein-9B", "Did you mean 'klein-9b'?"),
        ("flux.1-dev", "Did you mean 'flux1'?"),
        ("FLUX.1-schnell", "Did you mean 'schnell'?"),
        ("klein", "Did you mean 'klein-4b'?"),
        ("me/mine", "becomes a model by MODEL_INFO"),
        ("docs", "Did you mean './docs'?"),
        ("./nowhere", "it is not there"),
    ],
)
def test_what_the_default_model_may_mean_is_told(name, told, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(BadSetting) as caught:
        offered_models(Settings.from_env({"FLUX_MODEL": name}))
    assert told in str(caught.value)


def test_flux_models_are_offered_with_the_default_first():
    chosen = {"FLUX_MODELS": "klein-4b, flux1,klein-4b"}
    assert list(offered_models(Settings.from_env(chosen))) == ["klein-4b", "flux1"]
    chosen["FLUX_MODEL"] = "schnell"
    assert list(offered_models(Settings.from_env(chosen)))[0] == "schnell"
    assert list(offered_models(Settings())) == ["tiny"]


@pytest.mark.parametrize("variable", ["FLUX_MODEL", "FLUX_MODELS"])
def test_unknown_sets_are_start_up_errors(variable):
    told = f"{variable}='klien-4b': one of tiny,.* Did you mean 'klein-4b'"
    with pytest.raises(BadSetting, match=told):
        offered_models(Settings.from_env({variable: "klien-4b"}))


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FLUX_QUANTIZATION", "int3"),
        ("FLUX_OFFLOAD", "disk"),
        ("FLUX_MEMORY", "much"),
        ("FLUX_MAX_LOADED", "0"),
        ("FLUX_STRICT_MODELS", "yes"),
        ("FLUX_LORA_DIR", "/no/such/folder"),
        ("MODEL_INFO", "/no/such/file.toml"),
    ],
)
def test_bad_settings_name_variable_and_value(variable, value):
    with pytest.raises(BadSetting, match=f"{variable}='{value}'"):
        Settings.from_env({variable: value})


# -- the file -------------------------------------------------------------------------


def read(tmp_path, text):
    """The sets with those of a file of ``text``."""
    path = tmp_path / "models.toml"
    path.write_text(text)
    return load_models(path, MODEL_INFO)


def write_checkpoint(folder, pipeline="Flux2KleinPipeline"):
    """As much of one as is looked at before loading."""
    folder.mkdir(parents=True)
    index = json.dumps({"_class_name": pipeline})
    (folder / "model_index.json").write_text(index)


def write_models(folder):
    """A checkpoint and a LoRA."""
    write_checkpoint(folder / "FLUX.2-klein-4B")
    (folder / "loras").mkdir()
    (folder / "loras" / "pencil.safetensors").touch()


def test_the_file_changes_a_shipped_set(tmp_path):
    write_models(tmp_path)
    models = read(
        tmp_path,
        """
        [klein-4b]
        base_model = "./FLUX.2-klein-4B"
        sizes.maximum = 1024
        dtype.vae = "float32"
        loras.pencil = { source = "loras", weight_name = "pencil.safetensors" }
        tasks.generate = { num_inference_steps = 6, loras = { pencil = 0.8 } }
        """,
    )
    changed, shipped = models["klein-4b"], MODEL_INFO["klein-4b"]
    assert changed.base_model == Folder(tmp_path / "FLUX.2-klein-4B")
    assert changed.lora_files["pencil"].source == Folder(tmp_path / "loras")
    assert (changed.sizes.maximum, changed.sizes.multiple) == (1024, 16)
    assert changed.dtype == {"vae": "float32"}
    assert changed.tasks["generate"].num_inference_steps == 6
    assert changed.tasks["generate"].loras == (Lora("pencil", 0.8),)
    assert changed.tasks["edit"] == shipped.tasks["edit"]
    assert changed.licence == shipped.licence
    assert models["flux1"] == MODEL_INFO["flux1"]


def test_the_file_adds_sets(tmp_path):
    models = read(
        tmp_path,
        """
        [mine]
        like = "schnell"
        base_model = "me/mine"

        [other]
        base_model = "me/other"
        tasks.generate = { pipeline = "FluxPipeline", num_inference_steps = 9 }
        """,
    )
    assert models["mine"].tasks == MODEL_INFO["schnell"].tasks
    assert models["other"].tasks["generate"].num_inference_steps == 9
    assert set(models["other"].tasks) == {"generate"}


@pytest.mark.parametrize(
    ("more", "stated"),
    [
        ("", True),
        ("tasks.edit.num_inference_steps = 9", True),
        ("revision = 'v2'", False),
        ("vae = 'me/vae/ae.safetensors'", False),
        ("base_model = 'me/mine'", False),
        ("tasks.edit.base_model = 'me/mine'", False),
        ("tasks.edit.prior = 'me/mine'", False),
    ],
)
def test_a_licence_is_that_of_all_that_a_set_is_made_of(tmp_path, more, stated):
    """Another commit or part may have another one, which only an operator knows."""
    of_klein = MODEL_INFO["klein-4b"].licence
    mine = f"[mine]\nlike = 'klein-4b'\n{more}\n"
    found = read(tmp_path, mine)["mine"].licence
    assert found == (of_klein if stated else "not stated, see the model's page")
    assert read(tmp_path, f"{mine}licence = 'free'")["mine"].licence == "free"


def test_what_the_file_does_not_set_stays(tmp_path):
    models = read(
        tmp_path,
        """
        [klein-4b]
        sizes.default = [512, 768]
        shared_components = ["vae"]
        text_encoder = "me/texts"
        [flux1]
        tasks.edit = { base_model = "me/other", loras = { a = 0.5 } }
        loras.a = { source = "me/loras", weight_name = "a.safetensors" }
        [again]
        like = "klein-4b"
        vae = "me/vae"
        """,
    )
    klein, again, flux1 = models["klein-4b"], models["again"], models["flux1"]
    sizes = replace(MODEL_INFO["klein-4b"].sizes, default=(512, 768))
    assert (klein.sizes, klein.shared_components) == (sizes, ("vae",))
    texts = Repository("me/texts")
    assert again.components == {"text_encoder": texts, "vae": Repository("me/vae")}
    own = MODEL_INFO["flux1"]
    assert flux1.lora_files.keys() == {"turbo-alpha", "a"}
    other = {"base_model": Repository("me/other"), "loras": (Lora("a", 0.5),)}
    assert flux1.tasks["edit"] == replace(own.tasks["edit"], **other)
    assert flux1.tasks["generate"] == own.tasks["generate"]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("klein-4b.base_modle = 'a/b'", "klein-4b.base_modle: unknown"),
        ("klein-4b.base_model = 3", "klein-4b.base_model: expected a valid string"),
        (
            "klein-4b.tasks.edit.num_inference_steps = 'x'",
            "klein-4b.tasks.edit.num_inference_steps: expected a valid integer",
        ),
        (
            "klein-4b.tasks.edit.pipeline = 'os.system'",
            "klein-4b.tasks.edit.pipeline: expected one of",
        ),
        ("klein-4b.tasks.paint = {}", "klein-4b.tasks.paint: unknown"),
        ("klein-4b.dtype.vae = 'int4'", "klein-4b.dtype.vae: expected 'bfloat16'"),
        ("klein-4b.sizes.default = [64, 'a']", "sizes.default.1: expected a valid int"),
        ("klein-4b.sizes.default = [64]", "klein-4b.sizes.default: List should have"),
        (
            "klein-4b.loras.a = {source='b', weight_name='a.bin'}",
            "klein-4b.loras.a.weight_name: expected a .safetensors",
        ),
        ("mine.like = 'nobody'", "mine.like: expected one of"),
        ("mine.like = 'klein4b'", "Did you mean 'klein-4b'?"),
        ("{'mine': {}}", "no TOML: "),
        ("mine.licence = 'free'", "mine.base_model: missing, or 'like' with the set"),
        ("[\u7d75]\nlike = 'tiny'", "; expected a name of A-Z"),
        ("[tiny]\n\n [my \u7d75.sizes]\n", "; expected a name of A-Z"),
        ("['\u7d75']\nlike = 'tiny'", "\u7d75: expected a name of A-Z"),
        ("mine.base_model = 'a/b'", "mine.tasks: missing"),
        ("'a b'.like = 'tiny'", "a b: expected a name"),
        ("x = 1", "x: expected a table"),
        ("klein-4b.base_model = '/nowhere'", "klein-4b.base_model: there is no"),
        ("klein-4b.base_model = './nowhere'", "klein-4b.base_model: there is no"),
        ("klein-4b.vae = 'vaes/ae.safetensors'", "klein-4b.vae: there is no '/"),
        ("mine.transformer = 'my.gguf'", "mine.transformer: there is no '/"),
        ("klein-4b.transformer = 'klein/b/my.gguf'", "transformer: there is no '/"),
        ("klein-4b.base_model = '~nobody-here/a'", "base_model: expected a folder, or"),
        (f"klein-4b.base_model = '{'a' * 5000}'", "base_model: expected a folder, or"),
        (f"klein-4b.base_model = '/{'a' * 5000}'", "base_model: expected a folder, or"),
        (f"x = {'[' * 5000}", "MODEL_INFO="),
        ("flux1.tasks.variation.prior = 'flux1'", "flux1.tasks.variation.prior: "),
        ("klein-4b.base_model = 'number'", "base_model: model_index.json in"),
        ("klein-4b.base_model = 'deep'", "base_model: model_index.json in"),
        ("klein-4b.base_model = 'a b'", "klein-4b.base_model: expected a folder, or"),
        ("klein-4b.base_model = 'empty'", "there is no model_index.json in"),
        ("klein-4b.base_model = 'flux1'", "which is of another family than"),
        ("flux1.tasks.edit.base_model = 'klein'", "flux1.tasks.edit.base_model: "),
        (
            "klein-4b.base_model = 'a/b/c.safetensors'",
            "diffusers' layout, not the file",
        ),
        (
            "klein-4b.loras.a = {source='klein', weight_name='a.safetensors'}",
            "klein-4b.loras.a.weight_name: there is no 'a.safetensors'",
        ),
        ("klein-4b.sizes.default = [1000, 1000]", "1000x1000 is not among multiples"),
        ("klein-4b.sizes = {multiple = 48, minimum = 64}", "sizes.minimum: expected a"),
        ("klein-4b.sizes.max_pixels = 4096", "is more than max_pixels"),
        (
            "klein-4b.tasks.edit.guidance_scale = 3.5",
            "klein-4b.tasks.edit.guidance_scale: guidance plays no part",
        ),
        ("klein-4b.base_modle = 'a/b'", "did you mean 'base_model'?"),
        ("klein-4b.sizes.max_pixel = 4096", "did you mean 'max_pixels'?"),
        ("klein-4b.tasks.edit.step = 3", "klein-4b.tasks.edit.step: unknown"),
        ("klein-4b.tasks.edit.steps = 3", "did you mean 'num_inference_steps'?"),
        (
            "klein-4b = {base_model='klein', revision='v2'}",
            "klein-4b.revision: the base_model is not a Hub id",
        ),
        (
            "flux1.tasks = {generate.base_model='a/b', variation.base_model='a/b'}",
            "flux1.base_model: no task works with it",
        ),
        ("klein-4b.vae = 'a b'", "klein-4b.vae: expected a folder, or a Hub id like "),
        ("klein-4b.vae = 'a b'", "or a file in one, got 'a b'"),
        (
            "klein-4b.vae = 'page.safetensors'",
            "is not a .safetensors file but a web page",
        ),
        ("klein-4b.text_encoder = 'ae.safetensors'", "a VAE, fp32, not a text_encoder"),
        ("mine.transformer = 'ae.safetensors'", "mine.transformer: the file is a VAE"),
        ("klein-4b.licence = ' '", "klein-4b.licence: expected a text"),
        ("klein-4b.tasks.edit.arguments.a = [1]", "arguments.a: expected a text, a nu"),
        ("klein-4b.loras.'a/b' = {source='b'}", "klein-4b.loras.a/b: expected A-Z"),
        (
            "klein-4b.tasks.edit.num_inference_steps = 0",
            "num_inference_steps: expected greater than or equal to 1, got 0",
        ),
        (
            "klein-4b.tasks.inpaint.strength = 1.5",
            "strength: expected less than or equal to 1, got 1.5",
        ),
        (
            "mine = {base_model='a/b', tasks.edit={pipeline='FluxPipeline'}}",
            "mine.tasks.edit.num_inference_steps: missing",
        ),
        (
            "mine = {base_model='a/b', tasks.edit={num_inference_steps=1}}",
            "mine.tasks.edit.pipeline: missing",
        ),
    ],
)
def test_the_file_is_refused_with_the_key_that_is_wrong(tmp_path, text, key):
    write_checkpoint(tmp_path / "klein")
    write_checkpoint(tmp_path / "flux1", "FluxPipeline")
    write_checkpoint(tmp_path / "number", 5)
    write_checkpoint(tmp_path / "deep")
    (tmp_path / "deep" / "model_index.json").write_text("[" * 100_000)
    (tmp_path / "empty").mkdir()
    (tmp_path / "klein" / "b").mkdir()
    vae = {"decoder.conv_in.weight": np.zeros((2, 2), np.float32)}
    save_file(vae, tmp_path / "ae.safetensors")
    (tmp_path / "page.safetensors").write_text("<html>")
    with pytest.raises(BadSetting) as caught:
        read(tmp_path, text)
    assert "MODEL_INFO=" in str(caught.value)
    assert key in str(caught.value)


PAGE = "https://huggingface.co/me/mine"


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("me/mine", Repository("me/mine")),
        ("me/mine@v1.2", Repository("me/mine", "v1.2")),
        (PAGE, Repository("me/mine")),
        (PAGE + "/", Repository("me/mine")),
        (PAGE + "/tree/dev?x=1", Repository("me/mine", "dev")),
        ("{0}/klein", Folder),
        ("klein", Folder),
        ("./klein", Folder),
        ("me/klein", Folder),
        ("../{1}/klein", Folder),
        ("~/klein", Folder),
    ],
)
def test_a_model_is_where_the_operator_means(tmp_path, monkeypatch, text, source):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_checkpoint(tmp_path / "klein")
    write_checkpoint(tmp_path / "me" / "klein")
    text = text.format(tmp_path, tmp_path.name)
    found = read(tmp_path, f"klein-4b.base_model = '{text}'")["klein-4b"].base_model
    if source is Folder:
        assert isinstance(found, Folder)
        assert found.path.samefile(
            tmp_path / text.split(tmp_path.name)[-1].lstrip("~./")
        )
    else:
        assert found == source


def test_a_file_on_a_page_of_the_hub_is_a_file():
    found = parse_source(PAGE + "/blob/main/loras/a.safetensors", Path("."))
    assert found == File(Repository("me/mine"), "loras/a.safetensors")


def test_what_the_file_adds_is_offered_unless_models_are_listed(tmp_path):
    (tmp_path / "m.toml").write_text("[mine]\nlike = 'klein-4b'\n")
    settings = {"MODEL_INFO": str(tmp_path / "m.toml")}
    offered = offered_models(Settings.from_env(settings))
    assert list(offered) == ["tiny", "mine"]
    listed = Settings.from_env(settings | {"FLUX_MODELS": "tiny,schnell"})
    assert list(offered_models(listed)) == ["tiny", "schnell"]


def test_a_lora_of_a_task_that_is_nowhere_is_named(tmp_path):
    text = "klein-4b.tasks.generate.loras = { ink = 0.5 }"
    (tmp_path / "m.toml").write_text(text)
    settings = {"MODEL_INFO": str(tmp_path / "m.toml"), "FLUX_MODEL": "klein-4b"}
    with pytest.raises(BadSetting, match=r"klein-4b\.tasks\.generate\.loras\.ink"):
        offered_models(Settings.from_env(settings))
    (tmp_path / "ink.safetensors").touch()
    settings["FLUX_LORA_DIR"] = str(tmp_path)
    assert offered_models(Settings.from_env(settings))


def test_the_file_may_begin_with_a_byte_order_mark_and_is_in_utf_8(tmp_path):
    path, text = tmp_path / "models.toml", "# \u7d75\n[mine]\nlike = 'tiny'\n"
    path.write_bytes(text.encode("utf-8-sig"))
    assert load_models(path, MODEL_INFO)["mine"].tasks == MODEL_INFO["tiny"].tasks
    path.write_bytes(text.encode("shift_jis"))
    with pytest.raises(BadSetting, match="save it as UTF-8"):
        load_models(path, MODEL_INFO)


def test_the_file_is_refused_with_the_line_of_a_slip(tmp_path):
    with pytest.raises(BadSetting, match="line 2"):
        read(tmp_path, "[tiny]\nbase_model = \n")


def test_the_page_about_models_says_what_is_so(tmp_path):
    page = (ROOT / "docs" / "models.md").read_text()
    example = re.findall(r"```toml\n(.*?)```", page, re.S)
    write_models(tmp_path / "models")
    [sketches] = [text for text in example if "[sketches]" in text]
    models = read(tmp_path, sketches.replace("/models", str(tmp_path / "models")))
    assert models["sketches"].tasks["generate"].loras == (Lora("pencil", 0.8),)
    assert models["flux3-klein"].skip_blocks == ("prompt_upsampler",)
    for name in MODEL_INFO:
        assert f"| `{name}` |" in page
    own = ModelTable.model_fields.keys() - {"loras", "tasks"}
    for key in (*own, *TaskTable.model_fields):
        assert f"`{key}`" in page, key


@pytest.mark.parametrize("language", [".", "ja"])
def test_the_page_about_models_tells_steps_and_guidance(language):
    """Once where all tasks have the same, else for each."""
    page = (ROOT / "docs" / language / "models.md").read_text("utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \|[^|]*\|([^|]*)\|[^|]*GiB \|", page, re.M)
    assert [name for name, _ in rows] == list(MODEL_INFO)
    for name, told in rows:
        tasks = MODEL_INFO[name].tasks.values()
        expected = [
            (task.num_inference_steps, task.guidance_parameter and task.guidance_scale)
            for task in tasks
        ]
        pairs = re.findall(r"(\d+)(?:, |、)(?:([\d.]+)|none|なし)", told)
        found = [(int(n), float(scale) if scale else None) for n, scale in pairs]
        assert (found * len(tasks) if len(found) == 1 else found) == expected, name


# -- values ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (None, ()),
        ("", ()),
        ("a:0.8,b:1", (Lora("a", 0.8), Lora("b", 1.0))),
        ("a, b.c:-2", (Lora("a", 1.0), Lora("b.c", -2.0))),
        ('[{"name": "a", "adapter_weight": 0.5}]', (Lora("a", 0.5),)),
        ([{"name": "a"}, "b"], (Lora("a", 1.0), Lora("b", 1.0))),
    ],
)
def test_loras_are_read(value, found):
    assert Parameters.read({"loras": value}).loras == found


@pytest.mark.parametrize(
    "value",
    ["a:11", "a:x", "a,a", "[{", '{"name": "a"}', 3, [3], [{}], ","]
    + [[{"name": "a", "path": "b"}], [{"name": "a", "adapter_weight": "nan"}]]
    + [["a"] * 2, [f"a{n}" for n in range(9)], ["a" * 1025], [{"name": ["a"]}]],
)
def test_bad_loras_are_refused(value):
    with pytest.raises(InvalidRequest) as caught:
        Parameters.read({"loras": value})
    assert caught.value.param == "loras"


def test_sizes_are_fitted_within_every_limit():
    rules = SizeRules(max_pixels=2048 * 1024)
    for size in ((4000, 3000), (2048, 2048), (9000, 90), (33, 5000), (1455, 1443)):
        width, height = rules.fit(size)
        assert rules.allows(width) and rules.allows(height)
        assert width * height <= rules.max_pixels
    assert rules.fit((1000, 500)) == (992, 496)


def test_a_lora_file_has_a_largest_size(tmp_path):
    """Files with a hole: they take no room."""
    for size, why in (
        (4 * 2**30, "is not a valid"),
        (4 * 2**30 + 1, "is larger than 4 G"),
    ):
        path = tmp_path / "large.safetensors"
        path.touch()
        os.truncate(path, size)
        with pytest.raises(InvalidRequest, match=f"^The LoRA 'large' {why}"):
            check_lora(path, "large")


def test_every_set_says_what_its_licence_allows():
    for name, info in MODEL_INFO.items():
        assert info.licence and info.description, name
