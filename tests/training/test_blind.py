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
    truth = [entry["concept"] for entry in key]
    assert set(truth) <= set(names)
    assert PICTURES < len(names) <= PICTURES + DISTRACTORS
    last = "Japanese" if not artist.prompts[-1].isascii() else "English"
    tmp_path.joinpath("answers.txt").write_text("\n".join([*truth[:-1], "nothing"]))
    score_answers(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    half = PICTURES // 2
    scores = {"English": half, "Japanese": half} | {last: half - 1}
    assert lines[0] == f"{PICTURES - 1} of {PICTURES} right"
    assert lines[1:3] == [f"{name}: {n} of {half}" for name, n in scores.items()]
    assert artist.prompts[-1] in lines[3]
