"""Writes each prompt in one of the languages that the model is to understand."""

from __future__ import annotations

import random
from typing import Any

from training.japanese import COLOURS, JapaneseWriter
from training.texts import Writer, fixed_prompts

JAPANESE_CAPTIONS = 0.45
JAPANESE_EDITS = 0.5


class Writers:
    """An English and a Japanese writer that take turns at random."""

    def __init__(self, seed: random.Random) -> None:
        """Take the source of randomness, which is part of the training state."""
        self.random = seed
        self.english = Writer(seed)
        self.japanese = JapaneseWriter(seed, fixed_prompts("japanese"))

    def caption(self, concept: dict[str, Any], style: str, op: str = "none") -> str:
        """Return words for a picture of a concept after an operation."""
        name = concept["name"]
        if self.random.random() < JAPANESE_CAPTIONS and self.japanese.knows(name):
            return self.japanese.caption(name, style, op)
        return self.english.caption(concept, style, op)

    def instruction(self, kind: str, **words: str) -> str:
        """Return one wording of an edit; words are c(olour), s(tyle), n(ame)."""
        known = "n" not in words or self.japanese.knows(words["n"])
        if known and self.random.random() < JAPANESE_EDITS:
            return self.japanese.instruction(kind, **words)
        return self.english.instruction(kind, **words)


def names_colour(prompt: str, colour: str) -> bool:
    """Return whether a prompt in either language has the colour's word."""
    return colour in prompt or COLOURS[colour]["noun"] in prompt
