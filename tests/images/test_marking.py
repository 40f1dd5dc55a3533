"""Marks and recipes in files: other programs read them, and no pixel knows of them."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import xml.etree.ElementTree as ET

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from flux_api.images.codec import encode_image
from flux_api.images.metadata import Metadata, add_metadata, picture_data
from flux_api.images.recipe import (
    MOST_PARENTS,
    make_xmp,
    parents_of,
    read_recipe,
    to_parameters,
    without_prompts,
)
from tests.support.programs import need

FORMATS = ("png", "jpeg", "webp")
RECIPE = {
    "recipe": 1,
    "mode": "generate",
    "model": "tiny",
    "prompt": 'a <b>cat</b> & "dog"\n猫 \x01\x0b\ufffe\U0001f600',
    "seed": 2**64 - 1,
    "width": 512,
    "height": 256,
    "num_inference_steps": 4,
}
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


def picture():
    return Image.effect_noise((101, 64), 60).convert("RGB")


def marked(file_format, recipe=None, parameters=""):
    """A plain file, and the same with metadata."""
    plain = encode_image(picture(), file_format, 90)
    metadata = Metadata(make_xmp("generate", recipe), parameters)
    return plain.data, add_metadata(plain, metadata).data


def opened(data):
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image


@pytest.mark.parametrize("file_format", FORMATS)
def test_no_pixel_changes(file_format):
    for parameters in ("", "a cat\nSteps: 4"):
        plain, full = marked(file_format, RECIPE, parameters)
        before, after = opened(plain), opened(full)
        assert (after.mode, after.size) == (before.mode, before.size)
        assert after.tobytes() == before.tobytes()
        assert picture_data(full) == picture_data(plain) != b""


@pytest.mark.parametrize("parameters", ["", "a cat\nSteps: 4"])
def test_a_webps_header_says_what_is_in_it_as_pillows_does(parameters):
    """Flags and sides: readers look for what is flagged alone, and others are to be
    0."""
    _, full = marked("webp", RECIPE, parameters)
    options = {"exif": b"Exif\0\0MM"} if parameters else {}
    file = io.BytesIO()
    picture().save(file, "webp", quality=90, xmp=b"<x/>", **options)
    assert full[12:30] == file.getvalue()[12:30]
    assert full[12:16] == b"VP8X"


@pytest.mark.parametrize("file_format", FORMATS)
def test_the_mark_alone_is_small_and_well_formed(file_format):
    plain, full = marked(file_format)
    assert len(full) - len(plain) < 600
    ET.fromstring(opened(full).info["xmp"])
    assert read_recipe(full) is None


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize(
    ("mode", "word"),
    [
        ("generate", "trainedAlgorithmicMedia"),
        ("edit", "compositeWithTrainedAlgorithmicMedia"),
        ("variation", "compositeWithTrainedAlgorithmicMedia"),
    ],
)
def test_exiftool_reads_the_mark(file_format, mode, word, tmp_path):
    exiftool = need("exiftool")
    plain = encode_image(picture(), file_format)
    file = add_metadata(plain, Metadata(make_xmp(mode, RECIPE), "a cat\nSteps: 4"))
    path = tmp_path / f"picture.{file_format}"
    path.write_bytes(file.data)
    done = subprocess.run(
        [exiftool, "-json", "-warning", "-error", path],
        capture_output=True,
        check=True,
    )
    [told] = json.loads(done.stdout)
    asked = [exiftool, "-s3", "-n", "-XMP-iptcExt:DigitalSourceType", path]
    found = subprocess.run(asked, capture_output=True, check=True, text=True)
    uri = f"http://cv.iptc.org/newscodes/digitalsourcetype/{word}"
    assert found.stdout.strip() == uri
    assert "Error" not in told and "Warning" not in told, told


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_recipe_survives_a_program_that_writes_the_metadata_anew(
    file_format, tmp_path
):
    exiftool = need("exiftool")
    _, full = marked(file_format, RECIPE)
    path = tmp_path / f"picture.{file_format.replace('jpeg', 'jpg')}"
    path.write_bytes(full)
    add = [exiftool, "-q", "-overwrite_original", "-XMP-dc:Title=Mine", path]
    subprocess.run(add, check=True)
    assert path.read_bytes() != full
    assert read_recipe(path.read_bytes()) == RECIPE


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_picture_that_is_saved_anew_tells_nothing(file_format):
    _, full = marked(file_format, RECIPE)
    again = io.BytesIO()
    saved = opened(full)
    saved.info = {}
    saved.save(again, file_format)
    assert read_recipe(again.getvalue()) is None
    assert picture_data(again.getvalue()) != picture_data(full)


@given(TEXT, TEXT)
@example("</flux:Recipe>", "<?xpacket end='w'?>")
@example("&lt;&quot;", "\ud7ff\ufffe\uffff\U0010ffff")
def test_every_prompt_comes_back(prompt, negative):
    recipe = RECIPE | {"prompt": prompt, "negative_prompt": negative}
    packet = make_xmp("edit", recipe)
    ET.fromstring(packet)
    assert read_recipe(b"any" + packet + b"bytes") == recipe


def test_hashes_stand_in_for_prompts():
    told = without_prompts(RECIPE | {"negative_prompt": "x"})
    assert "prompt" not in told and "negative_prompt" not in told
    assert told["negative_prompt_sha256"].startswith("2d711642b726b044")
    assert list(told)[:4] == ["recipe", "mode", "model", "prompt_sha256"]


@given(st.binary())
@example(b"")
@example(b"[" * 100_000)
@example(b'{"recipe":2}')
@example(b'{"recipe":true}')
@example(b'{"recipe":1,"inputs":7}')
@example(b'{"recipe":1,"inputs":[7,"x"],"loras":[1]}')
@example(b'{"recipe":1,"seed":NaN}')
@example(b"\xff\xfe{}")
def test_whatever_a_stranger_wrote_is_no_recipe(rubbish):
    data = b"<flux:Recipe>" + rubbish + b"</flux:Recipe>"
    assert parents_of(data) == ()
    with contextlib.suppress(ValueError):
        read_recipe(data)


def test_a_recipe_of_a_later_version_is_named():
    with pytest.raises(ValueError, match="later version"):
        read_recipe(make_xmp("edit", RECIPE | {"recipe": 2}))


def test_parents_are_hashes_and_few():
    inputs = [f"{n:064x}" for n in range(30)]
    recipe = RECIPE | {"inputs": ["no hash", inputs[0]], "parents": inputs}
    assert parents_of(make_xmp("edit", recipe)) == tuple(inputs[:MOST_PARENTS])


STARTS = [b"", b"GIF8", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP"]


@given(st.sampled_from(STARTS), st.binary())
def test_a_damaged_file_has_whatever_picture_data_it_has(start, rest):
    assert len(picture_data(start + rest)) <= len(start + rest)


def test_a_text_that_a_jpeg_has_no_room_for_is_refused():
    plain = encode_image(picture(), "jpeg")
    long = Metadata(make_xmp("generate"), "猫" * 40_000)
    assert not long.fits_jpeg
    with pytest.raises(ValueError, match="more metadata"):
        add_metadata(plain, long)


@pytest.mark.parametrize("spare", [1, 0, -1])
def test_a_jpeg_takes_as_much_as_a_segment_holds(spare):
    """To the byte: the length of a segment is a number of 16 bits."""
    plain = encode_image(picture(), "jpeg")
    head = len(b"http://ns.adobe.com/xap/1.0/\0")
    metadata = Metadata(b"x" * (0xFFFF - 2 - head - spare))
    assert metadata.fits_jpeg is (spare >= 0)
    if spare >= 0:
        assert opened(add_metadata(plain, metadata).data).info["xmp"] == metadata.xmp
    else:
        with pytest.raises(ValueError, match="more metadata"):
            add_metadata(plain, metadata)


# The text that AUTOMATIC1111's tools read


@pytest.mark.parametrize("prompt", ["a cat", "猫, a cat"])
@pytest.mark.parametrize("file_format", FORMATS)
def test_the_text_stands_where_those_tools_look(file_format, prompt, tmp_path):
    text = to_parameters(RECIPE | {"prompt": prompt}, distilled_guidance=True)
    _, full = marked(file_format, RECIPE, text)
    if file_format == "png":
        assert opened(full).info["parameters"] == text
        return
    comment = opened(full).getexif().get_ifd(0x8769)[0x9286]
    assert comment == b"UNICODE\0" + text.encode("utf-16-be")
    path = tmp_path / f"picture.{file_format}"
    path.write_bytes(full)
    asked = [need("exiftool"), "-json", "-UserComment", path]
    [told] = json.loads(subprocess.run(asked, capture_output=True, check=True).stdout)
    assert told["UserComment"] == text


def test_the_text_says_what_those_tools_know():
    recipe = RECIPE | {
        "prompt": "a cat",
        "negative_prompt": "a dog",
        "guidance_scale": 3.5,
        "loras": [
            {"name": "styles/ink", "adapter_weight": 0.8, "sha256": "0123456789ab"},
            {"name": "paint", "adapter_weight": 1.0, "sha256": "ba9876543210"},
        ],
    }
    lines = to_parameters(recipe, distilled_guidance=True).split("\n")
    assert lines[:2] == [
        "a cat <lora:styles/ink:0.8> <lora:paint:1>",
        "Negative prompt: a dog",
    ]
    assert lines[2].startswith(
        "Steps: 4, Sampler: Euler, Schedule type: Simple, CFG scale: 1, "
        f"Seed: {2**64 - 1}, Size: 512x256, Model: tiny, Distilled CFG Scale: 3.5, "
        'Lora hashes: "styles/ink: 0123456789, paint: ba98765432", Version: Flux'
    )
    classic = to_parameters(recipe, distilled_guidance=False)
    assert "CFG scale: 3.5" in classic and "Distilled" not in classic
