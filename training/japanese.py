"""Captions and edit orders in Japanese."""

from __future__ import annotations

import json
import random
import re
import unicodedata
from pathlib import Path

from training.japanese_names import NAMES as NAMES_FILE
from training.texts import STYLED_SHARE

_WORDINGS = json.loads(
    Path(__file__).with_name("words").joinpath("japanese_wordings.json").read_text()
)
COLOURS: dict[str, dict[str, str]] = _WORDINGS["colours"]
NAMES: dict[str, list[str]] = json.loads(NAMES_FILE.read_text())
KANA = [chr(code) for code in (*range(0x3042, 0x3094), *range(0x30A2, 0x30F4))]
KANJI = (0x4E00, 0x9FA0)


def tidy(text: str) -> str:
    """Return composed lower-case text with single spaces, as the tokenizer makes it."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFC", text).lower()).strip()


class JapaneseWriter:
    """Writes Japanese words for pictures, never those that the evaluation uses."""

    def __init__(self, seed: random.Random, forbidden: set[str]) -> None:
        """Take the training's source of randomness and the prompts to leave out."""
        self.random, self.forbidden = seed, forbidden

    def knows(self, name: str) -> bool:
        """Return whether the concept has a Japanese name."""
        return bool(NAMES.get(name))

    def caption(self, name: str, style: str, op: str = "none") -> str:
        """Return words for a picture of a concept after an operation."""
        while (text := self._caption(name, style, op)) in self.forbidden:
            pass
        return text

    def instruction(self, kind: str, **words: str) -> str:
        """Return one wording of an edit; words are c(olour), s(tyle), n(ame)."""
        while (text := self._instruction(kind, words)) in self.forbidden:
            pass
        return text

    def name(self, concept: str) -> str:
        """Return one of a concept's names, the usual one more often."""
        names = NAMES[concept]
        return self.random.choice((names[0], *names))

    def _caption(self, name: str, style: str, op: str) -> str:
        pick, chance = self.random.choice, self.random.random
        kind, _, colour = op.partition("_")
        what, shades = self.name(name), COLOURS.get(colour, {})
        if kind == "paint":
            what = pick(_WORDINGS["painted"]).format(what=_uncoloured(what), **shades)
        words = _WORDINGS["styles"].get(style) if chance() < STYLED_SHARE else None
        place = pick(("styled_first", "styled_orders", "styled")) if words else ""
        if place == "styled_first":
            what = self._styled(place, what, words)
        if place != "styled_orders" and chance() < 0.65:
            what = pick(_WORDINGS["scenes"]).format(what)
        if chance() < 0.3:
            what = self._padded(what)
        if kind in _WORDINGS["ops"]:
            what = pick(_WORDINGS["ops"][kind]).format(what, **shades)
        if place in ("styled_orders", "styled"):
            what = self._styled(place, what, words)
        return tidy(what)

    def _styled(self, place: str, what: str, words: list[str]) -> str:
        """Return what is shown with one of a style's words before or behind it."""
        pick = self.random.choice
        return str(pick(_WORDINGS[place]).format(what=what, style=pick(words)))

    def _padded(self, what: str) -> str:
        """Return a caption with words that say nothing, known or never met.

        Most Japanese characters are not in the vocabulary and reach the model as
        bytes: only by meeting them at random does it learn to look past them.
        """
        pick, share = self.random.choice, self.random.random()
        if share < 0.3:
            return pick(_WORDINGS["before"]) + what
        if share < 0.55:
            return what + pick(_WORDINGS["after"])
        noise = self._noise()
        if share < 0.9:
            return noise + pick(("", "の", "の", "な")) + what
        return what + pick(("の", "、", "を")) + noise

    def _noise(self) -> str:
        """Return a few kana, or one or two kanji, that mean nothing."""
        if self.random.random() < 0.5:
            return "".join(self.random.choices(KANA, k=self.random.randint(2, 4)))
        count = self.random.randint(1, 2)
        return "".join(chr(self.random.randrange(*KANJI)) for _ in range(count))

    def _instruction(self, kind: str, words: dict[str, str]) -> str:
        pick, chance = self.random.choice, self.random.random
        filled = dict(COLOURS.get(words.get("c", ""), {}))
        filled["t"] = pick(_WORDINGS["things"])
        if "s" in words:
            filled["s"] = pick(_WORDINGS["styles"].get(words["s"], [words["s"]]))
        if "n" in words:
            filled["n"] = self.name(words["n"])
        if chance() < 0.15:
            return tidy(pick(_WORDINGS["short"][kind]).format(**filled))
        order = pick(_WORDINGS["orders"][kind]).format(**filled)
        if chance() < 0.25:
            order = self._emphasised(order)
        if chance() < 0.25:
            order = (
                pick(_WORDINGS["openings"]) if chance() < 0.6 else self._noise()
            ) + order
        return tidy(
            order + (pick(_WORDINGS["endings"]) if chance() < 0.9 else self._noise())
        )

    def _emphasised(self, order: str) -> str:
        """Return an order with a word behind one of its particles.

        How much is meant, or any sound: what is asked for stands around it.
        """
        word = self._noise()
        if self.random.random() < 0.6:
            word = self.random.choice(_WORDINGS["amounts"])
        place = self.random.choice(("を", "に", "は"))
        return order.replace(place, place + word, 1)


def _uncoloured(name: str) -> str:
    """Return "ハート" for "赤いハート", which then can be any other colour."""
    for shades in COLOURS.values():
        for word in (shades["adjective"], shades["noun"] + "の"):
            if name.startswith(word) and len(name) > len(word):
                return name.removeprefix(word)
    return name
