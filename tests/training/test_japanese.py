"""Japanese words: tokens added without harm to English, and prompts made of them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from transformers import CLIPTokenizer

from training.data import COMMITTED, read_vocabulary
from training.japanese import NAMES, JapaneseWriter
from training.japanese_names import read_spellings, tidy_label
from training.japanese_tokens import cut, new_tokens
from training.model import new_tokenizer
from training.pictures import OPS
from training.texts import ORDERS, fixed_prompts, load_prompts
from training.widen import starting_rows, widen_rows, widen_tokenizer
from training.writers import names_colour

pytestmark = [
    # Compiled code in torch's own libraries, seen on loading diffusers.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
]
TINY = Path(__file__).parents[2] / "models" / "tiny"
LOOK = "見た目"  # ends in 目, an eye
ENGLISH = ("a red cat", "draw a dog", "a monochrome dog and it")


@pytest.fixture(scope="module")
def old():
    return new_tokenizer(iter(["a red cat and a dog", "draw it monochrome"] * 20))


@pytest.fixture(scope="module")
def new(old):
    return widen_tokenizer(old, list(new_tokens()))


def test_english_is_cut_as_before(old, new):
    for text in ENGLISH:
        assert old(text).input_ids == new(text).input_ids
    ids, wide = old.get_vocab(), new.get_vocab()
    assert all(wide[piece] == index for piece, index in ids.items())


@pytest.mark.parametrize("text", ["猫", "昔の鬱金香", "赤い車を描いて", "é", "🍕"])
def test_the_end_token_stays_at_the_end(new, text):
    start, *middle, end = new(text).input_ids
    special = new.all_special_ids
    assert [start, end] == [new.bos_token_id, new.eos_token_id]
    assert middle and not set(middle) & set(special)


def test_the_widened_tokenizer_loads_again(new, tmp_path):
    new.save_pretrained(tmp_path)
    again = CLIPTokenizer.from_pretrained(tmp_path)
    for text in (*ENGLISH, "青い車の絵を描いてください"):
        assert again(text).input_ids == new(text).input_ids


def test_a_widened_tokenizer_takes_further_words(old):
    words = list(new_tokens())
    first = widen_tokenizer(old, [word for word in words if word != LOOK])
    further = widen_tokenizer(first, words)
    ids, wide = first.get_vocab(), further.get_vocab()
    assert all(wide[piece] == index for piece, index in ids.items())
    assert set(wide) - set(ids) == {LOOK}
    assert LOOK in further.tokenize("3dの見た目の猫")


def test_the_committed_tokenizer_reads_no_word_within_another():
    tokenizer = CLIPTokenizer.from_pretrained(TINY / "tokenizer")
    tokens = tokenizer.tokenize("見た目がノトの赤リンゴ")
    assert tokens == [LOOK, "が", "ノト", "の", "赤リンゴ"]


def test_new_rows_start_from_english_ones(old, new):
    tokens = new_tokens()
    starts = starting_rows(old, new, tokens)
    weights = torch.eye(len(old), 64) + torch.randn(len(old), 64)
    wide = widen_rows(weights, len(new), starts)
    assert torch.equal(wide[: len(old)], weights)
    vocabulary = new.get_vocab()
    cat, dog = (wide[vocabulary[word]] for word in ("猫", "犬"))
    likeness = torch.cosine_similarity
    english = weights[old("cat").input_ids[1:-1]].mean(0)
    assert likeness(cat, english, 0) > 0.9 > likeness(dog, english, 0)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("青い車", ["青い", "車"]),
        ("赤いハート", ["赤い", "ハート"]),
        ("猫の顔", ["猫", "の顔"]),
        ("薄い青のハート", ["薄い青", "の", "ハート"]),
        ("庭付きの家", ["庭付きの家"]),
        ("赤", ["赤"]),
    ],
)
def test_names_are_cut_into_words(name, parts):
    assert cut(name) == parts


def test_every_concept_has_a_name():
    vocabulary = read_vocabulary()
    assert list(NAMES) == vocabulary
    assert len(vocabulary) == len(set(vocabulary)) > COMMITTED
    assert all(NAMES.values())
    assert set(read_spellings()) <= set(vocabulary)


def test_labels_become_what_people_type():
    assert tidy_label("旗: 日本") == "日本の旗"
    assert tidy_label("ロック・スター（歌手）") == "ロックスター"


def test_evaluation_prompts_are_not_trained_on():
    fixed = fixed_prompts("japanese")
    writer = JapaneseWriter(random.Random(1), fixed)
    for name in NAMES:
        for op in OPS:
            assert writer.caption(name, "noto", op) not in fixed
    for kind in ORDERS:
        for _ in range(50):
            text = writer.instruction(kind, c="red", s="3d", n="dog")
            assert text and text not in fixed


def test_evaluation_asks_for_known_concepts():
    vocabulary = set(read_vocabulary())
    prompts = load_prompts("japanese")
    entries = [*load_prompts("new_concepts")["generate"], *prompts["concepts"]]
    entries += [*prompts["colours"], *prompts["styles"], *prompts["more_styles"]]
    assert all(entry["concept"] in vocabulary for entry in entries)


def test_colours_are_found_in_both_languages():
    assert names_colour("a red car", "red")
    assert names_colour("赤い車", "red")
    assert not names_colour("青い車", "red")
