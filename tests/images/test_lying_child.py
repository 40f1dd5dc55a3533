"""What a decoder's child answers is not believed: a file may have taken it over."""

from __future__ import annotations

import pytest

from flux_api.errors import InvalidImage
from flux_api.images import decode_child
from flux_api.images.decode_child import ALPHA, GREY, REFUSED, RGB, TOLD
from flux_api.images.decoder import Decoder

LIAR = """
import struct, sys
header = struct.Struct("<BLL")
say = lambda data: (sys.stdout.buffer.write(data), sys.stdout.flush())
say(header.pack(0, len({missing!r}), 0) + {missing!r})
while head := sys.stdin.buffer.read(header.size):
    sys.stdin.buffer.read(header.unpack(head)[2])
    own = struct.pack("<LL", {own}, {own}) if {own} else b""
    say(header.pack(*{numbers}) + own + {fill!r} * {length})
"""


@pytest.fixture
def lie(tmp_path, monkeypatch):
    """Gives a decoder whose child answers with this header, and so many bytes."""
    place = "flux_api.images.decoder.__file__"
    monkeypatch.setattr(place, str(tmp_path / "decoder.py"))

    def make(*numbers, length=1 << 20, own=8, missing=b"", fill=b"\0"):
        parts = {"numbers": numbers, "length": length, "own": own}
        parts |= {"missing": missing, "fill": fill}
        program = LIAR.format(**parts)
        (tmp_path / decode_child.__file__.rpartition("/")[2]).write_text(program)
        return Decoder()

    return make


def test_what_the_kernel_does_not_deny_it_is_said_once(lie, caplog, monkeypatch):
    monkeypatch.setattr("flux_api.images.decoder._DecodeChild._told", False)
    caplog.set_level("INFO", "flux_api.images.decoder")
    for _ in range(2):
        lie(RGB, 8, 8, missing=b"network files").image(b"x")
    [said] = [r.getMessage() for r in caplog.records]
    assert said.endswith("does not keep it from: network files")


def test_what_fits_is_taken(lie):
    assert lie(RGB, 8, 8).image(b"x").size == (8, 8)
    assert lie(ALPHA, 8, 8).mask(b"x", param="mask")[1]


IMPOSSIBLE = {
    "no such kind": (9, 8, 8),
    "too many pixels": (RGB, 65_535, 65_535),
    "one pixel too many": (RGB, 4_194_305, 1),
    "no pixels": (RGB, 0, 8),
    "grey": (GREY, 8, 8),
    "alpha": (ALPHA, 8, 8),
    "texts": (TOLD, 64, 0),
    "a long refusal": (REFUSED, 4_294_967_295, 0),
}


@pytest.mark.parametrize("numbers", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_a_picture_that_cannot_be_is_refused(lie, numbers):
    decoder = lie(*numbers)
    with pytest.raises(InvalidImage) as caught:
        decoder.image(b"x", param="image")
    assert caught.value.param == "image"
    assert len(caught.value.message) < 400


def test_a_refusal_is_a_clause_that_may_stand_in_a_header(lie):
    decoder = lie(REFUSED, 4_294_967_295, 0, own=0, fill=b"no!\r\n\0\xff")
    with pytest.raises(InvalidImage) as caught:
        decoder.image(b"x", param="image")
    assert caught.value.message.startswith("image no!no!no!")
    assert set(caught.value.message) == set("image no!")
    assert len(caught.value.message) < 310


@pytest.mark.parametrize("numbers", [(RGB, 8, 8), (TOLD, 64, 0)], ids=["rgb", "texts"])
def test_a_mask_in_colours_is_refused(lie, numbers):
    with pytest.raises(InvalidImage, match="mask cannot be decoded"):
        lie(*numbers).mask(b"x", param="mask")


@pytest.mark.parametrize("numbers", [(RGB, 8, 8), (TOLD, 65, 0)], ids=["rgb", "long"])
def test_what_is_told_is_text_within_its_bound(lie, numbers):
    with pytest.raises(InvalidImage):
        lie(*numbers).tell(b"x", decode_child.TEXTS, 64)
