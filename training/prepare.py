"""Draw every emoji of every set once and write the pictures and their words."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from training.fetch import fetch_packages
from training.sources import STYLES

GROUPS = (
    "smileys",
    "people",
    "component",
    "animals",
    "food",
    "travel",
    "activities",
    "objects",
    "symbols",
    "flags",
)


def prepare_data(folder: Path, size: int, styles: list[str]) -> Path:
    """Return the data file: RGBA pictures (RGB on white), code points and styles."""
    target = folder / f"emoji{size}.npz"
    words = folder / "words.json"
    if target.exists() and words.exists():
        return target
    packages = fetch_packages(folder / "npm")
    concepts = _read_words(packages)
    words.write_text(json.dumps(concepts, ensure_ascii=False, indent=0))
    pictures, codes, names = [], [], []
    for style in styles:
        found = dict(_read_set(packages[style], concepts))
        for code in concepts:
            if code in found:
                pictures.append(_draw(found[code], size))
                codes.append(code)
                names.append(style)
        print(f"{style}: {names.count(style)} pictures", flush=True)
    np.savez(target, images=np.stack(pictures), code=codes, style=names)
    return target


def plain_code(code: str) -> str:
    """Return a code point sequence without variation selectors."""
    parts = (part for part in code.lower().split("-"))
    return "-".join(part for part in parts if part not in ("fe0e", "fe0f"))


def _read_words(packages: dict[str, Path]) -> dict[str, Any]:
    library = json.loads((packages["emojilib"] / "dist/emoji-en-US.json").read_text())
    more = {
        plain_code("-".join(f"{ord(c):x}" for c in k)): v for k, v in library.items()
    }
    concepts = {}
    for entry in json.loads((packages["emojibase"] / "en/data.json").read_text()):
        if entry.get("group") in (None, GROUPS.index("component")):
            continue
        code = plain_code(entry["hexcode"])
        tags = [*entry.get("tags", []), *more.get(code, [])]
        concepts[code] = {
            "name": entry["label"].lower(),
            "tags": list(dict.fromkeys(t.lower().replace("_", " ") for t in tags)),
            "group": GROUPS[entry["group"]],
        }
    return concepts


def _read_set(package: Path, concepts: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield each emoji's code points with its SVG text or its bitmap file."""
    if (package / "assets").is_dir():
        for file in (package / "assets").glob("*.webp"):
            yield plain_code(file.stem), file
        return
    icons = json.loads((package / "icons.json").read_text())
    chars = json.loads((package / "chars.json").read_text())
    if len(chars) > 100:
        named = {plain_code(c): n for c, n in chars.items() if n in icons["icons"]}
    else:  # sets without a code point table are matched by name
        by_name = {_squash(c["name"]): code for code, c in reversed(concepts.items())}
        every = {_squash(name): name for name in icons["icons"]}
        named = {by_name[key]: every[key] for key in every if key in by_name}
    for code, name in named.items():
        yield code, _svg(icons["icons"][name], icons)


def _squash(name: str) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", re.sub("['’]", "", name.lower())).strip("-")
    for word in ("-for-", "-with-"):
        slug = slug.replace(word, "-")
    return slug.replace("-", "")


def _svg(icon: dict[str, Any], defaults: dict[str, Any]) -> str:
    left, top = icon.get("left", 0), icon.get("top", 0)
    width = icon.get("width", defaults.get("width", 16))
    height = icon.get("height", defaults.get("height", 16))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" '
        'xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'
    )


def _draw(picture: str | Path, size: int) -> np.ndarray:
    if isinstance(picture, Path):
        image = Image.open(picture).convert("RGBA")
    else:
        import resvg_py

        # Twice the size, averaged below: thin lines keep their weight.
        png = resvg_py.svg_to_bytes(
            svg_string=picture,
            width=2 * size,
            height=2 * size,
            skip_system_fonts=True,
        )
        image = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    if image.width != image.height:
        square = Image.new("RGBA", (max(image.size),) * 2)
        corner = (
            (square.width - image.width) // 2,
            (square.height - image.height) // 2,
        )
        square.paste(image, corner)
        image = square
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image)
    # Colour and alpha are resized apart: Pillow blackens RGB where alpha is 0.
    colour = white.convert("RGB").resize((size, size), Image.Resampling.LANCZOS)
    alpha = image.getchannel("A").resize((size, size), Image.Resampling.LANCZOS)
    return np.dstack([np.asarray(colour), np.asarray(alpha)])


if __name__ == "__main__":
    prepare_data(Path(sys.argv[1]), int(sys.argv[2]), list(STYLES))
