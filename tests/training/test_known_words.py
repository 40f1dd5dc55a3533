"""The file of known words says what was trained, in both languages."""

from __future__ import annotations

import json

import pytest

from training.data import read_vocabulary
from training.known_words import FILE, known_words, write_known_words

pytestmark = [
    # Compiled code in torch's own libraries, seen on loading diffusers.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
]
WORDS = {
    "1f431": {"name": "cat face", "tags": ["pussy cat", "kitten"]},
    "1f9ff": {"name": "nazar amulet", "tags": ["evil-eye"]},
}


def test_things_words_and_examples_are_listed(tmp_path):
    write_known_words(tmp_path, known_words(WORDS, ["cat face"], ["en", "ja"]))
    content = json.loads(tmp_path.joinpath(FILE).read_text())
    english, japanese = content["en"], content["ja"]
    assert english["things"] == ["cat face"]
    assert {*english["words"]} == {"cat", "face", "pussy", "kitten"}
    assert {"blue", "monochrome", "rotate"} <= {*english["changes"]}
    assert not {"draw", "the", "please", "image"} & {*english["changes"]}
    assert {"猫", "ねこ"} <= {*japanese["things"]}
    assert {"白黒", "青い"} <= {*japanese["changes"]}
    assert "を描いて" not in japanese["changes"]
    assert english["examples"] and japanese["examples"]


def test_a_language_can_be_left_out():
    assert list(known_words(WORDS, ["cat face"], ["en"])) == ["en"]


def test_the_whole_vocabulary_has_japanese_words():
    content = known_words({}, read_vocabulary(), ["ja"])
    assert len(content["ja"]["things"]) > 1000
