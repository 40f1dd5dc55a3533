"""Words that training never showed say nothing; the others stay what they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training.model import load_pipeline
from training.unseen import ENGLISH, JAPANESE, count_tokens, quiet_rare

pytestmark = [
    # Compiled code in torch's own libraries, seen on loading diffusers.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
TINY = Path(__file__).resolve().parents[2] / "models" / "tiny"


def test_rare_words_say_nothing_and_the_others_stay():
    pipeline = load_pipeline(TINY)
    tokenizer = pipeline.tokenizer
    shown = ["a red heart", "\u732b", *ENGLISH, JAPANESE]
    counts = count_tokens(pipeline, shown * 4)
    rows = pipeline.text_encoder_2.get_input_embeddings().weight
    ids = tokenizer(" ".join(shown)).input_ids
    kept = rows[ids].clone()
    quiet = rows[[tokenizer(word).input_ids[1] for word in ENGLISH]].mean(0)
    with torch.no_grad():
        rows[tokenizer("pizza").input_ids[1]] += 1
    assert quiet_rare(pipeline, counts) > 1000
    assert torch.equal(rows[ids], kept)
    assert torch.equal(rows[tokenizer("pizza").input_ids[1]], quiet)
    unseen = rows[tokenizer("\u9d5c").input_ids[1]]
    assert torch.equal(unseen, rows[tokenizer(JAPANESE).input_ids[1]])
