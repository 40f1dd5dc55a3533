"""``recipe_of``: the same as a stored picture, but."""

from __future__ import annotations

import hashlib
import json

import pytest
import requests

from tests.support.pictures import make_png
from tests.support.servers import TOKEN, run_api
from tests.support.wire import drawn, make_mask, stats

FAKE = "tests.support.fake_app:app"


@pytest.fixture(scope="module")
def server(files):
    """A server that stores its pictures and may read their recipes."""
    settings = {"FILE_SERVER": files.url, "FILE_SERVER_TOKEN": TOKEN}
    with run_api(app=FAKE, FAKE_MAX_IMAGES=4, **settings) as running:
        yield running.wait_ready()


def process(server, files=None, **fields):
    return requests.post(f"{server.url}/process", data=fields, files=files, timeout=60)


def stored(server, files=None, **fields):
    answer = process(server, files, **fields)
    assert answer.ok, answer.text
    return answer.json()["result_image_url"]


def test_a_picture_by_another_name_of_this_machine_is_the_stored_one(server):
    made = stored(server, prompt="a cat", seed=300)
    by_name = made.replace("127.0.0.1", "localhost")
    assert by_name != made
    edit = stored(server, prompt="a hat", input_image_url=by_name)
    key = {"Authorization": f"Bearer {TOKEN}"}
    told = requests.get(f"{edit.rpartition('.')[0]}/recipe", headers=key, timeout=5)
    assert told.json()["stored_inputs"] == [made.rpartition("/")[2]]


def test_the_same_and_the_same_but(server):
    url = stored(server, prompt="a cat", seed=300, width=128, height=64, steps=3)
    first = drawn(server)
    name = url.rpartition("/")[2]
    for by in (url, name, name.partition(".")[0]):
        again = stored(server, recipe_of=by)
        assert drawn(server) == first
        assert (
            requests.get(again, timeout=5).content
            == requests.get(url, timeout=5).content
        )
    process(server, recipe_of=name, seed=301)
    assert drawn(server) == first | {"seed": 301}
    process(server, recipe_of=name, size="256x192", prompt="a dog", steps=1)
    other = {"size": [256, 192], "prompt": "a dog", "num_inference_steps": 1}
    assert drawn(server) == first | other
    process(server, recipe_of=name, width=192)
    assert drawn(server) == first | {"size": [192, 64]}


def test_a_dry_run_tells_no_prompt_that_only_the_recipe_has(server):
    url = stored(server, prompt="a private cat", seed=301, width=128, height=64)
    plan = process(server, recipe_of=url, dry_run=1)
    assert plan.json()["request"]["seed"] == 301
    assert "private" not in plan.text
    own = process(server, recipe_of=url, prompt="a dog", dry_run=1).json()
    assert own["request"]["prompt"] == "a dog"


def test_a_picture_on_the_file_server_need_not_be_sent_again(server):
    source = stored(server, prompt="a cat", seed=5)
    edit = stored(server, prompt="a hat", seed=6, input_image_url=source)
    first = drawn(server)
    assert first["mode"] == "edit"
    process(server, recipe_of=edit)
    assert drawn(server) == first
    varied = stored(server, seed=7, input_image_url=source)
    first = drawn(server)
    assert first["mode"] == "variation"
    process(server, recipe_of=varied)
    assert drawn(server) == first


def test_with_a_scale_the_stored_picture_itself_becomes_larger(server):
    source = stored(server, prompt="a cat", seed=5, width=128, height=64)
    edit = stored(server, prompt="a hat", seed=6, input_image_url=source)
    for url, prompt in ((source, "a cat"), (edit, "a hat")):
        stored(server, recipe_of=url.rpartition("/")[2].partition(".")[0], scale=2)
        done = drawn(server)
        made = (done["mode"], done["size"], done["prompt"])
        assert made == ("upscale", [256, 128], prompt)
    larger = stored(server, recipe_of=source, scale=2)
    again = drawn(server)
    stored(server, recipe_of=larger)
    assert drawn(server) == again
    stored(server, recipe_of=larger, prompt="a dog", scale=4)
    assert drawn(server) == again | {"prompt": "a dog", "size": [512, 256]}


@pytest.mark.parametrize(
    ("path", "status"), [("/v1/images/generations", 400), ("/v1/flux-dev", 422)]
)
def test_where_it_is_not_taken_it_is_not_ignored(server, path, status):
    begun = stats(server)["begun"]
    body = {"prompt": "a cat", "recipe_of": "0123456789abcdef"}
    answer = requests.post(server.url + path, json=body, timeout=60)
    assert answer.status_code == status
    assert "/process" in answer.text and "recipe_of" in answer.text
    assert stats(server)["begun"] == begun


def test_a_variation_with_words_stays_one(server):
    answer = requests.post(
        f"{server.url}/v1/images/variations",
        data={"prompt": "warmer", "response_format": "url"},
        files={"image": make_png()},
        timeout=60,
    )
    first = drawn(server)
    url = answer.json()["data"][0]["url"]
    assert process(server, {"image": make_png()}, recipe_of=url).ok
    assert drawn(server) == first
    assert first["mode"] == "variation" and first["prompt"] == "warmer"


def test_what_is_not_stored_is_named(server):
    sent = {"image": make_png()}
    answer = requests.post(
        f"{server.url}/v1/images/edits",
        data={"prompt": "a hat", "response_format": "url", "model": "tiny"},
        files={"image": sent["image"]},
        timeout=60,
    )
    url = answer.json()["data"][0]["url"]
    refused = process(server, recipe_of=url)
    assert refused.status_code == 400
    digest = hashlib.sha256(sent["image"]).hexdigest()
    assert f"send the input picture with the SHA-256 {digest}" in refused.text
    assert process(server, {"image": sent["image"]}, recipe_of=url).ok


def test_a_mask_is_found_again_or_named(server, files):
    source = stored(server, prompt="a cat", seed=5, width=96, height=64)
    mask = make_mask((96, 64), (0, 0, 9, 9))
    edit = {"prompt": "a hat", "seed": 6, "input_image_url": source}
    there = requests.post(f"{files.url}/upload", files={"file": mask}, timeout=10)
    url = stored(server, mask=files.url + there.json()["url"], **edit)
    first = drawn(server)
    assert (first["mode"], first["mask"]) == ("edit", [0, 255])
    process(server, recipe_of=url)
    assert drawn(server) == first
    # An empty one is none.
    body = {"recipe_of": url, "image": [], "mask": {}}
    assert requests.post(f"{server.url}/process", json=body, timeout=60).ok
    assert drawn(server) == first
    # The caller's own wins.
    assert process(server, {"mask": make_mask((96, 64), (0, 0, 95, 63))}, recipe_of=url)
    assert drawn(server) == first | {"mask": [255, 255]}
    url = stored(server, {"mask": mask}, **edit)
    refused = process(server, recipe_of=url)
    digest = hashlib.sha256(mask).hexdigest()
    assert refused.status_code == 400
    assert f"send the mask with the SHA-256 {digest}" in refused.text
    process(server, {"mask": mask}, recipe_of=url)
    assert drawn(server) == first


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("0" * 32, "no recipe is stored for that picture"),
        ("../../latest", "expected the id or the URL"),
        ("a b", "expected the id or the URL"),
    ],
)
def test_what_is_no_stored_picture_is_400(server, asked, words):
    answer = process(server, recipe_of=asked)
    assert answer.status_code == 400
    assert words in answer.text


def put(files, recipe):
    """A picture with this recipe on the file server."""
    answer = requests.post(
        f"{files.url}/upload",
        files={"file": make_png()},
        data={"recipe": json.dumps(recipe)},
        timeout=10,
    )
    return answer.json()["url"].rpartition("/")[2]


def test_a_model_and_a_lora_that_are_not_here_are_named(server, files):
    recipe = {"recipe": 1, "mode": "generate", "model": "klein-4b", "prompt": "a cat"}
    gone = process(server, recipe_of=put(files, recipe))
    assert gone.status_code == 404
    assert "'klein-4b'" in gone.text
    endless = process(server, recipe_of=put(files, recipe | {"model": "z" * 100}))
    assert f"'{'z' * 64}'" in endless.text
    recipe |= {"model": "tiny", "loras": [{"name": "ink", "adapter_weight": 1}]}
    gone = process(server, recipe_of=put(files, recipe))
    assert gone.status_code == 400
    assert "no LoRA named 'ink'" in gone.json()["error"]


def test_whatever_lies_there_is_an_answer(server, files):
    for recipe in (
        {"recipe": 2},
        {"recipe": 1, "mode": "paint"},
        {"recipe": 1, "mode": "generate", "model": ["x"]},
        {"recipe": 1, "mode": "edit", "model": "tiny", "inputs": [1, {}]},
        {"recipe": 1, "mode": "edit", "model": "tiny", "mask": {}, "stored_mask": ".."},
        {"recipe": 1, "mode": "generate", "model": "tiny", "seed": {}, "prompt": "x"},
    ):
        answer = process(server, recipe_of=put(files, recipe))
        assert answer.status_code in (400, 404), recipe


@pytest.mark.parametrize("name", ["../../latest", "..", "a/b", "", 7, None, {}])
def test_what_is_no_name_of_a_stored_picture_is_not_asked_for(server, files, name):
    recipe = {"recipe": 1, "mode": "edit", "model": "tiny", "prompt": "x"}
    for needed, words in (
        ({"inputs": ["a" * 64], "stored_inputs": [name]}, "input picture"),
        ({"mask": "a" * 64, "stored_mask": name}, "mask"),
    ):
        answer = process(server, recipe_of=put(files, recipe | needed))
        assert answer.status_code == 400
        assert f"send the {words} with the SHA-256 {'a' * 64}" in answer.text


def test_without_the_token_it_is_400_that_names_it(fake_with_files, fake):
    answer = process(fake_with_files, recipe_of="0" * 32)
    assert (answer.status_code, "FILE_SERVER_TOKEN" in answer.text) == (400, True)
    answer = process(fake, recipe_of="0" * 32)
    assert (answer.status_code, "FILE_SERVER is" in answer.text) == (400, True)


def test_a_wrong_token_is_503_without_a_word_of_it(files):
    with run_api(
        app=FAKE, FILE_SERVER=files.url, FILE_SERVER_TOKEN="not-the-token"
    ) as server:
        answer = process(server.wait_ready(), recipe_of="0" * 32)
        assert answer.status_code == 503
        assert "not-the-token" not in answer.text + server.output


@pytest.mark.parametrize(("level", "status"), [("none", 404), ("mark", 200)])
def test_a_recipe_lies_beside_the_picture_unless_none_is_wanted(files, level, status):
    settings = {"FILE_SERVER": files.url, "FLUX_METADATA": level}
    with run_api(app=FAKE, **settings) as server:
        url = stored(server.wait_ready(), prompt="a secret")
    headers = {"Authorization": f"Bearer {TOKEN}"}
    place = f"{url.removesuffix('.png')}/recipe"
    told = requests.get(place, headers=headers, timeout=10)
    assert told.status_code == status
    assert ("a secret" in told.text) == (status == 200)
