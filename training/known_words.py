"""Write the words that a model was taught, for servers that warn about others.

The file ships beside the weights: for each language the things that it draws, further
words that mean something to it, and prompts to begin with.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from training import texts
from training.data import CONCEPTS, read_vocabulary
from training.japanese import NAMES
from training.japanese_tokens import GLUE
from training.pictures import BACKGROUNDS, PAINTS

FILE = "known_words.json"
EXAMPLES = Path(__file__).with_name("words") / "examples.json"


def english_words(concepts: list[dict[str, Any]]) -> set[str]:
    """Return every word that English captions and orders may have."""
    phrases = [*texts.SCENES, *texts.STYLED, *texts.PAINTED, *texts.FILLERS]
    phrases += [*texts.POLITE, *texts.POLITE_WANT, *texts.ENDINGS, *texts.THINGS]
    for group in (texts.ORDERS, texts.WISHES, texts.CAPTION_OPS, texts.STYLES):
        phrases += [phrase for several in group.values() for phrase in several]
    phrases += [*BACKGROUNDS, *PAINTS]
    for concept in concepts:
        phrases += [concept["name"], *concept["tags"]]
    bare = (re.sub(r"\{.*?\}", " ", phrase) for phrase in phrases)
    return {word for phrase in bare for word in texts.clean(phrase).split()}


def known_words(
    words: dict[str, Any], vocabulary: list[str], languages: list[str]
) -> dict[str, Any]:
    """Return the content of the file for these languages."""
    concepts = [entry for entry in words.values() if entry["name"] in set(vocabulary)]
    examples = json.loads(EXAMPLES.read_text())
    glue = [line.partition("=")[0] for line in GLUE.read_text().splitlines()]
    japanese = dict.fromkeys(name for label in vocabulary for name in NAMES[label])
    every = {
        "en": {"things": vocabulary, "words": sorted(english_words(concepts))},
        "ja": {"things": list(japanese), "words": glue},
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


if __name__ == "__main__":
    main()
