"""What is written to a terminal, whatever its size and whatever comes."""

from __future__ import annotations

import io
import re

import pytest
from PIL import Image

from flux_api.commands.screen import Screen
from tests.support.pictures import make_png, save

TRUECOLOR = {"COLORTERM": "truecolor"}


class Tty(io.StringIO):
    """A stream to a terminal."""

    def isatty(self):
        return True

    def read_new(self):
        """What was written since the last call."""
        text = self.getvalue()
        self.seek(0)
        self.truncate()
        return text


@pytest.fixture
def size(monkeypatch):
    """Set the columns and lines of the terminal."""

    def size(columns, lines):
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("LINES", str(lines))

    size(80, 40)
    return size


def test_the_status_is_one_line_of_what_can_be_printed(size):
    stream = Tty()
    screen = Screen(stream, {}, previews=True)
    size(10, 40)
    screen.show("0123456789")
    # At the last column a terminal would begin another line.
    assert stream.read_new() == "\r\x1b[K012345678"
    screen.show("猫猫猫猫猫")
    assert stream.read_new() == "\r\x1b[K猫猫猫猫"
    screen.show("a\x1b[2Jb\n")
    assert stream.read_new() == "\r\x1b[Ka [2Jb "
    screen.show("a\x1b[2Jb\n")
    assert stream.read_new() == ""
    # It goes on below a line that stays.
    screen.say("done\x07")
    assert stream.read_new() == "\r\x1b[Kdone \n\r\x1b[Ka [2Jb "
    screen.clear()
    assert stream.read_new() == "\r\x1b[K"


@pytest.mark.parametrize(
    ("picture", "columns", "rows"),
    [
        ((512, 512), 40, 20),
        ((512, 256), 40, 10),
        ((256, 512), 20, 20),
        # Enlarged, too, and never less than a letter.
        ((8, 8), 40, 20),
        ((2000, 10), 40, 1),
        ((10, 2000), 1, 20),
    ],
)
def test_a_picture_keeps_its_shape(size, picture, columns, rows):
    stream = Tty()
    file = save(Image.new("RGB", picture), "PNG")
    Screen(stream, TRUECOLOR, previews=True).picture(file)
    lines = stream.getvalue().removesuffix("\n").split("\n")
    assert [line.count("\u2580") for line in lines] == [columns] * rows
    stream = Tty()
    kitty = Screen(stream, {"KITTY_WINDOW_ID": "1"}, previews=True)
    kitty.picture(file)
    assert f"c={columns},r={rows}," in stream.getvalue()


def test_each_letter_has_the_colours_of_two_pixels(size):
    # As many pixels as there are halves of letters.
    image = Image.new("RGB", (40, 40))
    for x in range(40):
        for y in range(40):
            image.putpixel((x, y), (x, y, 0))
    stream = Tty()
    Screen(stream, TRUECOLOR, previews=True).picture(save(image, "PNG"))
    letter = r"\x1b\[38;2;(\d+);(\d+);0m\x1b\[48;2;(\d+);(\d+);0m\u2580"
    for row, line in enumerate(stream.getvalue().removesuffix("\n").split("\n")):
        drawn = [tuple(map(int, found)) for found in re.findall(letter, line)]
        assert drawn == [(x, 2 * row, x, 2 * row + 1) for x in range(40)]


def test_a_large_picture_comes_in_pieces_and_the_last_is_marked(size):
    image = Image.effect_noise((400, 400), 90).convert("RGB")
    stream = Tty()
    kitty = Screen(stream, {"KITTY_WINDOW_ID": "1"}, previews=True)
    kitty.picture(save(image, "PNG"))
    text = stream.getvalue()
    keys = [keys for keys, _ in re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", text)]
    assert len(keys) > 2
    assert keys[0].startswith("a=T,f=100,") and keys[0].endswith(",m=1")
    assert keys[1:] == ["m=1"] * (len(keys) - 2) + ["m=0"]
    # Room for it, up to its first row, and down behind it.
    assert text.startswith("\r\x1b[J" + "\n" * 20 + "\x1b[20A\x1b_G")
    assert text.endswith("\x1b\\\x1b[20B")


def test_the_next_is_drawn_over_it_until_a_line_is_said(size):
    stream = Tty()
    screen = Screen(stream, TRUECOLOR, previews=True)
    screen.show("[##--]")
    ups = []
    for _ in range(2):
        stream.read_new()
        screen.picture(make_png((64, 64)))
        text = stream.read_new()
        ups += re.findall(r"\x1b\[(\d+)A", text)
        # The status stands below it again.
        assert text.endswith("\r\x1b[K[##--]")
    assert ups == ["20"]
    screen.say("heart.png")
    stream.read_new()
    screen.picture(make_png((64, 64)))
    assert not re.findall(r"\x1b\[\d+A", stream.read_new())


@pytest.mark.parametrize(("lines", "drawn"), [(21, False), (22, True)])
def test_where_it_is_higher_than_the_terminal_there_is_none(size, lines, drawn):
    size(80, lines)
    stream = Tty()
    Screen(stream, TRUECOLOR, previews=True).picture(make_png((64, 64)))
    assert ("\u2580" in stream.getvalue()) is drawn


def test_what_is_no_picture_is_passed_over(size):
    stream = Tty()
    Screen(stream, TRUECOLOR, previews=True).picture(make_png()[:50])
    Screen(stream, TRUECOLOR, previews=True).picture(b"")
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("environ", "previews", "shows"),
    [
        (TRUECOLOR, True, True),
        ({"COLORTERM": "24bit"}, True, True),
        ({"COLORTERM": "yes"}, True, False),
        ({"TERM_PROGRAM": "WezTerm"}, True, True),
        ({"TERM_PROGRAM": "WezTerm", "TMUX": "1"}, True, False),
        (TRUECOLOR | {"TMUX": "1"}, True, True),
        (TRUECOLOR | {"NO_COLOR": ""}, True, False),
        (TRUECOLOR, False, False),
        ({}, True, False),
    ],
)
def test_previews_are_asked_for_where_they_can_be_seen(environ, previews, shows):
    assert Screen(Tty(), environ, previews=previews).shows_pictures is shows
    assert not Screen(io.StringIO(), environ, previews=previews).shows_pictures


def test_a_pipe_gets_the_lines_that_stay_alone():
    stream = io.StringIO()
    screen = Screen(stream, TRUECOLOR, previews=True)
    screen.show("[##--]")
    screen.picture(make_png())
    screen.say("heart.png")
    screen.clear()
    assert stream.getvalue() == "heart.png\n"
