"""Tokenizers that threads share: right answers, kept within bounds."""

from __future__ import annotations

import gc
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import pytest
import torch

from flux_api.loading import prompt_reader
from flux_api.loading.prompt_reader import PromptReader
from tests.support.tiny_checkpoints import clip_tokenizer, qwen_tokenizer


class Pipeline:
    """One whose tokenizer is all that there is."""

    components: ClassVar = {}

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer


PADDED = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}


@pytest.fixture
def tokenizer():
    """One that remembers."""
    found = clip_tokenizer()
    PromptReader(Pipeline(found))
    return found


def test_an_answer_is_the_same_again(tokenizer):
    plain = clip_tokenizer()
    for _ in range(2):
        for length in (5, 20):
            found = tokenizer(["a cat"], max_length=length, **PADDED)
            expected = plain(["a cat"], max_length=length, **PADDED)
            assert found.keys() == expected.keys()
            for name, tensor in found.items():
                assert torch.equal(tensor, expected[name])
            # What a caller makes of its answer is its own affair.
            found["input_ids"] = None
    assert tokenizer.tokenize("a cat") == plain.tokenize("a cat")
    assert tokenizer.added_tokens_encoder == plain.added_tokens_encoder
    assert isinstance(tokenizer, type(plain))


def test_a_chat_is_templated_as_ever():
    plain, found = qwen_tokenizer(), qwen_tokenizer()
    PromptReader(Pipeline(found))
    chat = [[{"role": "user", "content": [{"type": "text", "text": "a cat"}]}]]
    options = {"tokenize": True, "return_dict": True, "max_length": 30, **PADDED}
    for _ in range(2):
        answer = found.apply_chat_template(chat, **options)
        expected = plain.apply_chat_template(chat, **options)
        assert torch.equal(answer["input_ids"], expected["input_ids"])


def test_threads_that_ask_for_other_lengths_get_their_own(tokenizer):
    """A tokenizer's length is set before it reads, for all that use it."""

    def length_of(number):
        length = 20 + number % 50
        found = tokenizer([f"a cat {number}"], max_length=length, **PADDED)
        return found["input_ids"].shape[1] == length

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(length_of, range(500)))


def test_long_prompts_take_no_more_than_they_may(tokenizer, monkeypatch):
    """Their tokens are small texts, each of which is larger than its letters."""
    monkeypatch.setattr(tokenizer._answers, "_most_bytes", 100_000)
    tokenizer.tokenize("a cat")
    tracemalloc.start()
    try:
        for number in range(50):
            tokenizer.tokenize(f"{number} cats " * 500)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 200_000
    finally:
        tracemalloc.stop()


def test_what_is_kept_is_bounded(tokenizer, monkeypatch):
    read, answers = [], tokenizer._answers
    monkeypatch.setattr(answers, "_most_bytes", 10_000)
    inner = type(tokenizer)._encode_plus
    monkeypatch.setattr(
        type(tokenizer),
        "_encode_plus",
        lambda *args, **kwargs: read.append(1) or inner(*args, **kwargs),
    )
    tokenizer("a cat", return_tensors="pt")
    tokenizer("a cat", return_tensors="pt")
    assert len(read) == 1
    for number in range(200):
        tokenizer(f"{number} cats", return_tensors="pt")
    tokenizer("a cat", return_tensors="pt")
    assert len(read) == 202
    assert prompt_reader.MOST_BYTES > 10_000
