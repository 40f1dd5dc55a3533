"""Sample grids: what the model makes of styles, prompts, edits and variations."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from training.data import add_data_options, read_data
from training.drawing import Artist
from training.pictures import on_white
from training.texts import load_prompts

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
# Japanese prompts, under English labels: Pillow's own font has no Japanese letters.
JAPANESE_PROMPTS = {
    "赤いハート": "akai haato (a red heart)",
    "かわいい猫のイラスト": "kawaii neko (a cute cat)",
    "青い車": "aoi kuruma (a blue car)",
    "3d風のロケット": "3d rocket",
    "ピザを描いてください": "draw a pizza, please",
    "おにぎり": "onigiri (rice ball)",
    "お寿司": "osushi",
    "桜の花": "sakura (cherry blossom)",
    "富士山": "mount fuji",
    "新幹線": "shinkansen",
    "鳥居の絵": "torii (a shrine's gate)",
    "雪だるま、背景は青": "snowman on blue",
}
JAPANESE_EDITS = {
    "白黒にして": "monochrome",
    "左右反転してください": "mirror",
    "ぼかして": "blur",
    "背景を青にして": "blue background",
    "上下逆さまにしてほしい": "upside down",
    "左に90度回転して": "to the left",
    "色を反転して": "invert",
    "緑色にして": "green",
    "3d風にして": "in 3d",
    "ピザにして": "into a pizza",
}
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


def prompt_grid(
    artist: Artist, prompts: Sequence[str], labels: Sequence[str], seeds: int = 6
) -> Image.Image:
    """Return free prompts by seeds."""
    rows = [artist.generate([p] * seeds, range(10, 10 + seeds)) for p in prompts]
    return draw_grid(rows, labels, [f"seed {10 + s}" for s in range(seeds)])


def edit_grid(
    artist: Artist,
    images: list[Image.Image],
    names: list[str],
    orders: Sequence[str],
    labels: Sequence[str],
) -> Image.Image:
    """Return pictures that training never saw, by edits."""
    rows = [
        [image, *artist.edit([image] * len(orders), orders, range(len(orders)))]
        for image in images
    ]
    return draw_grid(rows, names, ["input", *labels])


def newcomer_grid(artist: Artist, language: str, seeds: int = 3) -> Image.Image:
    """Return what people type first, numbered, by seeds; two prompts a row."""
    prompts = load_prompts("newcomers")[language]
    drawn = [artist.generate([p] * seeds, range(20, 20 + seeds)) for p in prompts]
    half = -(-len(drawn) // 2)
    rows = [
        [*left, *right] for left, right in zip(drawn[:half], drawn[half:], strict=True)
    ]
    labels = [f"{n + 1} and {n + half + 1}" for n in range(half)]
    return draw_grid(rows, labels, [f"seed {20 + s}" for s in range(seeds)] * 2)


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
    add_data_options(parser)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    artist = Artist(options.model)
    data = read_data(options, artist.size)
    rows = data.held_out.nonzero()[0][::7][:10]
    images = [on_white(data.images[row]) for row in rows]
    names = [f"{data.name(row)} ({data.styles[row]})" for row in rows]
    options.out.mkdir(parents=True, exist_ok=True)
    japanese, in_english = list(JAPANESE_PROMPTS), list(JAPANESE_PROMPTS.values())
    orders, meanings = list(JAPANESE_EDITS), list(JAPANESE_EDITS.values())
    sheets = {
        "styles": style_grid(artist),
        "prompts": prompt_grid(artist, PROMPTS, PROMPTS),
        "prompts-ja": prompt_grid(artist, japanese, in_english),
        "edits": edit_grid(artist, images, names, EDITS, EDITS),
        "edits-ja": edit_grid(artist, images, names, orders, meanings),
        "variations": variation_grid(artist, images, names),
        "newcomers-en": newcomer_grid(artist, "english"),
        "newcomers-ja": newcomer_grid(artist, "japanese"),
    }
    for name, sheet in sheets.items():
        sheet.save(options.out / f"tiny-{name}.png")


if __name__ == "__main__":
    main()
