"""What stands in somebody's file beside its picture, as the decoder's children tell."""

from __future__ import annotations

import json

from flux_api.errors import InvalidImage
from flux_api.images.decode_child import CREDENTIALS, TEXTS
from flux_api.images.decoder import Decoder

_MOST_TEXT = 1 << 20


def texts_of(decoder: Decoder, data: bytes, *, param: str) -> dict[str, str]:
    """The texts of a PNG file by their keywords, nothing for pictures of other kinds.
    InvalidImage where it is no picture, or has more than a mebibyte of them."""
    try:
        found = json.loads(decoder.tell(data, TEXTS, _MOST_TEXT))
    except InvalidImage as error:
        why = error.message or "is damaged"
        raise InvalidImage(f"{param} {why}", param=param) from None
    except (ValueError, RecursionError):
        found = None
    # A file may have made a child say whatever it likes.
    if isinstance(found, dict) and all(isinstance(t, str) for t in found.values()):
        return found
    raise InvalidImage(f"{param} is damaged", param=param)


def credentials_of(
    decoder: Decoder, data: bytes, described: dict[str, str], most: int
) -> tuple[bytes, str]:
    """The content credentials in a file, archived as an ingredient that is so
    ``described``, at most ``most`` bytes, b"" where there are none; and where they
    cannot be kept, a clause that says why."""
    # Their outermost box says it in every format.
    if b"c2pa" not in data:
        return b"", ""
    asked = json.dumps(described).encode() + b"\n" + data
    try:
        return decoder.tell(asked, CREDENTIALS, most), ""
    except InvalidImage as error:
        return b"", error.message or "are damaged"
