"""Property-based tests of what is an image and what is a name."""

from __future__ import annotations

import re
import string

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from file_server.media import EXTENSIONS, is_name, media_type, new_name, sniff
from tests.file_server.serving import picture

# A busy machine is slow now and then; that is no finding.
unhurried = settings(deadline=None, suppress_health_check=list(HealthCheck))

SIGNATURES = {
    "png": b"\x89PNG\r\n\x1a\n",
    "jpg": b"\xff\xd8\xff",
    "gif": b"GIF8",
    "webp": b"RIFF",
    "bmp": b"BM",
    "tiff": (b"II", b"MM"),
    "avif": b"",
}


@unhurried
@given(st.binary(max_size=600))
def test_any_bytes_get_an_answer_that_their_beginning_supports(data):
    extension = sniff(data)
    if extension is not None:
        assert data.startswith(SIGNATURES[extension])
        assert extension in EXTENSIONS
        assert media_type(extension).startswith("image/")


@unhurried
@given(
    st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"]), st.data()
)
def test_only_the_beginning_of_a_picture_decides(kind, data):
    head = picture(size=20, kind=kind)[:512]
    extension = sniff(head)
    assert extension is not None
    assert media_type(extension) == Image.MIME[kind]
    tail = data.draw(st.binary(max_size=64))
    assert sniff(head + tail) == extension
    assert sniff(b"<" + head) is None


@unhurried
@given(st.binary(max_size=200))
def test_a_bitmap_needs_more_than_its_two_letters(data):
    text = b"BM" + data
    if sniff(text) is not None:
        assert text[6:10] == bytes(4)
        assert text[14] in (12, 16, 40, 52, 56, 64, 108, 124)


@unhurried
@given(st.binary(min_size=8, max_size=8), st.binary(max_size=64))
def test_only_an_avif_brand_makes_an_avif(brands, rest):
    box = (16 + len(rest)).to_bytes(4, "big") + b"ftyp" + brands + rest
    if sniff(box) is not None:
        assert b"avif" in box or b"avis" in box


@unhurried
@given(st.text(max_size=40))
def test_only_the_exact_form_is_a_name(text):
    assert is_name(text) == bool(
        re.search(r"\A[0-9a-f]{32}\.[a-z]{3,4}\Z", text) and text[33:] in EXTENSIONS
    )


@unhurried
@given(
    st.text(alphabet="0123456789abcdef", min_size=32, max_size=32),
    st.sampled_from(EXTENSIONS),
    st.sampled_from(["", "\n", "\0", "/", ".", " ", "\u2028", ".part"]),
    st.sampled_from(["", "\n", "../", ".", "/", "\0", "%2e"]),
)
def test_nothing_may_stand_around_a_name(stem, extension, after, before):
    name = f"{stem}.{extension}"
    assert is_name(name)
    assert is_name(before + name + after) == (not before and not after)
    assert not is_name(name.replace(".", ""))
    assert not is_name(f"{stem[1:]}.{extension}")
    assert not is_name(f"٣{stem[1:]}.{extension}")


@unhurried
@given(st.text(alphabet=string.ascii_lowercase, min_size=1, max_size=8))
def test_only_images_extensions_make_a_name(extension):
    assert is_name(f"{'a' * 32}.{extension}") == (extension in EXTENSIONS)


def test_new_names_are_names_and_never_repeat():
    names = {new_name("png") for _ in range(1000)}
    assert len(names) == 1000
    assert all(map(is_name, names))
