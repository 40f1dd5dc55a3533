"""What is an image, by its first bytes, and what is a stored file's name."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable

HEAD_BYTES = 512
"""As many leading bytes as ``sniff`` ever looks at."""

# The second spellings are what other tools write into the same folder.
EXTENSIONS = ("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "avif")

_NAME = re.compile(rf"[0-9a-f]{{32}}\.(?:{'|'.join(EXTENSIONS)})")
_ID = re.compile("[0-9a-f]{32}")
_BMP_HEADER_SIZES = (12, 16, 40, 52, 56, 64, 108, 124)
_TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def new_name(extension: str) -> str:
    """Return a name that nobody can guess, with this extension."""
    # 122 random bits: who knows the name may have the picture.
    return f"{uuid.uuid4().hex}.{extension}"


def is_name(text: str) -> bool:
    """Tell whether this can name a stored file: nothing else may reach a disk."""
    return _NAME.fullmatch(text) is not None


def recipe_name(text: str) -> str | None:
    """The file beside a picture that says how it was made, for the picture's name with
    or without its ending; None for anything else."""
    found = _ID.fullmatch(text.partition(".")[0])
    return f"{found[0]}.json" if found and (text == found[0] or is_name(text)) else None


def is_recipe(text: str) -> bool:
    """Tell whether this names a recipe's file."""
    return text.endswith(".json") and recipe_name(text.removesuffix(".json")) == text


def is_ours(text: str) -> bool:
    """Tell whether this names a picture or a recipe."""
    return is_name(text) or is_recipe(text)


def sniff(head: bytes) -> str | None:
    """Return the extension for the image that starts with these bytes, or None."""
    for extension, matches in _SIGNATURES.items():
        if matches(head):
            return extension
    return None


def media_type(extension: str) -> str:
    """Return the media type for an extension that ``sniff`` returned."""
    return "image/jpeg" if extension == "jpg" else f"image/{extension}"


def _is_bmp(head: bytes) -> bool:
    # "BM" alone would let any text that starts so pass: the reserved bytes are
    # zero and the second header has one of a few lengths in every real file.
    header_size = int.from_bytes(head[14:18], "little")
    return (
        head[:2] == b"BM"
        and head[6:10] == bytes(4)
        and header_size in _BMP_HEADER_SIZES
    )


def _is_avif(head: bytes) -> bool:
    box_size = int.from_bytes(head[:4], "big")
    if head[4:8] != b"ftyp" or box_size < 16:
        return False
    brands = head[8:12] + head[16 : min(box_size, HEAD_BYTES)]
    return any(
        brands[at : at + 4] in (b"avif", b"avis") for at in range(0, len(brands), 4)
    )


_SIGNATURES: dict[str, Callable[[bytes], bool]] = {
    "png": lambda head: head.startswith(b"\x89PNG\r\n\x1a\n"),
    "jpg": lambda head: head.startswith(b"\xff\xd8\xff"),
    "webp": lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP",
    "gif": lambda head: head[:6] in (b"GIF87a", b"GIF89a"),
    "bmp": _is_bmp,
    "tiff": lambda head: head[:4] in _TIFF_MARKS,
    "avif": _is_avif,
}
