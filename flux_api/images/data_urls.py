"""Text that carries a picture: data URLs and bare Base64 become bytes."""

from __future__ import annotations

import binascii
import re

from flux_api.errors import InvalidImage

# A file's name may hold commas, and Base64 is not always said last.
_HEADER = re.compile(r'(?is)data:.*?;\s{0,9}base64\s{0,9}(?:;(?:"[^"]*"|[^",])*)?,')
# It is looked for in so many characters, not in a whole picture.
_HEADER_LIMIT = 4096
# What curl sends where the @ in front of a file's name is forgotten.
_FILE_NAME = re.compile(r"[^\n]{1,255}\.(?i:png|jpe?g|webp|gif|bmp|tiff?|avif|heic)")
# Base64 in the wild: wrapped lines, the URL-safe alphabet, no padding, "%3D" for "=".
_SPELLINGS = str.maketrans("-_", "+/", " \t\r\n")
_ESCAPES = {"%2B": "+", "%2F": "/", "%3D": "=", "%0A": "", "%0D": ""}


def decode_data_url(text: str, *, param: str) -> bytes:
    """The bytes of a ``data:image/...;base64,`` URL."""
    if (header := _HEADER.match(text, 0, _HEADER_LIMIT)) is None:
        raise InvalidImage(
            f"{param} is not a data URL of the form data:image/png;base64,...",
            param=param,
        )
    return decode_base64(text[header.end() :], param=param)


def decode_base64(text: str, *, param: str) -> bytes:
    """The bytes of bare Base64, standard or URL-safe, padded or not."""
    if _FILE_NAME.fullmatch(text):
        why = f"send the file itself (with curl -F {param}=@FILE) or its Base64"
        raise InvalidImage(
            f"{param} is a file's name, not a picture: {why}", param=param
        )
    if not text.isascii():
        text = ""  # It is none, and copies of it take four times the memory.
    if "%" in text:
        # Each in one go over the text: a callback for each of millions takes seconds.
        for escape, plain in _ESCAPES.items():
            text = text.replace(escape, plain).replace(escape.lower(), plain)
    text = text.strip()
    if " " in text and "\n" not in text and not _is_wrapped(text):
        # In a form that nobody escaped, each "+" has become a space.
        text = text.replace(" ", "+")
    text = text.translate(_SPELLINGS).rstrip("=")
    try:
        data = binascii.a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)
    except ValueError:
        data = b""
    if not data:
        raise InvalidImage(f"{param} is not valid Base64 image data", param=param)
    return data


def _is_wrapped(text: str) -> bool:
    """Whether the spaces stand between lines, all of the same length but the last."""
    width = text.find(" ")
    gaps = text[width :: width + 1]
    return not gaps.strip(" ") and text.count(" ") == len(gaps)
