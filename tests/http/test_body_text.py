"""A body's text at its very bounds: fields, sizes, escapes, depth and count of JSON."""

from __future__ import annotations

import json

import pytest

from flux_api.errors import InvalidRequest, PayloadTooLarge
from flux_api.http.body_text import read_fields, read_json, read_text

MIB = 1 << 20
PIECE = 65_536


def nested(depth):
    """An object with ``depth`` objects in each other."""
    return b'{"a":' * (depth - 1) + b"{}" + b"}" * (depth - 1)


def test_a_form_has_as_many_fields_as_it_may():
    assert len(read_fields(b"&".join([b"a=1"] * 10), 10)) == 10
    with pytest.raises(InvalidRequest, match="more than 10 fields"):
        read_fields(b"&".join([b"a=1"] * 11), 10)


@pytest.mark.parametrize("before", [0, 2 * MIB], ids=["alone", "behind a picture"])
@pytest.mark.parametrize("name", ["prompt", "image"])
def test_text_is_bounded_and_pictures_are_not(name, before):
    # However large a picture in front of it is, its own name takes room.
    first = b"mask=" + b"x" * before + b"&" if before else b""
    room = MIB - len("mask") * bool(before)
    # The name and the "=" count as well.
    text = "x" * (room - 2 * len(name) - 1)
    assert read_fields(first + f"{name}={text}".encode(), 10)[-1] == (name, text)
    longer = first + f"{name}={text}{'x' * len(name)}xx".encode()
    if name == "image":
        assert len(read_fields(longer, 10)[-1][1]) > len(text)
    else:
        with pytest.raises(PayloadTooLarge, match="1 MiB"):
            read_fields(longer, 10)


def test_what_stands_between_two_signs_is_a_field_and_nothing_is_none():
    assert read_fields(b"&a=1&&b&c=&", 10) == [("a", "1"), ("b", ""), ("c", "")]


def test_a_long_text_is_in_ascii():
    letters = "é".encode()
    assert len(read_text(letters * 2 * MIB)) == 2 * MIB
    assert read_text(b"x" * (4 * MIB + 1))
    with pytest.raises(InvalidRequest, match="in ASCII"):
        read_text(letters * 2 * MIB + b"x")


def test_json_text_is_bounded_by_the_same():
    room = MIB - len("prompt")
    assert read_json(json.dumps({"prompt": "x" * room}).encode(), 10)
    assert read_json(json.dumps({"image": "x" * 2 * MIB}).encode(), 10)
    with pytest.raises(PayloadTooLarge):
        read_json(json.dumps({"prompt": "x" * (room + 1)}).encode(), 10)
    with pytest.raises(PayloadTooLarge):
        read_json(json.dumps({"a": "x" * room, "b": ["y" * 10]}).encode(), 10)


def test_escapes_at_the_ends_of_pieces_stay_whole():
    for before in range(4):
        text = "a" * before + "é" * PIECE + "%"
        escaped = "a" * before + "%C3%A9" * PIECE + "%25"
        assert read_fields(f"image={escaped}".encode(), 10) == [("image", text)]


def test_a_few_signs_of_per_cent_are_text():
    piece = (b"100 % " * PIECE)[:PIECE]
    assert read_fields(b"image=" + piece * 20, 10)
    with pytest.raises(InvalidRequest, match="not well escaped"):
        read_fields(b"image=" + piece * 21, 10)


def test_json_is_as_deep_as_it_may_be():
    assert read_json(nested(32), 10)
    for depth in (33, 100_000):
        with pytest.raises(InvalidRequest, match="too deeply"):
            read_json(nested(depth), 10)


def test_json_has_as_many_values_as_it_may():
    inside = {"a": [0] * 99_999}
    assert read_json(json.dumps(inside).encode(), 10) == inside
    with pytest.raises(InvalidRequest, match="too many values"):
        read_json(json.dumps({"a": [0] * 100_000}).encode(), 10)
