"""The blind sheet asks in both languages and names every answer."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from training.blind import DISTRACTORS, PICTURES, make_sheet, score_answers

pytestmark = [
    # Compiled code in torch's own libraries, seen on loading diffusers.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
]


class Pretender:
    """Draws white squares and remembers what it was asked for."""

    def generate(self, prompts, seeds):
        self.prompts = list(prompts)
        return [Image.new("RGB", (64, 64), "white") for _ in seeds]


def test_a_sheet_mixes_both_languages(tmp_path, capsys):
    artist = Pretender()
    make_sheet(artist, tmp_path, 1)
    key = json.loads(tmp_path.joinpath("key.json").read_text())
    names = tmp_path.joinpath("names.txt").read_text().splitlines()
    assert len(artist.prompts) == len(key) == PICTURES
    assert sum(not prompt.isascii() for prompt in artist.prompts) == PICTURES // 2
    assert set(key) <= set(names)
    assert PICTURES < len(names) <= PICTURES + DISTRACTORS
    tmp_path.joinpath("answers.txt").write_text("\n".join([*key[:-1], "nothing"]))
    score_answers(tmp_path)
    assert capsys.readouterr().out.startswith(f"{PICTURES - 1} of {PICTURES} right")
