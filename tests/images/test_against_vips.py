"""What the decoder gives beside libvips, which shares no code with it."""

from __future__ import annotations

import numpy as np
import pytest

from flux_api.images.decoder import Decoder

pyvips = pytest.importorskip("pyvips", reason="pyvips-binary has no wheel here")

from tests.images.made_pictures import made_pictures, scene  # noqa: E402

PICTURES = made_pictures()
# Rounding; and how colour between two samples is made up, at an edge in AVIF above all.
CLOSE = {"jpeg": 6, "JPEG": 6, "webp": 6, "WEBP": 6, "tiff jpeg": 6, "avif": 24}
# libvips reads no bitmaps; these are the scene itself, in 5 and 6 bits.
BITMAP = {
    "bmp 565": 8,
    "bmp 8888": 0,
    "bmp RGB": 0,
    "bmp P": 70,
    "bmp L": 0,
    "bmp 1": 0,
}


@pytest.fixture(scope="module")
def decoder():
    return Decoder()


def by_vips(data):
    """Turned, in sRGB, over white: the samples of the first frame."""
    image = pyvips.Image.new_from_buffer(data, "").autorot()
    if image.get_typeof("icc-profile-data"):
        image = image.icc_transform("srgb", embedded=True, intent="perceptual")
    elif image.interpretation == "cmyk":
        # Without a profile nobody knows the inks; the plain rule is Pillow's too.
        inks = 255 - image
        image = (inks.extract_band(0, n=3) * inks[3] / 255).copy(interpretation="srgb")
    image = image.colourspace("srgb")
    if image.hasalpha():
        image = image.flatten(background=255)
    return image.cast("uchar").numpy()


def expected(name, data):
    """The samples as (height, width, 3), and how far a sample may be from them."""
    for prefix, distance in BITMAP.items():
        if name.startswith(prefix):
            mode = {"bmp L": "L", "bmp 1": "1"}.get(prefix, "RGB")
            return np.asarray(scene(mode).convert("RGB")), distance
    samples = by_vips(data)
    if samples.ndim == 2:
        samples = samples[..., None]
    if samples.shape[2] == 1:
        samples = samples.repeat(3, axis=2)
    kinds = [near for kind, near in CLOSE.items() if name.startswith(kind)]
    return samples, max(kinds, default=1)


def test_there_are_enough_of_them():
    assert len(PICTURES) >= 120


@pytest.mark.parametrize("name", PICTURES)
def test_the_picture_is_the_one_that_libvips_sees(decoder, name):
    samples, distance = expected(name, PICTURES[name])
    ours = np.asarray(decoder.image(PICTURES[name]))
    assert ours.shape == samples.shape
    apart = np.abs(ours.astype(int) - samples.astype(int))
    assert np.percentile(apart, 99) <= distance
