"""A blind test for people: a sheet without labels, a closed list, a sealed key.

python -m training.blind make   writes sheet.png, names.txt and key.json
python -m training.blind score  compares answers.txt, a name a line, to the key
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from training.drawing import Artist
from training.texts import load_prompts

PICTURES, DISTRACTORS, COLUMNS, CELL = 40, 40, 8, 132


def make_sheet(artist: Artist, folder: Path, seed: int) -> None:
    """Draw 40 fixed prompts of both languages, listed among as many other names."""
    chance = random.Random(seed)
    english = load_prompts()["generate"] + load_prompts("new_concepts")["generate"]
    japanese = load_prompts("japanese")["concepts"]
    mixed = [*_draw_lots(chance, english), *_draw_lots(chance, japanese)]
    asked = mixed[::2]
    chance.shuffle(asked)
    seeds = [chance.randrange(2**31) for _ in asked]
    images = artist.generate([entry["prompt"] for entry in asked], seeds)
    folder.mkdir(parents=True, exist_ok=True)
    _lay_out(images).save(folder / "sheet.png")
    names = sorted({entry["concept"] for entry in mixed})
    folder.joinpath("names.txt").write_text("\n".join(names) + "\n")
    key = [{"concept": e["concept"], "prompt": e["prompt"]} for e in asked]
    text = json.dumps(key, ensure_ascii=False, indent=1)
    folder.joinpath("key.json").write_text(text + "\n")


def _draw_lots(
    chance: random.Random, entries: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return half of the sheet's names from one language, each concept once."""
    by_concept = {entry["concept"]: entry for entry in entries}
    return chance.sample(list(by_concept.values()), (PICTURES + DISTRACTORS) // 2)


def _lay_out(images: list[Image.Image]) -> Image.Image:
    rows = -(-len(images) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * CELL, rows * (CELL + 14)), "#dddddd")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for index, image in enumerate(images):
        x, y = index % COLUMNS * CELL, index // COLUMNS * (CELL + 14)
        scaled = image.resize((CELL - 4, CELL - 4), Image.Resampling.BICUBIC)
        sheet.paste(scaled, (x + 2, y + 14))
        pen.text((x + 4, y), str(index + 1), fill="black", font=font)
    return sheet


def score_answers(folder: Path) -> None:
    """Print how many answers are right in each language, and the wrong ones."""
    key = json.loads(folder.joinpath("key.json").read_text())
    answers = folder.joinpath("answers.txt").read_text().split("\n")[: len(key)]
    right = {"English": 0, "Japanese": 0}
    asked, wrong = dict(right), []
    for number, (answer, entry) in enumerate(zip(answers, key, strict=True), 1):
        language = "English" if entry["prompt"].isascii() else "Japanese"
        asked[language] += 1
        if answer == entry["concept"]:
            right[language] += 1
        else:
            prompt, concept = entry["prompt"], entry["concept"]
            wrong.append(f"{number}: {answer!r} was {concept!r} ({prompt})")
    print(f"{sum(right.values())} of {len(key)} right")
    for language, count in right.items():
        print(f"{language}: {count} of {asked[language]}")
    print(*wrong, sep="\n")


def main() -> None:
    """Make a sheet or score the answers to one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("make", "score"))
    parser.add_argument("--model", type=Path, default=Path("models/tiny"))
    parser.add_argument("--folder", type=Path, default=Path("training/work/blind"))
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.action == "make":
        make_sheet(Artist(options.model), options.folder, options.seed)
    else:
        score_answers(options.folder)


if __name__ == "__main__":
    main()
