"""What a person sees meanwhile, on standard error: lines, one that is written over, and
pictures where the terminal can show them."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Callable, Mapping
from typing import TextIO
from unicodedata import east_asian_width

from PIL import Image

from flux_api.images.codec import encode_image

_COLUMNS, _ROWS = 40, 20
_KITTY_IMAGE = 7_001
# The protocol's own bound.
_KITTY_CHUNK = 4096
_KITTY_PIXELS = 512
_KITTY_PROGRAMS = ("ghostty", "WezTerm")


class Screen:
    """``stream`` as a person reads it. No terminal: only the lines that stay."""

    def __init__(
        self, stream: TextIO, environ: Mapping[str, str], *, previews: bool
    ) -> None:
        self._stream, self._moves = stream, stream.isatty()
        self._draw = _drawing(environ) if self._moves and previews else None
        self._rows = 0
        self._status = ""

    @property
    def shows_pictures(self) -> bool:
        """Whether previews are worth asking for."""
        return self._draw is not None

    def show(self, status: str) -> None:
        """Write ``status`` over the one before."""
        if not self._moves or status == self._status:
            return
        self._status = status
        width = shutil.get_terminal_size().columns - 1
        self._write(f"\r\x1b[K{_cropped(_printable(status), width)}")

    def say(self, line: str) -> None:
        """A line that stays; what is above it stays too."""
        status, self._status, self._rows = self._status, "", 0
        start = "\r\x1b[K" if self._moves else ""
        self._write(f"{start}{_printable(line)}\n")
        self.show(status)

    def picture(self, data: bytes) -> None:
        """The newest picture, in place of the one before."""
        if self._draw is None:
            return
        try:
            with Image.open(io.BytesIO(data)) as image:
                shown = image.convert("RGB")
        except (OSError, ValueError, Image.DecompressionBombError):
            return  # The file is there all the same.
        columns, rows = _box(shown.size)
        # Higher than the terminal, the next one could not be drawn over it.
        if shutil.get_terminal_size().lines <= rows + 1:
            return
        up = f"\x1b[{self._rows}A" if self._rows else ""
        text = self._draw(shown, columns, rows)
        status, self._status, self._rows = self._status, "", rows
        self._write(f"\r{up}\x1b[J{text}")
        self.show(status)

    def clear(self) -> None:
        """Take the status away."""
        if self._moves:
            self._status = ""
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _drawing(environ: Mapping[str, str]) -> Callable[..., str] | None:
    """How the terminal shows pictures, by what it says of itself; None if it cannot."""
    if "NO_COLOR" in environ:
        return None
    named = environ.get("TERM_PROGRAM") in _KITTY_PROGRAMS
    # tmux passes colours on, no pictures.
    if "TMUX" not in environ and (named or "KITTY_WINDOW_ID" in environ):
        return _kitty
    return _blocks if environ.get("COLORTERM") in ("truecolor", "24bit") else None


def _box(size: tuple[int, int]) -> tuple[int, int]:
    """Columns and rows for a picture of ``size``; a letter is twice as high as wide."""
    width, height = size
    scale = min(_COLUMNS / width, 2 * _ROWS / height)
    return max(1, round(width * scale)), max(1, round(height * scale / 2))


def _blocks(image: Image.Image, columns: int, rows: int) -> str:
    """Two pixels in each letter: the upper half in one colour, the lower in another."""
    small = image.resize((columns, 2 * rows)).tobytes()
    pixels = [tuple(small[i : i + 3]) for i in range(0, len(small), 3)]
    lines = []
    for row in range(rows):
        for column in range(columns):
            upper = pixels[2 * row * columns + column]
            lower = pixels[(2 * row + 1) * columns + column]
            lines.append("\x1b[38;2;{};{};{}m".format(*upper))
            lines.append("\x1b[48;2;{};{};{}m\u2580".format(*lower))
        lines.append("\x1b[0m\n")
    return "".join(lines)


def _kitty(image: Image.Image, columns: int, rows: int) -> str:
    """The terminal graphics protocol of kitty; the same number replaces the picture."""
    image.thumbnail((_KITTY_PIXELS, _KITTY_PIXELS))
    data = base64.b64encode(encode_image(image).data).decode("ascii")
    parts = [data[i : i + _KITTY_CHUNK] for i in range(0, len(data), _KITTY_CHUNK)]
    keys = f"a=T,f=100,q=2,C=1,i={_KITTY_IMAGE},c={columns},r={rows},"
    escapes = []
    for number, part in enumerate(parts, 1):
        more = int(number < len(parts))
        escapes.append(f"\x1b_G{keys}m={more};{part}\x1b\\")
        keys = ""
    # Room first: at the lower edge the terminal scrolls.
    room = "\n" * rows
    return f"{room}\x1b[{rows}A{''.join(escapes)}\x1b[{rows}B"


def _printable(text: str) -> str:
    """``text`` without what moves a cursor: some of it is a server's."""
    return "".join(c if c.isprintable() else " " for c in text)


def _cropped(text: str, width: int) -> str:
    """As much of ``text`` as fits in a line; East Asian letters take two columns."""
    while sum(2 if east_asian_width(c) in "WF" else 1 for c in text) > width:
        text = text[:-1]
    return text
