"""Collect what concepts are called in Japanese: our spellings, emojibase's labels.

python -m training.japanese_names training/work/data/npm
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from pathlib import Path

from training.data import read_vocabulary
from training.fetch import fetch_packages
from training.prepare import plain_code

HERE = Path(__file__).with_name("words")
SPELLINGS = HERE / "spellings.txt"
NAMES = HERE / "japanese_names.json"
FLAG = "旗:"


def tidy_label(label: str) -> str:
    """Return a label as people type it: no notes in brackets, no separators."""
    text = unicodedata.normalize("NFKC", label)
    text = re.sub(r"\(.*?\)", "", text)
    text = re.sub(r"[・\s]", "", text).lower()
    return f"{text.removeprefix(FLAG)}の旗" if text.startswith(FLAG) else text


def read_spellings() -> dict[str, list[str]]:
    """Return the spellings written by hand: a concept, "=", names with commas."""
    pairs = (line.split("=", 1) for line in SPELLINGS.read_text().splitlines() if line)
    return {label.strip(): names.strip().split(",") for label, names in pairs}


def collect_names(package: Path, vocabulary: list[str]) -> dict[str, list[str]]:
    """Return the Japanese names of these concepts, the usual one first."""
    english = json.loads((package / "en/data.json").read_text())
    japanese = json.loads((package / "ja/data.json").read_text())
    codes = {entry["label"].lower(): plain_code(entry["hexcode"]) for entry in english}
    labels = {plain_code(e["hexcode"]): tidy_label(e["label"]) for e in japanese}
    ours = read_spellings()
    found = {}
    for concept in vocabulary:
        names = [*ours.get(concept, []), labels.get(codes[concept], "")]
        found[concept] = [name for name in dict.fromkeys(names) if name]
    return found


def main() -> None:
    """Write the names of the whole vocabulary."""
    packages = fetch_packages(Path(sys.argv[1]))
    names = collect_names(packages["emojibase"], read_vocabulary())
    NAMES.write_text(json.dumps(names, ensure_ascii=False, indent=0) + "\n")
    print(f"{len(names)} concepts, {sum(map(len, names.values()))} names")


if __name__ == "__main__":
    main()
