"""Screenshots of the page for the documents, of a real server and a real browser.

python -m scripts.draw_page [FOLDER]

Starts the API with tiny, makes pictures in the page, and writes docs/images/page-*.png.
Needs the packages of requirements-dev.txt, chromium-headless-shell and a Japanese font
(Debian's fonts-noto-cjk).
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image

from tests.page.test_editing import MORE, stroke
from tests.support.browser import draw, open_page, run_browser
from tests.support.servers import ROOT, run_api

DESK = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
GAP = 16

PROMPTS = {
    "en": ["a red heart", "a smiling sun", "a slice of pizza", "a cat", "a rocket"],
    "ja": ["赤いハート", "太陽", "ピザ", "かわいい猫", "ロケット"],
}


def shot(page):
    """The page as it is now, once nothing moves any more."""
    page.mouse.move(5, 5)
    page.wait_for_timeout(400)
    return Image.open(io.BytesIO(page.screenshot(animations="disabled")))


def save(folder, name, *pictures):
    """The pictures side by side, as one PNG."""
    width = sum(picture.width for picture in pictures) + GAP * (len(pictures) - 1)
    sheet = Image.new("RGB", (width, max(p.height for p in pictures)), (128, 128, 128))
    x = 0
    for picture in pictures:
        sheet.paste(picture, (x, 0))
        x += picture.width + GAP
    path = folder / f"page-{name}.png"
    sheet.save(path, optimize=True)
    print(path, f"{path.stat().st_size // 1000} kB")


def make(page, prompts):
    """A picture of each prompt, in order."""
    page.evaluate("() => document.querySelector('.settings').open = true")
    for seed, prompt in enumerate(prompts, 3):
        if page.locator(".toggle").is_visible():
            page.click(".toggle")
        page.fill("#field-seed", str(seed))
        draw(page, prompt)


def first_screens(browser, server, folder):
    """README's picture, in both languages."""
    for language, scheme in (("en", "light"), ("ja", "dark")):
        context = DESK | {"locale": language, "color_scheme": scheme}
        with open_page(browser, server, **context) as page:
            make(page, PROMPTS[language])
            page.evaluate("() => document.querySelector('.settings').open = false")
            save(folder, language, shot(page))


def tour(browser, server, folder):
    """What docs/page.md shows."""
    with open_page(browser, server, **DESK, locale="en") as page:
        make(page, PROMPTS["en"][1:])
        page.click(MORE)
        save(folder, "actions", shot(page))
        page.keyboard.press("Escape")
        page.click("text=Use as input")
        page.click("text=Paint a mask")
        stroke(page, (0.3, 0.35), (0.5, 0.6))
        stroke(page, (0.5, 0.6), (0.62, 0.4))
        save(folder, "mask", shot(page))
        page.keyboard.press("Control+z")
        page.keyboard.press("Escape")
        page.click(".input .remove")
        page.fill("#prompt", "a smiling sun")
        page.click("text=Compare settings")
        page.fill(".axis:nth-child(1) input", "1, 2, 3, 4")
        page.select_option(".axis:nth-child(2) select", "guidance")
        page.fill(".axis:nth-child(2) input", "1, 3, 6")
        page.click("text=Draw 12 pictures")
        page.wait_for_selector("text=Download the sheet")
        save(folder, "compare", shot(page))


def phone(browser, server, folder):
    """Under way, finished, and the mask, on a phone."""
    with open_page(browser, server, **PHONE, locale="ja") as page:
        first = shot(page)
        make(page, PROMPTS["ja"])
        finished = shot(page)
        page.click("text=編集する")
        page.click("text=マスクを塗る")
        stroke(page, (0.3, 0.35), (0.5, 0.6))
        save(folder, "phone", first, finished, shot(page))


def main(folder):
    """All of them."""
    with run_api() as server, run_browser() as browser:
        server.wait_ready()
        first_screens(browser, server, folder)
        tour(browser, server, folder)
        phone(browser, server, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else ROOT / "docs" / "images")
