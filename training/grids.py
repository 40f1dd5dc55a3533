"""Sample grids: what the model makes of styles, prompts, edits and variations."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from training.data import load_data
from training.drawing import Artist
from training.pictures import on_white

CELL, MARGIN, HEAD = 96, 150, 20
STYLES = ("noto", "twemoji", "flat", "3d", "emojione")
SUBJECTS = (
    "cat face",
    "dog",
    "pizza",
    "rocket",
    "red heart",
    "house with garden",
    "guitar",
    "automobile",
    "broccoli",
    "robot",
    "castle",
    "penguin",
)
PROMPTS = (
    "a red heart",
    "a cute cat illustration",
    "a photo of a dog",
    "a slice of pizza",
    "a blue car",
    "a purple star",
    "rocket on a black background",
    "monochrome tiger face",
    "a hot cup of coffee",
    "a green apple in 3d style",
    "smiling face with sunglasses",
    "a bouquet of flowers",
)
EDITS = (
    "make it monochrome",
    "mirror it",
    "blur it",
    "make the background blue",
    "turn it upside down",
    "rotate it to the left",
    "invert the colors",
    "make it green",
    "in twemoji style",
    "in 3d style",
    "turn it into a pizza",
)
STRENGTHS = (0.3, 0.45, 0.6, 0.75, 0.9)


def draw_grid(
    rows: Sequence[Sequence[Image.Image]], left: Sequence[str], top: Sequence[str]
) -> Image.Image:
    """Return the pictures in a table with words at the left and above."""
    width = MARGIN + CELL * max(map(len, rows))
    sheet = Image.new("RGB", (width, HEAD + CELL * len(rows)), "#dddddd")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for y, row in enumerate(rows):
        corner = (4, HEAD + y * CELL + CELL // 2 - 14)
        pen.multiline_text(corner, _wrap(left[y], 24), fill="black", font=font)
        for x, image in enumerate(row):
            scaled = image.resize((CELL - 4, CELL - 4), Image.Resampling.BICUBIC)
            sheet.paste(scaled, (MARGIN + x * CELL + 2, HEAD + y * CELL + 2))
    for x, words in enumerate(top):
        spot = (MARGIN + x * CELL + 3, 4)
        pen.text(spot, words[:18], fill="black", font=ImageFont.load_default(9))
    return sheet


def _wrap(words: str, width: int) -> str:
    lines = [""]
    for word in words.split():
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def style_grid(artist: Artist) -> Image.Image:
    """Return subjects by styles."""
    rows = [
        artist.generate([f"{what} in {style} style" for style in STYLES], range(5))
        for what in SUBJECTS
    ]
    return draw_grid(rows, SUBJECTS, STYLES)


def prompt_grid(artist: Artist, seeds: int = 6) -> Image.Image:
    """Return free prompts by seeds."""
    rows = [artist.generate([p] * seeds, range(10, 10 + seeds)) for p in PROMPTS]
    return draw_grid(rows, PROMPTS, [f"seed {10 + s}" for s in range(seeds)])


def edit_grid(
    artist: Artist, images: list[Image.Image], names: list[str]
) -> Image.Image:
    """Return pictures that training never saw, by edits."""
    rows = [
        [image, *artist.edit([image] * len(EDITS), EDITS, range(len(EDITS)))]
        for image in images
    ]
    return draw_grid(rows, names, ["input", *EDITS])


def variation_grid(
    artist: Artist, images: list[Image.Image], names: list[str]
) -> Image.Image:
    """Return image-to-image variations by strength."""
    columns = [
        artist.vary(images, [""] * len(images), range(len(images)), strength)
        for strength in STRENGTHS
    ]
    rows = [list(row) for row in zip(images, *columns, strict=True)]
    return draw_grid(rows, names, ["input", *(f"strength {s}" for s in STRENGTHS)])


def main() -> None:
    """Write the four grids."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/tiny"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--styles", required=True)
    parser.add_argument("--concepts", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    artist = Artist(options.model)
    styles = options.styles.split(",")
    data = load_data(options.data, artist.size, styles, options.concepts)
    rows = data.held_out.nonzero()[0][::7][:10]
    images = [on_white(data.images[row]) for row in rows]
    names = [f"{data.name(row)} ({data.styles[row]})" for row in rows]
    options.out.mkdir(parents=True, exist_ok=True)
    style_grid(artist).save(options.out / "tiny-styles.png")
    prompt_grid(artist).save(options.out / "tiny-prompts.png")
    edit_grid(artist, images, names).save(options.out / "tiny-edits.png")
    variation_grid(artist, images, names).save(options.out / "tiny-variations.png")


if __name__ == "__main__":
    main()
