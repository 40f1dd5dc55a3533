"""Each task of each shipped set, driven over HTTP with tiny random checkpoints."""

from __future__ import annotations

import base64
import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import requests
from PIL import Image

from flux_api.models.catalog import MODEL_INFO
from tests.support.pictures import make_png, save
from tests.support.tiny_sets import BASES
from tests.support.wire import data_url

CASES = [(name, task) for name, info in MODEL_INFO.items() for task in info.tasks]


def make_mask(size=(96, 64), box=(16, 16, 48, 48)):
    """PNG bytes, transparent (to repaint) within ``box``."""
    mask = Image.new("RGBA", size, "black")
    mask.paste((0, 0, 0, 0), box)
    return save(mask)


def draw(server, name, task, *, images=None, **values):
    """The answer to one request of ``task``, as JSON, and its picture."""
    fields = {"model": name, "seed": 7, "num_inference_steps": 2} | values
    route = "generations"
    files = []
    if task == "generate":
        fields = {"prompt": "a red heart", "size": "64x64"} | fields
    else:
        route = {"variation": "variations", "upscale": "upscale"}.get(task, "edits")
        pictures = images or [make_png()]
        files = [("image[]", (f"{n}.png", p)) for n, p in enumerate(pictures)]
    if task == "upscale":
        # The first of them are left out.
        fields |= {"num_inference_steps": 8}
    if task in ("edit", "inpaint"):
        fields = {"prompt": "make it blue"} | fields
    if task == "inpaint":
        files.append(("mask", ("mask.png", make_mask())))
    url = f"{server.url}/v1/images/{route}"
    answer = requests.post(url, data=fields, files=files, timeout=120)
    assert answer.status_code == 200, answer.text
    assert answer.headers["X-Flux-Model"] == name
    body = answer.json()
    data = base64.b64decode(body["data"][0]["b64_json"])
    return body, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


@pytest.mark.parametrize(("name", "task"), CASES, ids=["-".join(c) for c in CASES])
def test_every_task_of_every_set_draws(families, name, task):
    body, picture = draw(families, name, task)
    assert body["model"] == name
    # An input picture sets the size: 96x64.
    assert picture.shape == ((64, 64, 3) if task == "generate" else (64, 96, 3))
    assert picture.std() > 1
    assert (draw(families, name, task)[1] == picture).all(), "one seed, one picture"
    assert (draw(families, name, task, seed=8)[1] != picture).any()


@pytest.mark.parametrize(("name", "task"), CASES, ids=["-".join(c) for c in CASES])
def test_in_company_every_picture_is_what_it_is_alone(sharing, name, task):
    """Up to the rounding of other batch sizes, for those that share forwards."""

    def one(steps):
        return draw(sharing, name, task, seed=steps, num_inference_steps=steps)[1]

    alone = [one(steps) for steps in (2, 3, 4)]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(one, (2, 3, 4)))
    for picture, other in zip(alone, together, strict=True):
        assert np.abs(picture - other).max() <= 1


@pytest.mark.parametrize("name", ["klein-4b", "flux1", "schnell", "klein-base-4b"])
def test_pixels_outside_the_mask_stay(families, name):
    picture = draw(families, name, "inpaint")[1]
    original = np.asarray(Image.open(io.BytesIO(make_png()))).astype(int)
    outside = np.ones((64, 96), bool)
    outside[12:52, 12:52] = False
    assert (picture[outside] == original[outside]).all()
    assert (picture[20:44, 20:44] != original[20:44, 20:44]).any()


@pytest.mark.parametrize(
    "name", ["klein-4b", "klein-9b-kv", "flux2-dev", "flux3-klein-direct"]
)
def test_every_reference_counts_and_the_first_sets_the_size(families, name):
    first, second = make_png((128, 64)), make_png((64, 96), "green")
    one = draw(families, name, "edit", images=[first])[1]
    both = draw(families, name, "edit", images=[first, second])[1]
    assert one.shape == both.shape == (64, 128, 3)
    assert (one != both).any()


def test_references_of_any_shape_are_taken(families):
    for size in ((16, 16), (400, 20), (20, 400)):
        picture = draw(families, "klein-4b", "edit", images=[make_png(size)])[1]
        assert picture.std() > 1


@pytest.mark.parametrize("name", ["klein-4b", "schnell", "flux1"])
def test_a_picture_is_made_larger_by_the_weights_that_are_there(families, name):
    # On no model's grid, so that a tile is larger than what is kept of it.
    body = {"image": data_url(make_png((41, 25))), "scale": 2, "seed": 7}
    answers = [
        requests.post(
            f"{families.url}/process/raw",
            json=body | {"model": name, "seed": seed},
            timeout=120,
        )
        for seed in (7, 7, 8)
    ]
    assert [answer.status_code for answer in answers] == [200] * 3, answers[0].text
    first, again, other = [answer.content for answer in answers]
    assert Image.open(io.BytesIO(first)).size == (82, 50)
    assert first == again != other


def test_prompt_upsampler_changes_the_prompt_that_is_drawn(families):
    plain = draw(families, "flux3-klein-direct", "generate")[1]
    upsampled = draw(families, "flux3-klein", "generate")[1]
    assert (plain != upsampled).any()


def test_redux_draws_what_it_sees(families):
    orange = draw(families, "flux1", "variation")[1]
    green = draw(families, "flux1", "variation", images=[make_png(color="green")])[1]
    assert (orange != green).any()


def test_guidance_counts_where_a_model_has_it(families):
    for name in ("klein-base-4b", "flux1", "flux2-dev"):
        weak = draw(families, name, "generate", guidance_scale=1.5)[1]
        strong = draw(families, name, "generate", guidance_scale=6)[1]
        assert (weak != strong).any(), name


def test_the_set_used_least_recently_makes_room(families):
    for name in ("klein-4b", "schnell", "klein-4b", "flux2-dev"):
        draw(families, name, "generate")
    # Of the two in memory, klein-4b was used after schnell.
    assert families.output.split("unloading ")[-1].startswith("schnell")


def test_models_lists_what_can_be_asked_for(families):
    listed = requests.get(f"{families.url}/v1/models", timeout=10).json()["data"]
    assert {model["id"] for model in listed} == {"tiny", *BASES}


@pytest.mark.parametrize("name", ["gpt-image-1", "dall-e-3", "", "dummy"])
def test_unknown_names_mean_the_default(families, name):
    url = f"{families.url}/v1/images/generations"
    answer = requests.post(
        url, json={"prompt": "a duck", "model": name, "size": "64x64"}, timeout=60
    )
    assert answer.json()["model"] == answer.headers["X-Flux-Model"] == "tiny"
