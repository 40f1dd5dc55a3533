"""What edits and variations make of their pictures: masks, sizes, numbers."""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image

from flux_api.http.reason_phrases import BY_CODE
from flux_api.images.fitting import contain
from tests.support.pictures import make_png
from tests.support.wire import EDITS, FORM, data_url, make_mask, post, seen


@pytest.mark.parametrize(
    "mask",
    [make_png((96, 64)), make_mask((64, 64), (0, 0, 9, 9))],
    ids=["no alpha", "another size"],
)
def test_masks_that_cannot_be_used(fake, png, mask):
    files = {"image": ("a.png", png), "mask": ("m.png", mask)}
    answer = post(fake, EDITS, data=FORM, files=files)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == "invalid_mask_image_format"
    assert error["type"] == "image_generation_user_error"
    assert answer.reason == BY_CODE["invalid_mask_image_format"]


@pytest.mark.parametrize(
    ("size", "asked"),
    [((96, 64), "auto"), ((127, 75), ""), ((96, 64), "192x128"), ((96, 64), "64x128")],
)
def test_pixels_outside_the_mask_stay_as_they_are(api, size, asked):
    """Where the mask is opaque the delivered PNG has the input's own pixels, at the
    input's size or as the input looks when it is scaled to what was asked for."""
    source = Image.effect_noise(size, 90).convert("RGB")
    buffer = io.BytesIO()
    source.save(buffer, "PNG")
    box = (size[0] // 2, 0, size[0] - 1, size[1] - 1)
    files = {"image": buffer.getvalue(), "mask": make_mask(size, box)}
    form = {"prompt": "a duck", "steps": 2, "size": asked}
    answer = post(api, EDITS, data=form, files=files).json()
    made = Image.open(io.BytesIO(base64.b64decode(answer["data"][0]["b64_json"])))
    assert answer["size"] == f"{made.width}x{made.height}"
    assert made.width % 16 == made.height % 16 == 0
    if made.size != size:
        source = contain(source, made.size)
    kept = (0, 0, made.width // 2 - 4, made.height)
    assert made.crop(kept).tobytes() == source.crop(kept).tobytes()
    changed = (made.width // 2 + 4, 0, *made.size)
    assert made.crop(changed).tobytes() != source.crop(changed).tobytes()


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
    answer = post(fake, "/v1/images/variations", json={"stream": True})
    assert answer.json()["error"]["param"] == "stream"
