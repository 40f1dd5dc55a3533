"""Pictures in frames of another shape: whole, centred, in their own shape."""

from __future__ import annotations

import pytest
from PIL import Image

from flux_api.images.fitting import Fit, contain, contain_mask

FRAMES = [
    ((60, 30), (40, 40), (0, 10, 40, 30)),
    ((30, 60), (40, 40), (10, 0, 30, 40)),
    ((10, 5), (40, 60), (0, 20, 40, 40)),
    ((50, 50), (100, 20), (40, 0, 60, 20)),
    # A pixel that is missing by rounding alone is not left blank.
    ((64, 63), (32, 32), (0, 0, 32, 32)),
    ((64, 64), (512, 512), (0, 0, 512, 512)),
    # No picture is too thin to be seen.
    ((200, 1), (20, 20), (0, 9, 20, 10)),
    ((1, 200), (20, 20), (9, 0, 10, 20)),
]


@pytest.mark.parametrize(("size", "frame", "box"), FRAMES)
def test_a_mask_lies_whole_in_its_frame_and_the_rest_is_kept(size, frame, box):
    mask = contain_mask(Image.new("L", size, 255), frame)
    assert mask.size == frame
    assert mask.getbbox() == box
    assert mask.crop(box).getextrema() == (255, 255)


def marked(size):
    """A grey picture whose middle half, across and down, is red."""
    image = Image.new("RGB", size, "grey")
    width, height = size
    middle = (width // 4, height // 4, width - width // 4, height - height // 4)
    image.paste("red", middle)
    return image


def red(image):
    """Where ``image`` is red."""
    return image.getchannel("G").point(lambda value: 255 * (value < 64)).getbbox()


@pytest.mark.parametrize(
    ("size", "frame", "box"), [row for row in FRAMES if min(row[0]) > 20]
)
def test_a_picture_keeps_its_shape_and_goes_on_in_the_colour_of_its_border(
    size, frame, box
):
    image = contain(marked(size), frame)
    assert image.size == frame
    left, upper, right, lower = box
    across, down = (right - left) / 4, (lower - upper) / 4
    expected = (left + across, upper + down, right - across, lower - down)
    assert all(
        abs(a - b) <= 1 + frame[0] // 64
        for a, b in zip(red(image), expected, strict=True)
    )
    for corner in ((0, 0), (frame[0] - 1, frame[1] - 1)):
        assert image.getpixel(corner) == (128, 128, 128)


@pytest.mark.parametrize("turn", [None, Image.Transpose.ROTATE_90])
def test_it_fades_into_what_remains_within_a_sixteenth(turn):
    """Further in, every pixel is the picture's own."""
    picture = Image.new("RGB", (480, 240), "black")
    picture.paste("white", (1, 1, 479, 239))
    framed = contain(picture.transpose(turn) if turn else picture, (480, 480))
    framed = framed.transpose(Image.Transpose.ROTATE_270) if turn else framed
    line = [framed.getpixel((240, y))[0] for y in range(120, 360)]
    assert line == line[::-1]
    assert line == sorted(line[:120]) + sorted(line[120:], reverse=True)
    assert min(line[15:-15]) == 255 > line[14]


@pytest.mark.parametrize("size", [(90, 60), (60, 90), (64, 64), (100, 10)])
def test_what_goes_onto_the_square_comes_back_in_its_place(size):
    fit, image = Fit(64, size), marked(size)
    square = fit.onto_square(image)
    assert square.size == (64, 64)
    left, upper, right, lower = fit.box
    assert max(right - left, lower - upper) == 64
    assert abs(left - (64 - right)) <= 1 and abs(upper - (64 - lower)) <= 1
    back = fit.from_square(square, size)
    assert back.size == size
    assert all(abs(a - b) <= 2 for a, b in zip(red(back), red(image), strict=True))
