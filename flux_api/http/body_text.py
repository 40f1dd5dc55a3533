"""A body's text, form or JSON, within bounds: what is no picture is small, and whatever
comes is read once, in linear time."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any, NoReturn
from urllib.parse import unquote_to_bytes

from flux_api.errors import InvalidRequest, NotJson, PayloadTooLarge

_CHUNK = 65_536
_DEEPEST_JSON = 32
# Brackets and commas; a long text has some, small values by the million block everyone.
_LARGEST_JSON = 100_000
# A prompt has 32,000 characters at most: what is longer is a picture or a mistake.
_MOST_TEXT = 1 << 20
_LARGE = 4 * _MOST_TEXT
_MOST_ODD = 20  # pieces of text that have a "%" of their own
_one_large = threading.Lock()
_NUMBERS = "A picture is sent as a file or as Base64, not as a list of numbers."

PICTURE_FIELD = re.compile(
    r"(?:(?P<url>input_image_url)"
    r"|(?P<image>(?:(?:input|init|ref|reference|source)_)?image(?:_[0-9]{1,2})?"
    r"(?:_?url|_base64|_b64|_data)?|image_prompt|input_file|input_reference)s?"
    r"|(?P<mask>mask)(?:_image)?(?:_url|_base64|_b64)?)"
    r"(?:\[[^\]]{0,40}\])*",
    re.IGNORECASE,
)
"""What any client calls a picture; ``image``, ``url`` or ``mask`` is its kind."""


class TextRoom:
    """How much text may still come in fields that are no pictures: they are small, and
    everything that is read of them is copied many times."""

    def __init__(self) -> None:
        self._left = _MOST_TEXT

    def take(self, name: str, size: int) -> None:
        """Count ``size`` bytes or characters of field ``name``; PayloadTooLarge."""
        if PICTURE_FIELD.fullmatch(name[:80]):
            return
        self._left -= size
        if self._left < 0:
            raise PayloadTooLarge(
                "The text fields are larger than 1 MiB together; only a picture may be."
            )


def read_text(data: bytes | bytearray) -> str:
    """``data``, in UTF-8, as text; UnicodeDecodeError. InvalidRequest for a long one
    that is not in ASCII, as pictures in a text are: one odd letter would make four
    bytes of each."""
    if len(data) > _LARGE and not data.isascii():
        raise InvalidRequest(
            "A text of more than 4 MiB is a picture in Base64, or a URL, in ASCII."
        )
    return data.decode()


def read_fields(data: bytes, most: int) -> list[tuple[str, str]]:
    """The names and texts of an urlencoded form, at most ``most`` of them, in their
    order. InvalidRequest or PayloadTooLarge."""
    if data.count(b"&") >= most:
        raise InvalidRequest(f"The form has more than {most} fields. {_NUMBERS}")
    room, fields, start = TextRoom(), [], 0
    try:
        while start < len(data):
            end = data.find(b"&", start)
            end = len(data) if end < 0 else end
            equals = data.find(b"=", start, end)
            equals = end if equals < 0 else equals
            # A name that is too long to be one fails by its size.
            room.take("", equals - start)
            name = _unquote(data, start, equals)
            room.take(name, end - equals)
            if end > start:
                fields.append((name, _unquote(data, equals + 1, end)))
            start = end + 1
    except UnicodeDecodeError:
        raise InvalidRequest("The form's text is not UTF-8.") from None
    return fields


def _unquote(data: bytes, start: int, end: int) -> str:
    """The text from ``start`` to ``end`` without its escapes. In pieces: Python's own
    makes an object of each escape, which for a picture are many."""
    plain, odd = bytearray(), 0
    while start < end:
        stop = min(start + _CHUNK, end)
        # Not in the middle of an escape.
        cut = data.find(b"%", max(start, stop - 2), stop) if stop < end else -1
        stop = cut if cut > start else stop
        piece = data[start:stop].replace(b"+", b" ")
        # Decoded all at once, if they are all escapes; "100 %" is one that is none.
        escaped = piece.replace(b"\\", b"\\\\").replace(b"%", b"\\x")
        try:
            plain += escaped.decode("unicode_escape").encode("latin-1")
        except UnicodeDecodeError:
            if (odd := odd + 1) > _MOST_ODD:
                raise InvalidRequest("The form's text is not well escaped.") from None
            plain += unquote_to_bytes(piece)
        start = stop
    return read_text(plain)


def read_json(data: bytes, most: int) -> dict[str, Any]:
    """The JSON object in ``data``, of at most ``most`` fields. InvalidRequest or
    PayloadTooLarge."""
    if sum(map(data.count, (b"[", b"{", b","))) > _LARGEST_JSON:
        raise InvalidRequest(f"The JSON has too many values. {_NUMBERS}")
    if not data.strip():
        raise NotJson("The body is empty: send a JSON object, {...}.")
    try:
        # JSON may say anything: of what is large one is read at a time, for as the text
        # that it is first it may take four times its size.
        with _one_large if len(data) > _LARGE else nullcontext():
            value = json.loads(data, parse_constant=_refuse_constant)
        if _depth(value) > _DEEPEST_JSON:
            raise RecursionError
    except RecursionError:
        raise InvalidRequest("The JSON is nested too deeply.") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise NotJson(f"The body is not valid JSON: {place}.") from None
    except UnicodeDecodeError:
        raise NotJson("The body is not valid JSON: its text is not UTF-8.") from None
    except ValueError:
        raise NotJson("The body is not valid JSON.") from None
    if not isinstance(value, dict):
        raise InvalidRequest(
            "The body must be a JSON object, {...}, not a list or a single value."
        )
    if len(value) > most:
        raise InvalidRequest(f"The JSON has more than {most} fields. {_NUMBERS}")
    _count(value, "", TextRoom())
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _depth(value: object) -> int:
    deepest, level = 0, [value]
    while level and deepest <= _DEEPEST_JSON:
        deepest += 1
        level = [child for item in level for child in _children(item)]
    return deepest


def _children(value: object) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _count(value: object, name: str, room: TextRoom) -> None:
    """Take room for every string in ``value``, which is called ``name``, keys too;
    what is in a picture's field is free, however deep that is."""
    if PICTURE_FIELD.fullmatch(name[:80]):
        return
    if isinstance(value, str):
        room.take("", len(value))
    elif isinstance(value, dict):
        for key, child in value.items():
            room.take("", len(key))
            _count(child, key, room)
    elif isinstance(value, list):
        for child in value:
            _count(child, name, room)
