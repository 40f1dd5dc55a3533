"""Input pictures at the sizes that pipelines take, as diffusers itself has them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from diffusers.pipelines.flux2.image_processor import Flux2ImageProcessor
from PIL import Image

from flux_api.engine.inputs import as_reference, fit_inputs
from tests.engine.test_engine import FAMILIES, family, noise
from tests.support.complete import complete

MOST = 1024 * 1024


@pytest.mark.parametrize(
    "size",
    [(1, 1), (16, 16), (63, 64), (400, 20), (20, 400), (513, 64), (3000, 4), (1, 3000)],
)
def test_what_diffusers_would_refuse_is_enlarged_or_padded(size):
    with pytest.raises(ValueError, match="too"):
        Flux2ImageProcessor.check_image_input(Image.new("RGB", size))
    made = as_reference(Image.new("RGB", size, "teal"), MOST)
    Flux2ImageProcessor.check_image_input(made)
    # A line of a few bytes is no more pixels than a photo, with all that it is padded.
    assert made.width * made.height < 1.01 * MOST
    # All of it is the picture, or goes on in its colour.
    assert made.getcolors() == [(made.width * made.height, (0, 128, 128))]


@pytest.mark.parametrize("size", [(64, 64), (512, 64), (64, 512), (1024, 1024)])
def test_what_it_takes_stays_as_it_is(size):
    picture = Image.new("RGB", size)
    assert as_reference(picture, MOST) is picture


@pytest.mark.parametrize("size", [(1025, 1024), (3000, 2000), (700, 5000)])
def test_what_is_larger_than_the_most_is_shrunk_to_it_in_its_shape(size):
    made = as_reference(Image.new("RGB", size), MOST)
    assert made.width * made.height == pytest.approx(MOST, rel=0.002)
    assert made.width / made.height == pytest.approx(size[0] / size[1], rel=0.002)


def test_other_pipelines_get_four_megapixels_of_a_reference():
    _, task, row, _ = FAMILIES["klein edit"]
    row = dataclasses.replace(row, pipeline="Flux3DistilledModularPipeline")
    info, photo = family(Path("nowhere"), task, row), Image.new("RGB", (8000, 2000))
    request = complete("it", info, prompt="a cat", images=(photo,), size=(64, 64))
    [made] = fit_inputs(request, info, row).images
    assert made.size == (4096, 1024)


@pytest.mark.parametrize("size", [(1500, 900), (1024, 1025), (1024, 1024), (300, 200)])
def test_flux2_gets_what_its_own_processor_would_have_made(size):
    """Bit for bit: then it shrinks nothing once more under the device's lock."""
    _, task, row, _ = FAMILIES["klein edit"]
    info, photo = family(Path("nowhere"), task, row), noise(1, size)
    request = complete("klein", info, prompt="a cat", images=(photo,), size=(64, 64))
    [made] = fit_inputs(request, info, row).images
    assert (
        made.tobytes() == Flux2ImageProcessor._resize_if_exceeds_area(photo).tobytes()
    )
