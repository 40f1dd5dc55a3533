"""The Japanese words that become tokens, and the English words that they start from."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

from training.japanese import COLOURS, KANA, NAMES

GLUE = Path(__file__).with_name("words") / "glue.txt"
SOLID = "一-龯々ァ-ヶー"
# A particle between two words in kanji or katakana; inside hiragana it may be a letter.
PARTICLE = re.compile(rf"(?<=[{SOLID}])([のがとにをで])(?=[{SOLID}])")
ADJECTIVES = [
    *(f"{forms['noun']}の" for forms in COLOURS.values()),
    *(forms["adjective"] for forms in COLOURS.values()),
    *("白い", "茶色い", "大きい"),
]
SILENT = {"with", "of", "the", "and", "a", "in", "on", "at", "from", "to", "face"}


def cut(name: str) -> list[str]:
    """Return the parts of a name, so that 青い車 is made of words known alone.

    Only a colour word at the start is cut off: adjectives inside belong to the name.
    """
    parts = []
    for word in ADJECTIVES:
        if name.startswith(word) and name != word:
            parts, name = [word], name.removeprefix(word)
            break
    if len(name) > 2 and name.endswith("の顔"):
        return [*parts, *PARTICLE.split(name.removesuffix("の顔")), "の顔"]
    return [*parts, *PARTICLE.split(name)]


def new_tokens() -> dict[str, list[str]]:
    """Return every new token with the English words whose embeddings it starts from.

    Words of the orders and captions first, then the parts of the names, where the
    name that is one part alone says best what the part means, then single kana.
    """
    found: dict[str, list[str]] = {}
    for line in GLUE.read_text().splitlines():
        token, _, english = line.partition("=")
        found[token] = english.split()
    pairs = [(cut(name), label) for label, names in NAMES.items() for name in names]
    alone = ((parts[0], label) for parts, label in pairs if len(parts) == 1)
    within = ((part, label) for parts, label in pairs for part in parts)
    for token, label in chain(alone, within):
        found.setdefault(token, _spoken(label))
    for letter in KANA:
        found.setdefault(letter, [])
    return {token: words for token, words in found.items() if not token.isascii()}


def _spoken(label: str) -> list[str]:
    """Return the words of an English label that carry its meaning."""
    words = re.findall(r"[a-z0-9]+", label.lower())
    return [word for word in words if word not in SILENT] or words
