"""What a tile brings to a larger picture: what is fine, and fading in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from flux_api.engine.upscaling import Upscale
from flux_api.models.catalog import MODEL_INFO
from flux_api.models.upscaling import with_upscale
from tests.support.complete import complete

GREY, SWING = 128, 40


def grey_upscale(name, size):
    """A grey picture that becomes ``size``, by the model ``name``."""
    info = with_upscale(MODEL_INFO[name])
    grey = Image.new("RGB", (size[0] // 2, size[1] // 2), (GREY,) * 3)
    return Upscale(complete(name, info, "upscale", images=(grey,), size=size), info)


def drawn(box, swing):
    """What a model draws in ``box``: grey that swings so much, by row and column."""
    left, upper, right, lower = box
    pixels = GREY + swing * np.ones((lower - upper, right - left))
    return Image.fromarray(pixels.round().astype("uint8")).convert("RGB")


def left_of(upscale):
    """The part of ``SWING`` that is in the picture, by row and column."""
    return np.abs(np.asarray(upscale.picture, float)[..., 0] - GREY) / SWING


@pytest.mark.parametrize(
    ("name", "size", "share"), [("klein-4b", (1504, 704), 1), ("tiny", (384, 192), 3)]
)
def test_a_tile_brings_what_is_finer_than_what_neighbours_share(name, size, share):
    """What is coarser would end at its edge. A small model's tiles agree in less."""
    kept = []
    for waves in (1, 4):
        upscale = grey_upscale(name, size)
        box = upscale.tiling.boxes[0]
        length = waves * upscale.tiling.overlap / share
        wave = np.sin(2 * np.pi * np.arange(box[2]) / length)
        upscale.put(box, drawn(box, SWING * wave))
        middle = slice(box[2] // 4, box[2] * 3 // 4)
        kept.append(left_of(upscale)[box[3] // 2, middle].max())
    assert kept[0] > 0.95
    assert kept[1] < 0.4


@pytest.mark.parametrize("axis", [0, 1], ids=["from the left", "from above"])
def test_a_tile_fades_in_within_the_middle_of_what_it_shares(axis):
    """At its very edge it is drawn worst, and so is the one before at its own."""
    upscale = grey_upscale("klein-4b", (1504, 1504))
    first, *others = upscale.tiling.boxes
    # The next one in the first row, or in the first column.
    box = next(one for one in others if one[1 - axis] == first[1 - axis])
    left, upper, right, lower = box
    rows, columns = np.indices((lower - upper, right - left))
    upscale.put(box, drawn(box, SWING * (-1.0) ** (rows + columns)))
    along = left_of(upscale)[upper:lower, left:right].mean(axis)
    shared = upscale.tiling.overlap
    assert along[: shared // 4].max() == 0
    assert along[shared // 2] == pytest.approx(0.5, abs=0.06)
    assert along[shared * 3 // 4 :].min() > 0.9


def test_what_no_model_has_drawn_yet_is_plainly_resized():
    """Also where its size is on no model's grid."""
    info = with_upscale(MODEL_INFO["tiny"])
    spots = np.random.default_rng(1).integers(0, 256, (25, 41, 3))
    picture, size = Image.fromarray(spots.astype("uint8")), (82, 50)
    request = complete("tiny", info, "upscale", images=(picture,))
    request = replace(request, width=size[0], height=size[1])
    plain = picture.resize(size, Image.Resampling.LANCZOS)
    assert Upscale(request, info).picture.tobytes() == plain.tobytes()
