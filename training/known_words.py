"""Write the words that a model was taught, for servers that warn about others.

The file ships beside the weights: for each language the things that it draws, the
single words of their names, those of changes and styles, and prompts to begin with.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

from training import texts
from training.data import CONCEPTS, read_vocabulary
from training.export import write_sums
from training.japanese import NAMES
from training.japanese_tokens import GLUE
from training.pictures import BACKGROUNDS, PAINTS

FILE = "known_words.json"
SHORTEST = 3
MOST_KINDS = 3
# Words that stand in any prompt and name nothing.
COMMON = set(
    Path(__file__).with_name("words").joinpath("common.txt").read_text().split()
)
EXAMPLES = Path(__file__).with_name("words") / "examples.json"


def english_words(phrases: Iterable[str]) -> set[str]:
    """Return the words of ``phrases``, without their places for other words."""
    bare = (re.sub(r"\{.*?\}", " ", phrase) for phrase in phrases)
    words = {word for phrase in bare for word in texts.clean(phrase).split()}
    return {word for word in words if len(word) >= SHORTEST} - COMMON


def english_changes() -> set[str]:
    """Return the words that say which change or style is meant: those of one or two
    kinds of order, not what all orders have in common."""
    kinds: list[set[str]] = []
    for group in (texts.ORDERS, texts.WISHES, texts.CAPTION_OPS, texts.STYLES):
        kinds += [english_words(phrases) for phrases in group.values()]
    counts = Counter(word for words in kinds for word in words)
    told = {word for word, count in counts.items() if count <= MOST_KINDS}
    said = (texts.FILLERS, texts.POLITE, texts.POLITE_WANT, texts.ENDINGS)
    told -= english_words(chain(*said, texts.THINGS, texts.SCENES))
    return told | english_words([*BACKGROUNDS, *PAINTS])


def known_words(
    words: dict[str, Any], vocabulary: list[str], languages: list[str]
) -> dict[str, Any]:
    """Return the content of the file for these languages."""
    concepts = [entry for entry in words.values() if entry["name"] in set(vocabulary)]
    names = [text for entry in concepts for text in (entry["name"], *entry["tags"])]
    examples = json.loads(EXAMPLES.read_text())
    changes = english_changes()
    glue = [line.split("=") for line in GLUE.read_text().splitlines()]
    japanese = dict.fromkeys(name for label in vocabulary for name in NAMES[label])
    every: dict[str, dict[str, list[str]]] = {
        "en": {
            "things": vocabulary,
            "words": sorted(english_words(names)),
            "changes": sorted(changes),
        },
        "ja": {
            "things": list(japanese),
            "words": [],
            "changes": [ja for ja, en in glue if changes & english_words([en])],
        },
    }
    return {key: every[key] | {"examples": examples[key]} for key in languages}


def write_known_words(folder: Path, content: dict[str, Any]) -> None:
    """Write the file, a value a line at most so that a diff can be read."""
    folder.joinpath(FILE).write_text(
        json.dumps(content, ensure_ascii=False, indent=0) + "\n"
    )


def main() -> None:
    """Write the words of a model that was trained on a vocabulary file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--concepts", type=Path, default=CONCEPTS)
    parser.add_argument("--languages", default="en,ja")
    parser.add_argument("--model", type=Path, required=True)
    options = parser.parse_args()
    words = json.loads(options.data.joinpath("words.json").read_text())
    vocabulary = read_vocabulary(options.concepts)
    content = known_words(words, vocabulary, options.languages.split(","))
    write_known_words(options.model, content)
    write_sums(options.model)


if __name__ == "__main__":
    main()
