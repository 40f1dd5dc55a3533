"""What a file that should hold weights is instead, by its first bytes."""

from __future__ import annotations

from pathlib import Path

# The first that fits counts; what a person does about it belongs to it.
_BEGINNINGS = (
    (
        b"version https://git-lfs",
        "a Git LFS pointer: fetch the file with 'git lfs pull'",
    ),
    (b"<", "a web page (HTML): download the file itself"),
    (b"PK\x03\x04", "a zip, as torch.save writes pickles: convert it to safetensors"),
    (b"\x80", "a pickle: convert it to safetensors"),
)
_LOOKED_AT = 256


def describe_other(path: Path) -> str | None:
    """What the file is and what to do, to follow "is not a file of weights but"; None
    where its first bytes do not tell."""
    try:
        with path.open("rb") as file:
            head = file.read(_LOOKED_AT)
    except OSError:
        return None
    if not head:
        return "an empty one: download it again"
    # The header's length stands in front of a safetensors file's JSON.
    if head[8:9] == b"{" and head[7] == 0:
        return None
    if head.startswith(b"GGUF"):
        return None if path.suffix.lower() == ".gguf" else "a GGUF: name it .gguf"
    # After the mark of UTF-8 and blanks.
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    for beginning, what in _BEGINNINGS:
        if start.startswith(beginning):
            return what
    return "a text: download the file itself" if _is_text(head) else None


def _is_text(head: bytes) -> bool:
    """Whether it is UTF-8, perhaps cut short, without control characters."""
    text = head.decode("utf-8", "ignore")
    whole = len(text.encode()) > len(head) - 4
    return whole and all(c.isprintable() or c in "\t\r\n" for c in text)
