"""The pictures of the README, drawn over HTTP: ``draw_demo.py [URL]``.

Asks a running server (``make serve``) for a heart, a cat, an edit and a variation, and
for sizes that are not square, and writes them with one sheet of all to docs/images/.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import requests
from PIL import Image

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "images"
SIDE = 256


def main(url: str) -> None:
    """Draw everything and save it."""
    heart = draw(url, {"prompt": "a red heart", "seed": 7})
    cat = draw(url, {"prompt": "a cute cat illustration", "seed": 3})
    rocket = draw(url, {"prompt": "rocket in 3d style", "seed": 2})
    pictures = {
        "heart": heart,
        "cat": cat,
        "rocket": rocket,
        "heart-monochrome": draw(
            url, {"prompt": "make it monochrome", "seed": 7}, heart
        ),
        "cat-monochrome": draw(url, {"prompt": "make it monochrome", "seed": 7}, cat),
        "rocket-mirrored": draw(url, {"prompt": "mirror it", "seed": 7}, rocket),
        "cat-variation": draw(url, {"seed": 11}, cat),
        "car-wide": draw(
            url, {"prompt": "a car", "seed": 1, "width": 768, "height": 512}
        ),
    }
    sheet = Image.new("RGB", (4 * SIDE, 2 * SIDE), "white")
    FOLDER.mkdir(parents=True, exist_ok=True)
    for number, (name, data) in enumerate(pictures.items()):
        image = Image.open(io.BytesIO(data))
        image.thumbnail((SIDE, SIDE))
        image.save(FOLDER / f"http-{name}.png", optimize=True)
        sheet.paste(image, (number % 4 * SIDE, number // 4 * SIDE))
    sheet.save(FOLDER / "http-demo.png", optimize=True)


def draw(url: str, fields: dict[str, object], picture: bytes | None = None) -> bytes:
    """One picture's PNG bytes."""
    files = {"input_file": picture} if picture else None
    answer = requests.post(f"{url}/process/raw", data=fields, files=files, timeout=120)
    answer.raise_for_status()
    return answer.content


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000")
