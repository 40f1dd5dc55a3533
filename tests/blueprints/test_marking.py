"""Marks and recipes over HTTP: what each FLUX_METADATA writes, and a recipe read from
a picture's file, sent again, makes the same pixels."""

from __future__ import annotations

import base64
import hashlib
import io
import json

import pytest
import requests
from PIL import Image

from flux_api.images.recipe import fields_of, read_recipe
from tests.support.pictures import make_png
from tests.support.servers import run_api
from tests.support.tiny_sets import write_lora, write_sets
from tests.support.wire import make_mask

FORMATS = ("png", "jpeg", "webp")
SOURCE = b"/digitalsourcetype/"
FAKE = "tests.support.fake_app:app"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def pixels(data):
    with Image.open(io.BytesIO(data)) as image:
        return image.mode, image.size, image.tobytes()


@pytest.fixture(scope="module")
def schnell(tmp_path_factory):
    """A real model with every task, and a LoRA, that writes prompts."""
    folder = tmp_path_factory.mktemp("schnell")
    (folder / "loras").mkdir()
    write_lora(folder / "loras" / "ink.safetensors")
    with run_api(
        FLUX_METADATA="prompt",
        FLUX_MODEL="schnell",
        MODEL_INFO=write_sets(folder, ("schnell",)),
        FLUX_LORA_DIR=folder / "loras",
    ) as server:
        server.lora = (folder / "loras" / "ink.safetensors").read_bytes()
        yield server.wait_ready()


PROMPT = {"prompt": "猫 & a <dog>, 4 of them"}
IMAGE, MASK = {"image": make_png()}, {"mask": make_mask((96, 64), (0, 0, 48, 64))}
ROUTES = {
    "generate": ("generations", PROMPT | {"seed": str(2**64 - 1)}, {}),
    "edit": ("edits", PROMPT | {"loras": "ink:0.5"}, IMAGE),
    "variation": ("variations", {}, IMAGE),
    "variation with words": ("variations", PROMPT, IMAGE),
    "variation of less": ("variations", {"strength": "0.5"}, IMAGE),
    "mask": ("edits", PROMPT, IMAGE | MASK),
}


def draw(server, route, fields, files):
    """The file that ``route`` answers with."""
    answer = requests.post(
        f"{server.url}/v1/images/{route}",
        data={"response_format": "b64_json"} | fields,
        files={name: (f"{name}.png", data) for name, data in files.items()} or None,
        timeout=120,
    )
    assert answer.ok, answer.text
    return base64.b64decode(answer.json()["data"][0]["b64_json"])


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("kind", ROUTES)
def test_a_recipe_sent_again_makes_the_same_file(schnell, kind, file_format):
    route, fields, files = ROUTES[kind]
    fields = fields | {"width": "64", "height": "96", "steps": "2"}
    fields["output_format"] = file_format
    if file_format != "png":
        fields["output_compression"] = "70"
    made = draw(schnell, route, fields, files)
    recipe = read_recipe(made)
    assert recipe.get("prompt") == fields.get("prompt")
    sent = [sha256(data) for name, data in files.items() if name != "mask"]
    assert recipe.get("inputs", []) == sent
    assert recipe.get("mask") == (sha256(files["mask"]) if "mask" in files else None)
    # Of the model's own for that task nothing has to be told.
    asked = fields.get("strength")
    assert recipe.get("strength", "own") == (float(asked) if asked else "own")
    if "loras" in fields:
        ink = {"name": "ink", "adapter_weight": 0.5, "sha256": sha256(schnell.lora)}
        assert recipe["loras"] == [ink]
    again = fields_of(recipe)
    again = {k: json.dumps(v) if k == "loras" else v for k, v in again.items()}
    other = draw(schnell, route, again, files)
    assert pixels(other) == pixels(made)
    # Not by chance: another seed makes another picture, and all else is told too.
    assert other == made
    third = draw(schnell, route, again | {"seed": 5}, files)
    assert pixels(third) != pixels(made)


def test_each_picture_of_several_has_the_recipe_of_its_own(schnell):
    answer = requests.post(
        f"{schnell.url}/v1/images/generations",
        json=PROMPT | {"n": 2, "seed": 9, "size": "64x64", "steps": 1},
        timeout=120,
    ).json()
    first, second = (base64.b64decode(one["b64_json"]) for one in answer["data"])
    assert [read_recipe(data)["seed"] for data in (first, second)] == [9, 10]
    fields = {k: v for k, v in fields_of(read_recipe(second)).items() if v}
    assert draw(schnell, "generations", fields, {}) == second


def test_infotexts_are_what_stands_in_the_pictures(schnell):
    body = {"prompt": "a cat: small <lora:ink:0.5>", "seed": 9, "batch_size": 2}
    body |= {"width": 64, "height": 64, "steps": 1}
    told = requests.post(f"{schnell.url}/sdapi/v1/txt2img", json=body, timeout=120)
    files = [io.BytesIO(base64.b64decode(data)) for data in told.json()["images"]]
    texts = json.loads(told.json()["info"])["infotexts"]
    assert [Image.open(file).info["parameters"] for file in files] == texts
    assert texts[1].startswith("a cat: small <lora:ink:0.5>\nSteps: 1, ")
    assert ", Seed: 10, Size: 64x64, Model: schnell, Lora hashes: " in texts[1]


@pytest.fixture(scope="module", params=["none", "mark"])
def other(request):
    """A server of one of the levels that tell less than the usual one."""
    with run_api(app=FAKE, FLUX_METADATA=request.param) as server:
        server.level = request.param
        yield server.wait_ready()


def raw(server, fields, image=None):
    return requests.post(
        f"{server.url}/process/raw",
        data=fields,
        files={"input_file": image} if image else None,
        timeout=60,
    ).content


COMPOSITE = SOURCE + b"compositeWithTrainedAlgorithmicMedia<"


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_mark_or_nothing(other, file_format):
    fields = {"prompt": "a secret", "seed": 7, "output_format": file_format}
    made, edit = raw(other, fields), raw(other, fields, make_png())
    assert (SOURCE + b"trainedAlgorithmicMedia<" in made) == (other.level == "mark")
    assert (COMPOSITE in edit) == (other.level == "mark")
    assert b"secret" not in made + edit
    assert read_recipe(made) is read_recipe(edit) is None


@pytest.mark.parametrize("file_format", FORMATS)
def test_without_a_setting_all_is_told_but_prompts(fake, file_format):
    fields = {"prompt": "a secret", "seed": 7, "output_format": file_format}
    made, edit = raw(fake, fields), raw(fake, fields, make_png())
    assert SOURCE + b"trainedAlgorithmicMedia<" in made
    assert COMPOSITE in edit
    assert b"secret" not in made + edit
    recipe = read_recipe(made)
    assert recipe["prompt_sha256"] == sha256(b"a secret")
    assert (recipe["mode"], recipe["seed"], recipe["model"]) == ("generate", 7, "tiny")
    assert read_recipe(edit)["inputs"] == [sha256(make_png())]


def test_a_picture_that_comes_back_keeps_its_history(fake):
    first = raw(fake, {"seed": 1}, make_png())
    second = raw(fake, {"seed": 2}, first)
    third = read_recipe(raw(fake, {"seed": 3}, second))
    assert third["inputs"] == [sha256(second)]
    assert third["parents"] == [sha256(first), sha256(make_png())]


def test_a_jpeg_without_room_for_the_prompt_has_its_hash(schnell):
    prompt = "猫" * 30_000
    fields = {"prompt": prompt, "size": "64x64", "steps": "1"}
    small = draw(schnell, "generations", fields | {"output_format": "jpeg"}, {})
    assert read_recipe(small)["prompt_sha256"] == sha256(prompt.encode())
    large = draw(schnell, "generations", fields | {"output_format": "webp"}, {})
    assert read_recipe(large)["prompt"] == prompt
