"""What edits and variations make of their pictures: masks, sizes, numbers."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from flux_api.http.reason_phrases import BY_CODE
from tests.support.pictures import make_png, save
from tests.support.wire import EDITS, FORM, data_url, make_mask, post, seen


@pytest.mark.parametrize(
    "mask",
    [make_png((64, 64)), make_mask((64, 64), (0, 0, 9, 9))],
    ids=["no alpha", "another shape"],
)
def test_masks_that_cannot_be_used(fake, png, mask):
    files = {"image": ("a.png", png), "mask": ("m.png", mask)}
    answer = post(fake, EDITS, data=FORM, files=files)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == "invalid_mask_image_format"
    assert error["type"] == "image_generation_user_error"
    assert answer.reason == BY_CODE["invalid_mask_image_format"]


def test_of_several_pictures_the_mask_is_for_the_first(fake_multi):
    files = [("image[]", ("a.png", make_png(size))) for size in ((96, 64), (64, 80))]
    files.append(("mask", ("m.png", make_mask((96, 64), (0, 0, 9, 9)))))
    answer = post(fake_multi, EDITS, data=FORM, files=files)
    assert answer.status_code == 200, answer.text
    assert seen(fake_multi)["mask"] == [0, 255]


def dark_noise(size):
    """Noise of which each band has another median, all far below the middle."""
    pixels = np.random.default_rng(5).random((size[1], size[0], 3)) ** 3
    return Image.fromarray((pixels * [255, 190, 125]).astype(np.uint8))


def edit_right_half(server, source, asked):
    """What becomes of ``source`` when its right half may change."""
    box = (source.width // 2, 0, source.width - 1, source.height - 1)
    files = {"image": save(source), "mask": make_mask(source.size, box)}
    form = {"prompt": "a duck", "steps": 2, "size": asked}
    answer = post(server, EDITS, data=form, files=files).json()
    made = Image.open(io.BytesIO(base64.b64decode(answer["data"][0]["b64_json"])))
    assert answer["size"] == f"{made.width}x{made.height}"
    return np.asarray(made)


@pytest.mark.parametrize(
    ("size", "asked", "scaled", "top"),
    [
        ((96, 64), "auto", (96, 64), 0),
        ((96, 64), "192x128", (192, 128), 0),
        ((127, 75), "", (128, 76), 2),
        ((96, 64), "64x128", (64, 43), 42),
    ],
)
def test_pixels_outside_the_mask_stay_as_they_are(api, size, asked, scaled, top):
    """Where the mask is opaque the delivered PNG has the input's own pixels, at the
    input's size or scaled to lie whole in what was asked for. What that leaves open
    has the colour of the input's border, into which the first and last rows fade."""
    source = dark_noise(size)
    made = edit_right_half(api, source, asked)
    height, width, _ = made.shape
    assert width % 16 == height % 16 == 0
    if scaled != size:
        expected = np.asarray(source.resize(scaled, Image.Resampling.BICUBIC))
    else:
        expected = np.asarray(source)
    fading = len(expected) // 16 if top else 0
    inside = made[top : top + len(expected)]
    rows, left = slice(fading, len(expected) - fading), width // 2 - 4
    assert np.array_equal(inside[rows, :left], expected[rows, :left])
    assert not np.array_equal(inside[rows, left + 8 :], expected[rows, left + 8 :])
    colour = border_median(np.asarray(source))
    assert (made[:top, :left] == colour).all()
    assert (made[top + len(expected) :, :left] == colour).all()


def border_median(pixels):
    """Of each band the median of the outermost pixels, the upper of two."""
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return np.sort(border, axis=0)[len(border) // 2]


def test_size_auto_is_that_of_the_first_image(fake_multi):
    sizes = ((96, 80), (64, 80))
    files = [("image[]", ("a.png", make_png(size))) for size in sizes]
    for size in ("auto", ""):
        form = {"prompt": "a duck", "size": size}
        answer = post(fake_multi, EDITS, data=form, files=files)
        assert answer.json()["size"] == "96x80"


def test_variations_take_n_and_size(fake, png):
    for size, expected in (("128x64", "128x64"), ("", "96x64")):
        answer = post(
            fake,
            "/v1/images/variations",
            data={"n": "3", "size": size, "seed": "4", "model": "dall-e-2"},
            files={"image": ("a.png", png)},
        )
        body = answer.json()
        assert [item["seed"] for item in body["data"]] == [4, 5, 6]
        assert body["size"] == expected
        # The clients of that model read only URLs.
        assert body["data"][0]["url"].startswith("data:image/png")
        assert seen(fake)["mode"] == "variation"
    answer = post(fake, "/v1/images/variations", json={"image": data_url(png)})
    assert "b64_json" in answer.json()["data"][0]
