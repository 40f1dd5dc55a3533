"""Bytes to pictures and back: odd pictures come out right, hostile ones are refused.

The numbers in the ids name the measured facts (section, finding) and the faults (W)
that a case stands for.
"""

from __future__ import annotations

import base64
import io
import random
import struct
import sys
import threading
import zlib
from functools import partial

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from flux_api.errors import InvalidImage
from flux_api.images.codec import encode_image
from flux_api.images.data_urls import decode_base64, decode_data_url
from flux_api.images.decoder import MOST_PIXELS, Decoder, original_size
from flux_api.images.masks import read_mask
from tests.support.hostile_images import (
    ODD,
    PLAIN,
    POLYGLOTS,
    REFUSED,
    SIGNATURE,
    bmp,
    exif,
    gif,
    grey16_png,
    grey_tiff,
    icc_profile,
    jpeg_with,
    plain,
    planar16_tiff,
    png,
    png_chunk,
    save,
    tiff,
    zeros_png,
)
from tests.support.processes import memory_of

DECODER = Decoder()
decode_image, decode_mask = DECODER.image, partial(read_mask, DECODER)


def shown(width, height):
    """A picture of this size, for a mask to be of."""
    return Image.new("L", (width, height))


WHITE = (255, 255, 255)
ORANGE = (200, 100, 50)


def near(pixel, expected, tolerance=6):
    return all(abs(a - b) <= tolerance for a, b in zip(pixel, expected, strict=True))


def assert_clean(image):
    assert type(image) is Image.Image
    assert image.info == {}
    assert not dict(image.getexif())


# What is refused


@pytest.mark.parametrize("build", REFUSED.values(), ids=REFUSED.keys())
def test_refused_with_one_clause_and_the_next_picture_decodes(build):
    data = build()
    with pytest.raises(InvalidImage) as caught:
        decode_image(data, param="input_file")
    assert caught.value.param == "input_file"
    assert caught.value.status == 400
    assert caught.value.message.startswith("input_file ")
    assert len(caught.value.message) < 150
    assert decode_image(save(plain(), "PNG")).getpixel((5, 5)) == ORANGE


@pytest.mark.parametrize("build", REFUSED.values(), ids=REFUSED.keys())
def test_refused_as_a_mask_too(build):
    with pytest.raises(InvalidImage) as caught:
        decode_mask(build(), picture=shown(40, 24))
    assert caught.value.param == "mask"


def resident():
    """Resident memory of this process in MiB."""
    return memory_of("self", "VmRSS")


def test_hostile_files_cost_this_process_nothing():
    hostile = [build() for build in REFUSED.values()]
    before = resident()
    for data in hostile:
        with pytest.raises(InvalidImage):
            decode_image(data)
    assert resident() - before < 16


@pytest.mark.parametrize("build", ODD.values(), ids=ODD.keys())
def test_files_that_are_only_odd_are_read(build):
    image = decode_image(build())
    assert image.mode == "RGB"
    assert_clean(image)


def test_4_pixels_at_the_limit_are_decoded_and_given_back_smaller():
    image = decode_image(zeros_png(8000, 5000, 1, 0, 1))
    assert image.size == (2590, 1619)
    assert decode_image(zeros_png(16_384, 2, 1, 0, 1)).size == (16_384, 2)
    with pytest.raises(InvalidImage, match="is 8000x5001; .* and 40 million pixels"):
        decode_image(zeros_png(8000, 5001, 1, 0, 1))


def test_4_a_bmp_from_the_top_down_is_one_like_others():
    """A negative height says so; its sides have the same limits."""
    rows = [b"\0\0\xff" * 4, b"\xff\0\0" * 4]  # Blue comes first: red, then blue.
    pictures = [bmp(4, 2, body=b"".join(rows[::-1])), bmp(4, -2, body=b"".join(rows))]
    for image in map(decode_image, pictures):
        assert image.size == (4, 2)
        assert [image.getpixel((3, y)) for y in (0, 1)] == [(255, 0, 0), (0, 0, 255)]
    assert decode_image(bmp(1, -16_384, body=bytes(65_536))).size == (1, 16_384)
    for height in (16_385, -16_385):
        with pytest.raises(InvalidImage, match="is 1x16385; the limits are"):
            decode_image(bmp(1, height, body=bytes(70_000)))


@pytest.mark.parametrize("progressive", [False, True], ids=["plain", "progressive"])
def test_a_photograph_of_50_megapixels_is_read(progressive):
    photograph = Image.linear_gradient("L").resize((8160, 6120)).convert("RGB")
    photograph.paste(ORANGE, (0, 0, 4080, 3060))
    data = save(photograph, "JPEG", exif=exif(6), progressive=progressive)
    assert len(data) < 20_000_000
    image = decode_image(data)
    assert 0.98 * MOST_PIXELS < image.width * image.height <= MOST_PIXELS
    assert abs(image.height / image.width - 8160 / 6120) < 0.01
    # Turned by a quarter, its orange corner is at the upper right.
    assert near(image.getpixel((image.width * 3 // 4, image.height // 4)), ORANGE)


NAMED = {
    **{
        f"heic-{brand}": (
            struct.pack(">L4s4sL", 24, b"ftyp", brand.encode(), 0) + b"mif1heic",
            "a HEIC picture.* send it as JPEG, .*requirements-heif.txt",
        )
        for brand in ("heic", "heix", "mif1", "msf1", "hevc", "heim")
    },
    "jpeg-xl": (b"\xff\x0a" + bytes(99), "a JPEG XL .*send it as PNG or JPEG"),
    "jpeg-xl-boxed": (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(99), "a JPEG XL"),
    "cgbi": (
        SIGNATURE + png_chunk(b"CgBI", b"P\0 \x02") + save(plain(), "PNG")[8:],
        "an iOS app's PNG .*send an ordinary one",
    ),
    "16-bit-planes": (planar16_tiff(), "a TIFF of 16-bit planes.* send it as PNG"),
}


@pytest.mark.parametrize(("data", "words"), NAMED.values(), ids=NAMED)
def test_what_is_not_read_is_named_with_what_to_do(data, words):
    with pytest.raises(InvalidImage, match=f"^photo is {words}"):
        decode_image(data, param="photo")
    with pytest.raises(InvalidImage, match=f"^mask is {words}"):
        decode_mask(data, picture=shown(40, 24))


HEIF_READER = """
from types import SimpleNamespace
from PIL import Image, ImageFile

options = SimpleNamespace(DECODE_THREADS=4)

class HeifImageFile(ImageFile.ImageFile):
    def _open(self):
        if not self.fp.read().endswith(b"whole"):
            raise SyntaxError("not one of mine")
        self._mode, self._size, self.tile = "RGB", (40, 24), []

    def load(self):
        assert options.DECODE_THREADS == 1
        self._im = Image.core.fill("RGB", self._size, (200, 100, 50))
        return Image.Image.load(self)
"""


def test_heic_is_read_in_the_child_alone_where_its_reader_is_installed(tmp_path):
    """A stand-in for pillow-heif, which is no part of an installation for tests."""
    (tmp_path / "pillow_heif.py").write_text(HEIF_READER)
    (tmp_path / "c2pa.py").write_text("class Context: from_dict = id")
    fresh = Decoder(c2pa=tmp_path)  # the folder that a child may import from, too
    for brand in (b"heic", b"heix", b"mif1", b"msf1"):
        data = b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic"
        assert fresh.image(data + b"whole").getpixel((0, 0)) == ORANGE
        # To install what is there already would not help.
        with pytest.raises(InvalidImage, match="^image is damaged"):
            fresh.image(data + b"cut")
    with pytest.raises(InvalidImage, match="is not a PNG"):
        fresh.image(b"no picture at all")
    assert "pillow_heif" not in sys.modules


def test_outside_a_gifs_first_frame_is_white_and_no_part_of_a_mask():
    data = save(plain(), "GIF")
    data = data[:6] + struct.pack("<HH", 60, 36) + data[10:]
    image = decode_image(data)
    assert image.size == (60, 36)
    assert {image.getpixel(place) for place in ((59, 0), (0, 35), (40, 24))} == {WHITE}
    assert {image.getpixel(place) for place in ((0, 0), (39, 23))} == {ORANGE}
    mask, _ = decode_mask(data, picture=shown(60, 36))
    assert [mask.getpixel(place) for place in ((59, 0), (39, 23))] == [255, 0]


def test_a_large_photograph_that_is_cut_off_is_refused():
    data = save(Image.effect_noise((6000, 4000), 50), "JPEG")
    with pytest.raises(InvalidImage, match="cut off"):
        decode_image(data[: len(data) // 2] + b"\xff\xd9")


def test_a_jpeg_that_is_cut_off_is_refused_whatever_follows_it():
    whole = save(Image.effect_noise((64, 64), 60), "JPEG")
    cut = whole[: len(whole) * 2 // 3] + b"\xff\xd9"
    for rest in (b"", whole, bytes(64)):
        with pytest.raises(InvalidImage, match="cut off"):
            decode_image(cut + rest)


# What comes out right


@pytest.mark.parametrize("kind", PLAIN)
def test_4_every_format_of_the_allow_list_decodes(kind):
    image = decode_image(PLAIN[kind]())
    assert (image.mode, image.size) == ("RGB", (40, 24))
    assert near(image.getpixel((20, 12)), ORANGE)
    assert_clean(image)


@pytest.mark.parametrize(
    "level",
    [0, 255, 256, 20_000, 32_768, 65_535],
    ids=lambda level: f"0-8-i16-W16-{level}",
)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_brightness(kind, level):
    samples = [level] * 64
    if kind == "PNG":
        data = grey16_png(samples, 8)
    else:
        raw = numpy.full((8, 8), level, "<u2")
        data = save(Image.fromarray(raw), "TIFF")
    image = decode_image(data)
    assert image.getpixel((3, 3)) == (level >> 8,) * 3
    assert image.mode == "RGB"


@pytest.mark.parametrize("white_is_zero", [False, True])
def test_16_bit_grey_tiffs_are_no_negatives(white_is_zero):
    levels = [0, 1, 700, 2000, 3000, 4095, 16, 255]
    body = struct.pack("<8H", *(level << 4 for level in levels))
    short, long = 3, 4
    entries = [
        *((256, long, 1, 8), (257, long, 1, 1), (258, short, 1, 16)),
        *((259, short, 1, 1), (262, short, 1, 0 if white_is_zero else 1)),
        *((273, long, 1, 8), (277, short, 1, 1), (279, long, 1, len(body))),
    ]
    seen = list(decode_image(tiff(entries, body)).convert("L").tobytes())
    wanted = [level >> 4 for level in levels]
    assert seen == [255 - level if white_is_zero else level for level in wanted]


def test_a_bmp_whose_fourth_byte_is_empty_is_no_glass():
    header = struct.pack(
        "<LllHHLLllLL", 108, 2, 1, 1, 32, 3, 8, 0, 0, 0, 0
    ) + struct.pack("<4L", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header += b"BGRs" + bytes(48)
    start, pixels = 14 + len(header), bytes((40, 60, 210, 0, 255, 255, 255, 0))
    size = start + len(pixels)
    data = b"BM" + struct.pack("<LHHL", size, 0, 0, start) + header + pixels
    assert decode_image(data).getpixel((0, 0)) == (210, 60, 40)
    mask, _ = decode_mask(data, picture=shown(2, 1))
    assert mask.getpixel((0, 0)) < 255 == mask.getpixel((1, 0))


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"tEXt", b"a\0b")[:-1] + b"?",
        png_chunk(b"iCCP", b"a\0\0rubbish")[:-1] + b"?",
        *(png_chunk(name, b"") for name in (b"sRGB", b"gAMA", b"cHRM", b"pHYs")),
        *(png_chunk(name, b"\0") for name in (b"acTL", b"fcTL", b"zTXt", b"tIME")),
    ],
)
def test_a_png_is_not_refused_for_what_says_nothing_of_its_pixels(chunk):
    data = save(plain(), "PNG")
    assert decode_image(data[:33] + chunk + data[33:]).getpixel((5, 5)) == ORANGE


@pytest.mark.parametrize(
    ("marker", "body"),
    [
        *((0xE2, b"ICC_PROFILE\0"), (0xE2, b"ICC_PROFILE\0\1")),
        *((0xE0, b"JFIF\0\1"), (0xEE, b"Adobe"), (0xEE, b"Adobe\0d\0\0\0\0")),
    ],
)
def test_a_jpeg_is_not_refused_for_metadata_that_is_cut_off(marker, body):
    assert near(decode_image(jpeg_with(marker, body)).getpixel((20, 12)), ORANGE)


@pytest.mark.parametrize("length", [0, 1])
def test_a_jpegs_segment_may_lie_about_a_length_of_nothing(length):
    data = save(plain(), "JPEG")
    odd = data[:2] + b"\xff\xe1" + length.to_bytes(2, "big") + data[2:]
    assert near(decode_image(odd).getpixel((20, 12)), ORANGE)


@pytest.mark.parametrize("step", [64], ids=["0-8-i16-W16-ramp"])
def test_16_bit_grey_keeps_its_mean_brightness(step):
    samples = list(range(0, 65_536, step))
    mean = numpy.asarray(decode_image(grey16_png(samples, 32))).mean()
    assert abs(mean - numpy.mean(samples) / 257) < 1


def test_0_8_i16_key_becomes_white():
    image = decode_image(
        grey16_png([100, 20_000, 20_001, 65_535], 4, transparent=20_000)
    )
    assert [image.getpixel((x, 0))[0] for x in range(4)] == [0, 255, 78, 255]


def rgb16():
    rows = b"\0" + struct.pack(">HHH", 0x1234, 0x5678, 0x9ABC)
    return png(1, 1, 16, 2, rows)


def rgba16():
    return png(1, 1, 16, 6, b"\0" + struct.pack(">HHHH", 0x1234, 0x5678, 0x9ABC, 0))


def keyed(depth, colours, row, key):
    width = {1: 8, 2: 4, 4: 2}.get(depth, 2)
    return png(width, 1, depth, colours, b"\0" + row, [(b"tRNS", key)])


def translucent(mode, alpha):
    image = plain().convert(mode)
    image.putalpha(alpha)
    return image


def palette(transparency):
    image = plain().quantize(4)
    index = image.getpixel((20, 12))
    return image, index if transparency == "index" else bytes(
        128 if entry == index else 255 for entry in range(4)
    )


def saved_palette(kind, transparency):
    image, key = palette(transparency)
    return save(image, kind, transparency=key)


COMPOSITED = {
    "0-8-alpha-W16-hidden-colour": (
        lambda: save(translucent("RGB", 0), "PNG"),
        WHITE,
    ),
    "0-8-alpha-W16-half": (
        lambda: save(translucent("RGB", 128), "PNG"),
        (227, 177, 152),
    ),
    "0-8-alpha-opaque": (lambda: save(translucent("RGB", 255), "PNG"), ORANGE),
    "0-8-alpha-webp": (
        lambda: save(translucent("RGB", 0), "WEBP", lossless=True),
        WHITE,
    ),
    "0-8-alpha-avif": (lambda: save(translucent("RGB", 0), "AVIF"), WHITE),
    "0-8-alpha-tiff": (lambda: save(translucent("RGB", 0), "TIFF"), WHITE),
    "0-8-alpha-la": (lambda: save(translucent("L", 0), "PNG"), WHITE),
    "0-8-alpha-la-half": (lambda: save(translucent("L", 128), "PNG"), (189, 189, 189)),
    "0-8-alpha-16-bit": (rgba16, WHITE),
    "4-palette": (lambda: save(palette("index")[0], "PNG"), ORANGE),
    "4-palette-index": (lambda: saved_palette("PNG", "index"), WHITE),
    "4-palette-bytes": (lambda: saved_palette("PNG", "bytes"), (227, 177, 152)),
    "4-palette-gif": (lambda: saved_palette("GIF", "index"), WHITE),
    "4-key-rgb": (lambda: keyed(8, 2, b"\1\2\3\4\5\6", b"\0\1\0\2\0\3"), WHITE),
    "4-key-grey": (lambda: keyed(8, 0, b"\7\x08", b"\0\7"), WHITE),
    "4-key-1-bit": (lambda: keyed(1, 0, b"\x70", b"\0\0"), WHITE),
    "4-key-2-bit": (lambda: keyed(2, 0, b"\x5b", b"\0\1"), WHITE),
    "4-rgb-16-bit": (rgb16, (0x12, 0x56, 0x9A)),
    "4-cmyk-jpeg": (lambda: save(plain().convert("CMYK"), "JPEG"), ORANGE),
    "4-cmyk-tiff": (lambda: save(plain().convert("CMYK"), "TIFF"), ORANGE),
    "4-ycbcr-tiff": (lambda: save(plain().convert("YCbCr"), "TIFF"), ORANGE),
    "4-lab-tiff": (lambda: save(plain().convert("LAB"), "TIFF"), ORANGE),
    "4-grey-jpeg": (lambda: save(plain().convert("L"), "JPEG"), (124, 124, 124)),
    "4-bilevel-png": (lambda: save(Image.new("1", (40, 24), 1), "PNG"), WHITE),
    "4-tiff-lzw": (lambda: save(plain(), "TIFF", compression="tiff_lzw"), ORANGE),
    "4-tiff-jpeg": (lambda: save(plain(), "TIFF", compression="jpeg"), ORANGE),
    "4-tiff-raw-strips": (lambda: grey_tiff(64, 64), (0, 0, 0)),
    "4-jpeg-progressive": (lambda: save(plain(), "JPEG", progressive=True), ORANGE),
    "4-jpeg-trailing-bytes": (lambda: save(plain(), "JPEG") + bytes(64), ORANGE),
    "4-png-interlaced-extra-chunks": (
        lambda: png(1, 1, rows=b"\0\xc8\x64\x32", extra=[(b"tEXt", b"Title\0<b>")]),
        ORANGE,
    ),
}


@pytest.mark.parametrize(("build", "expected"), COMPOSITED.values(), ids=COMPOSITED)
def test_colours_come_out_right(build, expected):
    image = decode_image(build())
    x, y = (20, 12) if image.width > 20 else (0, 0)
    assert near(image.getpixel((x, y)), expected, 4)
    assert_clean(image)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF", "TIFF"])
def test_4_frames_the_first_of_an_animation_is_taken(kind):
    rest = [Image.new("RGB", (40, 24), colour) for colour in ("red", "green", "blue")]
    data = save(plain(), kind, save_all=True, append_images=rest)
    image = decode_image(data)
    assert image.size == (40, 24)
    assert near(image.getpixel((20, 12)), ORANGE)
    assert_clean(image)


def cornered():
    """Red at the top left, green at the top right, blue at the bottom left."""
    image = Image.new("RGB", (48, 32), "black")
    image.paste("red", (0, 0, 16, 16))
    image.paste("lime", (32, 0, 48, 16))
    image.paste("blue", (0, 16, 16, 32))
    return image


# Where red, green and blue are seen, by EXIF orientation: x and y of the corner.
CORNERS = {
    1: ("00", "10", "01"),
    2: ("10", "00", "11"),
    3: ("11", "01", "10"),
    4: ("01", "11", "00"),
    5: ("00", "01", "10"),
    6: ("10", "11", "00"),
    7: ("11", "10", "01"),
    8: ("01", "00", "11"),
}


@pytest.mark.parametrize("orientation", CORNERS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_4_exif_turns_the_picture(kind, orientation):
    if kind == "TIFF":
        data = save(cornered(), kind, tiffinfo={274: orientation})
    else:
        data = save(cornered(), kind, exif=exif(orientation))
    image = decode_image(data)
    assert image.size == ((48, 32) if orientation < 5 else (32, 48))
    for place, colour in zip(
        CORNERS[orientation], [(255, 0, 0), (0, 255, 0), (0, 0, 255)], strict=True
    ):
        x = 4 if place[0] == "0" else image.width - 5
        y = 4 if place[1] == "0" else image.height - 5
        assert near(image.getpixel((x, y)), colour, 60), (place, colour)
    assert_clean(image)


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(exif(6, order=">"), id="big-endian"),
        pytest.param(exif(6), id="little-endian"),
        pytest.param(exif(6)[6:], id="without-prefix"),
    ],
)
def test_4_exif_is_read_in_either_byte_order(block):
    data = png(2, 1, rows=b"\0\1\2\3\4\5\6", extra=[(b"eXIf", block)])
    assert decode_image(data).size == (1, 2)


@pytest.mark.parametrize("orientation", [0, 9, 65_535])
def test_4_exif_of_an_unknown_orientation_turns_nothing(orientation):
    assert decode_image(jpeg_with(0xE1, exif(orientation))).size == (40, 24)


def test_4_exif_behind_the_pixels_counts_too():
    data = png(2, 1, rows=b"\0\1\2\3\4\5\6", after=[(b"eXIf", exif(6))])
    assert decode_image(data).size == (1, 2)


def test_4_icc_profile_is_applied():
    red = plain(colour=(255, 0, 0))
    swapped = icc_profile(primaries="bgr")
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "AVIF"):
        image = decode_image(save(red, kind, icc_profile=swapped))
        assert near(image.getpixel((20, 12)), (0, 0, 255), 16), kind
        assert_clean(image)


def test_4_icc_profile_of_grey_is_applied_to_grey_only():
    grey = plain(colour=(128, 128, 128)).convert("L")
    linear = icc_profile(space=b"GRAY")
    assert near(
        decode_image(save(grey, "PNG", icc_profile=linear)).getpixel((0, 0)),
        (188, 188, 188),
    )
    coloured = save(plain(), "PNG", icc_profile=linear)
    assert decode_image(coloured).getpixel((0, 0)) == ORANGE


def test_4_icc_profile_of_srgb_changes_no_pixel():
    noise = Image.effect_noise((32, 32), 90).convert("RGB")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    data = save(noise, "PNG", icc_profile=profile.tobytes())
    assert decode_image(data).tobytes() == noise.tobytes()


def test_4_exif_of_a_camera_is_accepted():
    block = Image.Exif()
    block.update({271: "Maker", 272: "Model", 306: "2026:01:01 00:00:00", 274: 6})
    block.get_ifd(0x8769).update(
        {0x829A: 0.01, 37500: random.Random(1).randbytes(3000)}
    )
    block.get_ifd(0x8825).update({1: "N", 2: (35.0, 1.0, 2.0)})
    assert decode_image(save(plain(), "JPEG", exif=block)).size == (24, 40)


def test_gif_padding_between_blocks_is_accepted():
    data = gif(4, 4, (0, 0, 1, 1), blocks=b"!\xfe\x01x\0\0\0")
    assert decode_image(data).size == (4, 4)


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
    st.sampled_from(["RGB", "L", "CMYK"]),
    st.sampled_from([1, 40, 95, 100]),
    st.fixed_dictionaries(
        {"subsampling": st.sampled_from([0, 1, 2])},
        optional={
            "optimize": st.just(True),
            "progressive": st.just(True),
            "restart_marker_blocks": st.integers(1, 7),
        },
    ),
    st.sampled_from(["noise", "flat", "black"]),
    st.sampled_from([b"", bytes(9), b"\xff\xd8\xff\xe0 more", b"\xff\xd9"]),
)
def test_every_complete_jpeg_is_read_like_pillow_does(
    size, mode, quality, options, content, trailer
):
    colour = ORANGE if content == "flat" else (0, 0, 0)
    image = plain(size, colour)
    if content == "noise":
        image = Image.effect_noise(size, 90).convert("RGB")
    data = save(image.convert(mode), "JPEG", quality=quality, **options)
    with Image.open(io.BytesIO(data)) as read:
        expected = read.convert("RGB").tobytes()
    assert decode_image(data + trailer).tobytes() == expected
    if size[0] >= 8 and "progressive" not in options:
        assert decode_image(data[:-2]).tobytes() == expected


def test_a_thumbnail_within_a_jpeg_does_not_end_it():
    thumbnail = save(plain((8, 8)), "JPEG")
    data = jpeg_with(0xE1, exif(1) + thumbnail, Image.effect_noise((64, 64), 60))
    assert decode_image(data).size == (64, 64)


def test_a_refused_picture_gives_its_place_back():
    for _ in range(5):
        with pytest.raises(InvalidImage):
            decode_image(REFUSED["4-truncated-png"]())
    decode_image(save(plain(), "PNG"))


def test_threads_decode_the_same_pictures_alike():
    sources = [build() for build in PLAIN.values()]
    sources += [build() for build, _ in COMPOSITED.values()]
    alone = [decode_image(data).tobytes() for data in sources]
    together = [[] for _ in range(4)]

    def work(results):
        results.extend(decode_image(data).tobytes() for data in sources)

    threads = [threading.Thread(target=work, args=(place,)) for place in together]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert all(results == alone for results in together)


# Masks


def test_mask_is_white_where_alpha_is_zero():
    image = Image.new("RGBA", (4, 1), (9, 9, 9, 255))
    for x, alpha in enumerate((0, 1, 128, 255)):
        image.putpixel((x, 0), (x, 50, 70, alpha))
    mask, notes = decode_mask(save(image, "PNG"), picture=shown(4, 1))
    assert notes == []
    assert mask.mode == "L"
    assert [mask.getpixel((x, 0)) for x in range(4)] == [255, 254, 127, 0]
    assert_clean(mask)


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(lambda: save(translucent("L", 0), "PNG"), id="grey-alpha"),
        pytest.param(lambda: saved_palette("PNG", "index"), id="palette-index"),
        pytest.param(lambda: save(translucent("RGB", 0), "WEBP"), id="webp"),
        pytest.param(lambda: saved_palette("GIF", "index"), id="gif"),
    ],
)
def test_mask_alpha_of_any_kind_counts(build):
    assert decode_mask(build(), picture=shown(40, 24))[0].getpixel((20, 12)) == 255


def test_mask_is_turned_like_the_picture():
    image = translucent("RGB", 255)
    image.putpixel((0, 0), (0, 0, 0, 0))
    mask, _ = decode_mask(save(image, "PNG", exif=exif(6)), picture=shown(24, 40))
    assert mask.getpixel((23, 0)) == 255
    assert mask.getextrema() == (0, 255)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP"])
def test_mask_without_alpha_says_so(kind):
    mask, notes = decode_mask(save(plain(), kind), picture=shown(40, 24))
    assert (mask.mode, mask.size) == ("L", (40, 24))
    assert "opaque" in notes[0]


def test_the_white_area_of_a_mask_without_alpha_is_white_but_for_its_noise():
    """A JPEG's black is not quite black: what is to be kept is kept."""
    levels = [0, 15, 16, 128, 239, 240, 255]
    drawn = Image.new("L", (len(levels), 1))
    drawn.putdata(levels)
    mask, _ = decode_mask(save(drawn, "PNG"), picture=shown(len(levels), 1))
    assert list(mask.tobytes()) == [0, 0, 16, 128, 239, 255, 255]


def test_mask_of_another_shape_is_refused():
    with pytest.raises(InvalidImage, match="40x24.*64x64") as caught:
        decode_mask(save(translucent("RGB", 0), "PNG"), picture=shown(64, 64))
    assert caught.value.param == "mask"


def large(size, kind="PNG", **options):
    """A file of more pixels than are worked with."""
    return save(Image.new("RGB", size, "white"), kind, **options)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        pytest.param(large((3000, 2000)), (3000, 2000), id="png"),
        pytest.param(large((6000, 4000), "JPEG"), (6000, 4000), id="drafted"),
        pytest.param(
            large((6000, 4000), "JPEG", exif=exif(6)), (4000, 6000), id="turned"
        ),
        pytest.param(
            large((3000, 2000), "TIFF", tiffinfo={274: 6}), (2000, 3000), id="tiff"
        ),
        pytest.param(save(plain(), "PNG"), (40, 24), id="small"),
    ],
)
def test_a_picture_that_was_shrunk_knows_its_own_size(data, size):
    image = decode_image(data)
    assert original_size(image) == size
    assert image.width * image.height <= MOST_PIXELS
    assert (image.width > image.height) == (size[0] > size[1])


def test_masks_are_spoken_of_by_the_sizes_that_were_sent():
    photo = decode_image(large((3000, 2000)))
    _, notes = decode_mask(large((3000, 2000)), picture=photo)
    assert not any("scaled" in note for note in notes)
    mask, notes = decode_mask(large((600, 400)), picture=photo)
    assert "from 600x400 to 3000x2000." in notes[-1]
    assert mask.size == photo.size
    with pytest.raises(InvalidImage, match="mask is 2900x2900 .*image is 3000x2000"):
        decode_mask(large((2900, 2900)), picture=photo)


# Text


PIXEL = save(plain((1, 1)), "PNG")
PIXEL_64 = base64.b64encode(PIXEL).decode()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"data:image/png;base64,{PIXEL_64}", id="plain"),
        pytest.param(f"DATA:Image/PNG;BASE64,{PIXEL_64}", id="upper-case"),
        pytest.param(f"data:image/svg+xml;base64,{PIXEL_64}", id="type-is-no-promise"),
        pytest.param(f"data:image/png;charset=utf-8;base64,{PIXEL_64}", id="parameter"),
        pytest.param(f"data:application/octet-stream;base64,{PIXEL_64}", id="octets"),
        pytest.param(f"data:image/png;base64,{PIXEL_64.rstrip('=')}", id="unpadded"),
        pytest.param(
            f"data:image/png;base64,{base64.urlsafe_b64encode(PIXEL).decode()}",
            id="url-safe",
        ),
        pytest.param(
            f"data:image/png;base64,\n{PIXEL_64[:40]}\r\n{PIXEL_64[40:]}\n",
            id="wrapped",
        ),
    ],
)
def test_data_url_decodes(text):
    assert decode_data_url(text, param="image") == PIXEL


def test_bare_base64_decodes():
    assert decode_base64(PIXEL_64, param="image") == PIXEL


# Its Base64 has each letter, a plus beside another, and an end that fills no line.
LETTERS = bytes(3) + b"\xfb\xef\xbe" * 2 + bytes(range(250))


@pytest.mark.parametrize("case", [str.upper, str.lower])
def test_escaped_base64_decodes(case):
    """As some clients put it into a form: each sign but letters and digits, escaped."""
    text = base64.encodebytes(LETTERS + b"\xff").decode().replace("\n", "\r\n")
    escapes = {"+": "%2B", "/": "%2F", "=": "%3D", "\r": "%0D", "\n": "%0A"}
    for sign, escape in escapes.items():
        assert sign in text
        text = text.replace(sign, case(escape))
    assert decode_base64(text, param="image") == LETTERS + b"\xff"


@pytest.mark.parametrize("width", [4, 20, 76])
def test_a_space_is_the_end_of_a_line_or_was_a_plus(width):
    """Where a field became one line, and in a form that nobody escaped."""
    text = base64.b64encode(LETTERS).decode()
    lines = [text[at : at + width] for at in range(0, len(text), width)]
    assert decode_base64(" ".join(lines), param="image") == LETTERS
    assert "++" in text
    assert decode_base64(text.replace("+", " "), param="image") == LETTERS


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("data:", id="scheme-only"),
        pytest.param("data:image/png;base64", id="no-comma"),
        pytest.param("data:image/png;base64,", id="no-data"),
        pytest.param("data:image/png;base64,====", id="padding-only"),
        pytest.param("data:image/png,%89PNG", id="not-base64"),
        pytest.param(f"data:image/png;base64,{PIXEL_64}!", id="alphabet"),
        pytest.param("data:image/png;base64,QUJ=DA==", id="padding-inside"),
        pytest.param("data:image/png;base64,QUJDR", id="length"),
        pytest.param("data:image/png;base64,\u3042\u3044", id="not-ascii"),
        pytest.param("data:image/png;base64,\udcff", id="surrogate"),
        pytest.param("data:image/png;base64,%00", id="escape"),
        pytest.param("data:" + "x" * 100_000 + ",QUJD", id="long-header"),
    ],
)
def test_rubbish_is_no_data_url(text):
    with pytest.raises(InvalidImage) as caught:
        decode_data_url(text, param="image")
    assert caught.value.param == "image"


# Pictures to bytes


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (64, 48), (255, 3)])
def test_png_keeps_every_pixel(size):
    samples = random.Random(7).randbytes(size[0] * size[1] * 3)
    image = Image.frombytes("RGB", size, samples)
    encoded = encode_image(image)
    assert encoded.media_type == "image/png"
    with Image.open(io.BytesIO(encoded.data)) as read:
        assert (read.mode, read.size) == ("RGB", size)
        assert read.tobytes() == samples


def test_png_has_right_checksums_and_nothing_but_pixels():
    data, position, names = encode_image(plain()).data, 8, []
    while position < len(data):
        length, name = struct.unpack_from(">L4s", data, position)
        body = data[position + 8 : position + 8 + length]
        checksum = struct.unpack_from(">L", data, position + 8 + length)[0]
        assert checksum == zlib.crc32(name + body)
        names.append(name)
        position += 12 + length
    assert names == [b"IHDR", b"IDAT", b"IEND"]


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_the_same_picture_gives_the_same_bytes(output_format):
    noise = Image.effect_noise((96, 64), 60).convert("RGB")
    first = encode_image(noise, output_format)
    assert encode_image(noise.copy(), output_format) == first


@pytest.mark.parametrize(
    ("output_format", "media_type", "start"),
    [
        ("png", "image/png", b"\x89PNG"),
        ("jpeg", "image/jpeg", b"\xff\xd8\xff"),
        ("webp", "image/webp", b"RIFF"),
    ],
)
def test_no_metadata_reaches_the_output(output_format, media_type, start):
    image = Image.new("RGB", (8, 8), ORANGE)
    image.info = {
        "exif": exif(6),
        "icc_profile": icc_profile(),
        "comment": b"a secret",
        "xmp": b"<x>a secret</x>",
        "Title": "a secret",
        "dpi": (300, 300),
    }
    encoded = encode_image(image, output_format)
    assert encoded.media_type == media_type
    assert encoded.data.startswith(start)
    assert b"secret" not in encoded.data
    with Image.open(io.BytesIO(encoded.data)) as read:
        assert not {"exif", "icc_profile", "comment", "xmp", "Title"} & set(read.info)
        assert near(read.convert("RGB").getpixel((4, 4)), ORANGE)
    assert image.info["comment"] == b"a secret"


def test_no_colour_of_a_jpeg_is_halved():
    """Stripes of a pixel keep theirs; in Pillow's usual form two make a grey."""
    stripes = numpy.zeros((16, 16, 3), "uint8")
    stripes[:, ::2, 0], stripes[:, 1::2, 2] = 255, 255
    encoded = encode_image(Image.fromarray(stripes), "jpeg", 100)
    with Image.open(io.BytesIO(encoded.data)) as read:
        apart = numpy.abs(numpy.asarray(read).astype(int) - stripes)
    assert apart.max() < 16


@pytest.mark.parametrize("output_format", ["jpeg", "webp"])
def test_compression_is_the_quality(output_format):
    noise = Image.effect_noise((128, 128), 60).convert("RGB")
    small = encode_image(noise, output_format, 10).data
    large = encode_image(noise, output_format, 95).data
    assert len(small) < len(large) / 2


# Whatever comes


SEEDS = [build() for build in PLAIN.values()]
SEEDS += [jpeg_with(0xE1, exif(6)), rgb16(), grey_tiff(64, 64)]


def decode_or_refuse(data):
    """Nothing but a picture or a refusal, whatever the bytes."""
    try:
        image = decode_image(data)
    except InvalidImage:
        return
    assert image.mode == "RGB"
    assert 0 < image.width * image.height <= 40_000_000
    assert_clean(image)


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=200), st.sampled_from([b"", *(seed[:12] for seed in SEEDS)]))
def test_any_bytes_are_a_picture_or_a_refusal(rest, start):
    decode_or_refuse(start + rest)


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4),
    st.integers(0, 2000),
)
def test_any_damage_is_a_picture_or_a_refusal(seed, changes, length):
    data = bytearray(seed)
    for position, value in changes:
        data[position % len(data)] = value
    decode_or_refuse(bytes(data[: length or None] if length < len(data) else data))


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=300), st.sampled_from(["", "data:image/png;base64,"]))
def test_any_text_is_bytes_or_a_refusal(text, start):
    for read in (decode_data_url, decode_base64):
        try:
            assert read(start + text, param="image")
        except InvalidImage as error:
            assert error.param == "image"


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 40), st.randoms(use_true_random=False))
def test_any_picture_survives_the_round_trip(width, height, source):
    image = Image.frombytes(
        "RGB", (width, height), source.randbytes(width * height * 3)
    )
    assert decode_image(encode_image(image).data).tobytes() == image.tobytes()


@pytest.mark.parametrize("name", POLYGLOTS)
def test_4_pictures_that_are_something_else_as_well_are_read(name):
    image = decode_image(POLYGLOTS[name]())
    assert image.mode == "RGB"
    encoded = encode_image(image).data
    assert b"script" not in encoded.lower()
    assert b"PDF" not in encoded


@pytest.mark.parametrize("quality", [30, 95])
@pytest.mark.parametrize("side", [16, 90, 200])
def test_4_every_avif_of_a_busy_picture_is_read(side, quality):
    """Its frames take more than one byte to say how long they are."""
    noise = numpy.random.default_rng(side).integers(0, 256, (side, side, 3), "uint8")
    data = save(Image.fromarray(noise), "AVIF", quality=quality)
    assert decode_image(data).size == (side, side)
