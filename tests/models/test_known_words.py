"""What a small model is said to know, by a list of its own words."""

from __future__ import annotations

import json
import unicodedata

import pytest

from flux_api.models.known_words import FILE, knows, knows_order, two_things
from flux_api.models.sources import Folder, Repository

CONTENT = {
    "en": {
        "things": ["cat", "red heart", "heart", "hat"],
        "words": ["cat", "heart"],
        "changes": ["blue", "add", "monochrome"],
        "examples": [],
    },
    "ja": {
        "things": ["猫", "帽子", "ガム"],
        "words": [],
        "changes": ["白黒"],
        "examples": [],
    },
}
OTHERS = Repository("maker/large")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A model that knows these."""
    folder = tmp_path_factory.mktemp("small")
    (folder / FILE).write_text(json.dumps(CONTENT))
    return Folder(folder)


@pytest.mark.parametrize("text", [None, "{"])
def test_a_model_without_a_list_is_told_nothing_of(tmp_path, text):
    if text is not None:
        (tmp_path / FILE).write_text(text)
    for source in (Folder(tmp_path), OTHERS):
        assert knows(source, "xyzzy") and knows_order(source, "xyzzy")
        assert not two_things(source, "a cat and a heart")


@pytest.mark.parametrize(
    ("prompt", "known"),
    [
        ("", True),
        ("  ", True),
        ("a CAT", True),
        ("monochrome", True),
        ("かわいい猫の絵", True),
        ("concatenate", False),
        ("a dog", False),
        ("犬", False),
        # As a Mac's files are named, and as no tokenizer takes it for the same.
        (unicodedata.normalize("NFD", "ガム"), True),
        ("ｃａｔ", False),
    ],
)
def test_a_word_is_known_by_itself_or_within_text_without_spaces(small, prompt, known):
    assert knows(small, prompt) is known


@pytest.mark.parametrize(
    ("order", "known"),
    [
        ("", True),
        ("make it BLUE", True),
        ("白黒にして", True),
        ("keep the background", True),
        ("turn it into a heart", True),
        # It says how, and not what.
        ("add it", False),
        # A thing that comes to the picture is not what it becomes.
        ("add a hat", False),
        ("帽子をかぶせて", False),
        ("make him smile", False),
    ],
)
def test_an_order_is_a_change_or_a_thing_to_become(small, order, known):
    assert knows_order(small, order) is known


@pytest.mark.parametrize(
    ("prompt", "two"),
    [
        ("a cat and a heart", True),
        ("a Cat, a Heart", True),
        ("cats with hats", True),
        ("猫と帽子", True),
        ("帽子をかぶった猫", True),
        # One thing, by two of its names, twice, or beside another's.
        ("a red heart", False),
        ("a cat and a cat", False),
        ("cat hat", False),
        ("猫の帽子", False),
        ("a cat", False),
        # What is between Japanese words does not count for English ones.
        ("cat と heart", False),
        ("a cat" + " " * 2000 + "and a heart", False),
    ],
)
def test_two_things_are_two_names_with_a_word_between_that_joins(small, prompt, two):
    assert two_things(small, prompt) is two
