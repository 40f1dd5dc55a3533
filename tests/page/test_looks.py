"""In both languages, light and dark, on a phone and on a desk: axe finds nothing,
nothing is cut off, and everything is large enough to touch."""

from __future__ import annotations

import pytest

from tests.page.test_editing import MORE, choose
from tests.support.browser import axe_findings, draw, open_page
from tests.support.pictures import make_png

SIZES = {
    "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True},
    "tablet": {"viewport": {"width": 768, "height": 1024}},
    "desk": {"viewport": {"width": 1440, "height": 900}},
}
LOOKS = [
    ("phone", "ja", "light"),
    ("phone", "en", "dark"),
    ("tablet", "en", "light"),
    ("desk", "ja", "dark"),
]
TOO_SMALL = """() => [...document.querySelectorAll(
    "button, summary, select, textarea, input:not([type=file], [type=radio]), label")]
  .filter((element) => element.tagName !== "LABEL" || element.querySelector("input"))
  .filter((element) => element.checkVisibility({ visibilityProperty: true }))
  .filter((element) => element.closest("dialog") || !document.querySelector("[open]"))
  .map((element) => [element.outerHTML.slice(0, 120), element.getBoundingClientRect()])
  .filter(([, box]) => box.width && (box.width < 43.5 || box.height < 43.5))
  .map(([text]) => text)"""
SIDEWAYS = "() => document.documentElement.scrollWidth - innerWidth"


def check(page):
    """Nothing found, cut off or too small."""
    assert axe_findings(page) == []
    assert page.evaluate(SIDEWAYS) <= 0
    assert page.evaluate(TOO_SMALL) == []


@pytest.mark.parametrize(("size", "language", "scheme"), LOOKS)
def test_every_state_is_fit_to_be_used(fake, browser, size, language, scheme):
    context = SIZES[size] | {"locale": language, "color_scheme": scheme}
    is_wide = size == "desk"
    with open_page(browser, fake, refusals=True, **context) as page:
        assert page.evaluate("() => document.documentElement.lang") == language
        page.wait_for_selector(".examples")
        check(page)
        draw(page, "hold", state="running")
        check(page)
        page.click(".progress .stop")
        check(page)
        if not is_wide:
            page.click(".toggle")
        page.click(".settings summary")
        page.fill("#field-steps", "3")
        check(page)
        draw(page, "a cat")
        check(page)
        page.click(MORE)
        check(page)
        page.click(".menu-list hr + .button >> nth=0")
        page.wait_for_selector("dialog.code")
        check(page)
        page.keyboard.press("Escape")
        page.click(".tools .button >> nth=0")
        page.wait_for_selector("dialog.history")
        check(page)
        page.keyboard.press("Escape")
        choose(page, make_png())
        page.click(".inputs .framed")
        page.wait_for_selector("dialog.mask")
        check(page)


def test_beside_a_full_form_the_picture_covers_nothing(fake_multi, browser):
    below = """() => {
        const [picture, facts] = [".picture", ".below"].map(
            (name) => document.querySelector(name).getBoundingClientRect());
        return facts.top - picture.bottom;
    }"""
    with open_page(browser, fake_multi, **SIZES["phone"]) as page:
        for number in range(5):
            choose(page, make_png((96, 64 + 16 * number)))
        draw(page, "all of them")
        page.wait_for_selector(".picture img")
        assert page.evaluate(below) >= 0


def test_language_and_theme_are_changed_and_remembered(fake, browser):
    with open_page(browser, fake) as page:
        page.click("[lang=ja].button")
        page.wait_for_selector(".composer .main >> text=生成")
        ground = "() => getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(ground)
        page.click("[aria-label='明るさの切り替え']")
        assert page.evaluate(ground) != light
        page.reload()
        page.wait_for_selector(".composer .main >> text=生成")
        assert page.evaluate(ground) != light
        assert page.evaluate("() => document.documentElement.lang") == "ja"


def test_what_is_unfolded_is_seen(fake, browser):
    script = """() => {
        const field = document.querySelector("#field-seed");
        const { x, y, width, height } = field.getBoundingClientRect();
        const there = document.elementFromPoint(x + width / 2, y + height / 2);
        return there?.id === "field-seed";
    }"""
    desk = {"viewport": {"width": 1280, "height": 800}}
    with open_page(browser, fake, **desk) as page:
        page.click(".settings summary")
        page.wait_for_function(script)
