"""Pictures made larger: on both APIs, tile by tile, without seams."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest
import requests
from PIL import Image

from flux_api.engine.upscaling import Upscale
from flux_api.models.catalog import MODEL_INFO
from flux_api.models.upscale_tiles import Tiling
from flux_api.models.upscaling import with_upscale
from tests.support.complete import complete
from tests.support.pictures import make_png, save
from tests.support.servers import ROOT, run_api, wait_for
from tests.support.wire import begin, data_url, post, seen, stats

UPSCALE = "/v1/images/upscale"
DRY = {"dry_run": True}


def opened(answer):
    """The picture of an answer that is a file."""
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(answer.content)).convert("RGB")


@pytest.mark.parametrize(("scale", "size"), [(None, (192, 128)), (4, (384, 256))])
def test_openais_form_makes_it_two_or_four_times_as_large(fake, png, scale, size):
    data = {"seed": "7"} | ({"scale": str(scale)} if scale else {})
    answer = post(fake, UPSCALE, data=data, files={"image": ("a.png", png)})
    assert answer.status_code == 200, answer.text
    assert answer.json()["size"] == "{}x{}".format(*size)
    assert (seen(fake)["mode"], seen(fake)["prompt"]) == ("upscale", "")


def test_process_takes_a_scale(fake, png):
    body = {"image": data_url(png), "scale": 2, "prompt": "a disc"}
    answer = post(fake, "/process/raw", json=body)
    assert opened(answer).size == (192, 128)
    assert answer.headers["X-Flux-Mode"] == "upscale"
    told = post(fake, "/process", json=body | {"dry_run": True}).json()["request"]
    assert (told["mode"], told["width"], told["height"]) == ("upscale", 192, 128)


def test_a_models_name_that_is_nearly_one_is_warned_of(fake, png):
    body = {"image": data_url(png), "model": "tinny"}
    answer = post(fake, UPSCALE, json=body)
    assert "so 'tiny' was taken" in answer.json()["warning"]


@pytest.mark.parametrize("file_format", ["png", "jpeg", "webp"])
def test_its_recipe_makes_it_again(fake, tmp_path, file_format):
    # Of a size that is on no grid.
    png = make_png((41, 25))
    (tmp_path / "in.png").write_bytes(png)
    body = {"image": data_url(png), "scale": 4, "seed": 7, "output_format": file_format}
    names = [f"{name}.{file_format}" for name in ("made", "same")]
    made = post(fake, "/process/raw", json=body).content
    (tmp_path / names[0]).write_bytes(made)
    again = ["recipe", names[0], "--again", "--input", "in.png", "-o", names[1]]
    done = subprocess.run(
        [sys.executable, "-m", "flux_api", *again, "--server", fake.url],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / names[1]) as same:
        assert same.convert("RGB").tobytes() == opened_bytes(made).tobytes()


def opened_bytes(data):
    """The picture of a file."""
    return Image.open(io.BytesIO(data)).convert("RGB")


def test_it_is_streamed(fake, png):
    body = {"image": data_url(png), "stream": True}
    answer = post(fake, UPSCALE, json=body)
    assert "event: image_upscale.completed" in answer.text


@pytest.mark.parametrize(
    ("size", "values", "word"),
    [
        ((96, 64), {"scale": 3}, "2 and 4"),
        ((96, 64), {"scale": "twice"}, "'scale'"),
        ((96, 64), {"size": "200x128"}, "scale"),
        ((96, 64), {"size": "384x256", "scale": 2}, "scale"),
        ((96, 64), {"mask": data_url(make_png())}, "mask"),
        ((1500, 700), {"scale": 4}, "try scale=2"),
        ((2100, 100), {"scale": 2}, "smaller picture."),
        ((64, 1025), {"scale": 4}, "try scale=2"),
        ((2049, 64), {"scale": 2}, "smaller picture."),
        ((3000, 2000), {"scale": 2}, "2508x1672"),
        ((3000, 2000), {"scale": 2}, "4.2 megapixels"),
        ((3000, 2000), {"scale": 2}, "3000x2000"),
    ],
)
def test_what_cannot_be_is_told_before_anything_runs(fake, size, values, word):
    body = {"image": data_url(save(Image.new("RGB", size)))} | values
    answer = post(fake, UPSCALE, json=body)
    assert answer.status_code == 400
    assert word in answer.json()["error"]["message"]
    assert stats(fake)["begun"] == 0


@pytest.mark.parametrize(("size", "scale"), [((1024, 64), 4), ((64, 2048), 2)])
def test_a_side_may_become_4096_pixels(fake, size, scale):
    picture = data_url(save(Image.new("RGB", size)))
    answer = post(fake, UPSCALE, json={"image": picture, "scale": scale} | DRY)
    told = answer.json()["request"]
    assert max(told["width"], told["height"]) == 4096


def test_a_picture_of_one_pixel_becomes_larger_too(fake):
    picture = data_url(save(Image.new("RGB", (1, 1))))
    told = post(fake, UPSCALE, json={"image": picture} | DRY).json()["request"]
    assert (told["width"], told["height"]) == (2, 2)


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"size": "200x128"}, "size"),
        ({"width": 200}, "width"),
        ({"aspect_ratio": "16:9"}, "aspect_ratio"),
    ],
)
def test_what_says_another_size_is_named(fake, png, values, param):
    answer = post(fake, UPSCALE, json={"image": data_url(png)} | values)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_without_a_picture_there_is_nothing_to_make_larger(fake):
    assert post(fake, UPSCALE, json={}).json()["error"]["param"] == "image"
    answer = post(fake, "/process", json={"prompt": "x", "scale": 2})
    assert (answer.status_code, stats(fake)["begun"]) == (400, 0)
    assert answer.json()["error"] == "Missing required parameter: 'input_file'."


def test_a_message_alone_names_its_parameter(fake):
    answer = post(fake, "/process", json={"prompt": "x", "scale": 3})
    assert answer.json()["error"].startswith("scale: Invalid value: '3'.")


def test_a_model_that_cannot_says_so(png):
    settings = {"FLUX_MODELS": "tiny,flux2-dev"}
    with run_api(app="tests.support.fake_app:app", **settings) as server:
        server.wait_ready()
        body = {"image": data_url(png), "model": "flux2-dev"}
        answer = post(server, UPSCALE, json=body)
        assert answer.status_code == 400
        assert "no upscale: GET /v1/cap" in answer.json()["error"]["message"]
        models = requests.get(f"{server.url}/v1/capabilities", timeout=10).json()
        tasks = {model["id"]: model["tasks"] for model in models["models"]}
        assert "upscale" in tasks["tiny"] and "upscale" not in tasks["flux2-dev"]


def test_tiles_cover_everything_and_share_their_edges():
    for size in ((64, 64), (65, 64), (200, 48), (1000, 333)):
        boxes = Tiling(size, 64, 24).boxes
        covered = np.zeros(size[::-1], int)
        for left, upper, right, lower in boxes:
            covered[upper:lower, left:right] += 1
            assert right - left <= 64 and lower - upper <= 64
        assert covered.min() == 1
        # Each but the first of a line shares at least as much with the one before.
        starts = sorted({box[0] for box in boxes})
        assert all(b - a <= 64 - 24 for a, b in zip(starts, starts[1:], strict=False))


@pytest.mark.parametrize("name", ["tiny", "klein-4b", "flux1", "schnell"])
def test_a_tile_is_all_that_the_model_sees(name):
    info = with_upscale(MODEL_INFO[name])
    picture = Image.new("RGB", (1500, 700), "red")
    request = complete(name, info, "upscale", images=(picture,), size=(1504, 704))
    upscale = Upscale(request, info)
    # A small model's are scaled to its size: thousands of that size would take minutes.
    largest = 320 if info.native_size else 1024
    assert len(upscale.tiling.boxes) <= 36
    for box in upscale.tiling.boxes:
        tile = upscale.tile(box)
        assert max(tile.width, tile.height) <= largest
        assert tile.width % 16 == tile.height % 16 == 0
        assert tile.images[0].size == (tile.width, tile.height)
    assert upscale.picture.size == (1504, 704)


def test_colours_and_shapes_stay_whatever_the_model_draws():
    info = with_upscale(MODEL_INFO["tiny"])
    plain = Image.linear_gradient("L").convert("RGB")
    request = complete("tiny", info, "upscale", images=(plain,), size=(512, 512))
    upscale = Upscale(request, info)
    for number, box in enumerate(upscale.tiling.boxes):
        # Each tile comes back in another brightness.
        tile = upscale.tile(box).images[0]
        upscale.put(box, tile.point(lambda v, n=number: v // 2 + 17 * (n % 5)))
    kept = np.asarray(plain.resize((512, 512)), float)
    assert np.abs(np.asarray(upscale.picture, float) - kept).max() < 12


def test_tiles_that_are_darker_to_their_edges_show_no_lattice():
    info = with_upscale(MODEL_INFO["tiny"])
    plain = Image.new("RGB", (96, 96), (200, 60, 40))
    request = complete("tiny", info, "upscale", images=(plain,), size=(384, 384))
    upscale = Upscale(request, info)
    for box in upscale.tiling.boxes:
        tile = np.asarray(upscale.tile(box).images[0], float)
        far = [np.minimum(np.arange(n), np.arange(n)[::-1]) for n in tile.shape[:2]]
        dark = 8 * np.exp(-np.minimum.outer(*far) / 12)[..., None]
        upscale.put(box, Image.fromarray((tile - dark).clip(0, 255).astype("uint8")))
    inner = np.asarray(upscale.picture, float)[40:-40, 40:-40]
    assert np.ptp(inner, axis=(0, 1)).max() <= 5


def seams(picture, tiling):
    """How much larger the steps between neighbouring pixels are where tiles meet than
    elsewhere, as a ratio."""
    pixels = np.asarray(picture.convert("L"), float)
    steps = np.abs(np.diff(pixels, axis=1)).mean(0)
    edges = {edge for box in tiling.boxes for edge in (box[0], box[2])}
    inner = [x for x in edges if 1 < x < picture.width - 1]
    at = np.mean([steps[x - 1] for x in inner])
    return at / np.mean([steps[x] for x in range(len(steps)) if x + 1 not in inner])


def test_seams_do_not_show(api):
    spots = np.random.default_rng(7).normal(128, 30, (24, 24, 3)).clip(0, 255)
    picture = Image.fromarray(spots.astype("uint8")).resize((96, 96))
    body = {"image": data_url(save(picture)), "scale": 2, "seed": 1}
    answer = post(api, "/process/raw", json=body)
    made, plain = opened(answer), picture.resize((192, 192), Image.Resampling.LANCZOS)
    tiling = Tiling((192, 192), 64, 24)
    assert seams(made, tiling) < 1.25 * seams(plain, tiling)
    # The same picture, with more in it.
    small = made.resize((6, 6), Image.Resampling.BOX)
    wanted = plain.resize((6, 6), Image.Resampling.BOX)
    assert np.abs(np.asarray(small, float) - np.asarray(wanted, float)).mean() < 5
    assert np.abs(np.asarray(made, float) - np.asarray(plain, float)).mean() > 0.5
    assert post(api, "/process/raw", json=body).content == answer.content


@pytest.mark.parametrize(
    ("path", "values"), [(UPSCALE, {"scale": 2}), ("/v1/images/variations", {})]
)
def test_the_steps_are_known_before_it_begins(api, png, path, values):
    body = values | {"image": data_url(png), "seed": 1}
    accepted = post(api, path, json=body, headers={"Prefer": "respond-async"}).json()
    place = api.url + accepted["links"]["self"]
    wait_for(lambda: requests.get(place, timeout=10).json()["state"] == "done", 60)
    assert accepted["steps"] == requests.get(place, timeout=10).json()["steps"]


def test_the_seconds_are_those_of_all_tiles(api, png):
    assert post(api, "/process/raw", json={"prompt": "a cat", "steps": 2}).ok
    plain = {"prompt": "a cat", "steps": 200, "dry_run": True}
    seconds = post(api, "/process", json=plain).json()["expected_seconds"]
    body = {"image": data_url(png), "scale": 4, "steps": 60, "dry_run": True}
    told = post(api, "/process", json=body).json()
    tiles = len(Tiling((384, 256), 80, 24).boxes)
    steps = round(60 * told["request"]["strength"])
    assert told["expected_seconds"] == pytest.approx(
        seconds * tiles * steps / 200, rel=0.1
    )


def test_it_is_watched_and_stopped_within_a_step(api):
    job = f"{api.url}/jobs/large-one-0001"
    values = {
        "image": data_url(save(Image.new("RGB", (512, 512), "teal"))),
        "scale": 2,
        "size": None,
    }
    with closing(begin(api, values | {"job_id": "large-one-0001"}, "/process")) as held:

        def steps():
            return requests.get(job, timeout=10).json().get("step", 0)

        wait_for(lambda: steps() > 2, 30)
        story = requests.get(job, timeout=10).json()
        # Of all tiles together.
        assert story["steps"] > 60
        requests.delete(job, timeout=10)
        assert held.getresponse().status == 499
    wait_for(
        lambda: requests.get(f"{api.url}/v1/status", timeout=5).json()["running"] == 0,
        10,
    )
