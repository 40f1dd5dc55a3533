"""A finished picture made larger: by the model where it can, in both languages."""

from __future__ import annotations

import io

import pytest
import requests
from PIL import Image

from flux_api.images.recipe import hash_of
from tests.page.test_editing import MORE, choose
from tests.support.browser import draw, kept_pictures, open_page
from tests.support.servers import run_api, wait_for
from tests.support.wire import data_url, post, stats

NAMES = {"en": "Enlarge {}×", "ja": "{} 倍に拡大"}


def sized(page, width, height):
    """Ask for pictures of this size from now on."""
    if page.locator(".settings:not([open])").count():
        page.click(".settings summary")
    for name, value in (("width", width), ("height", height)):
        page.fill(f"#field-{name}", str(value))


def enlarge(page, name, count, state="done"):
    """Choose ``name`` in the menu of the picture that is shown, and wait until the card
    that comes on top of the ``count`` there are is in ``state``."""
    page.click(MORE)
    page.click(f".menu-list >> text={name}")
    page.wait_for_selector(f".strip li:nth-child({count + 1})")
    page.wait_for_selector(f".strip li:first-child .card.{state}")


@pytest.mark.parametrize("language", ["en", "ja"])
def test_two_and_four_times_as_large_in_both_languages(fake, browser, language):
    two, four = (NAMES[language].format(scale) for scale in (2, 4))
    with open_page(browser, fake, locale=language) as page:
        sized(page, 64, 96)
        draw(page, "a red cat")
        enlarge(page, two, 1)
        page.wait_for_selector(".facts >> text=128 × 192")
        assert page.inner_text(".facts .prompt") == "a red cat"
        enlarge(page, four, 2)
        page.wait_for_selector(".facts >> text=512 × 768")
        newest = kept_pictures(page)[0]
        asked = stats(fake)["requests"]
        # Its words and settings are found again: those of what it was made from.
        page.reload()
        page.click(".tools .button >> nth=0")
        page.fill("dialog input[type=search]", "cat")
        page.wait_for_selector(".gallery li:nth-child(3)")
        page.click(".gallery li:first-child .quiet")
        assert page.input_value("#prompt") == "a red cat"
        assert page.locator(".input").count() == 0
    assert [(one["mode"], one["size"]) for one in asked[1:]] == [
        ("upscale", [128, 192]),
        ("upscale", [512, 768]),
    ]
    assert asked[-1]["images"] == [[128, 192]]
    assert Image.open(io.BytesIO(newest["blob"])).size == (512, 768)


SAID = {"en": "This is an enlargement, and an input", "ja": "拡大した画像なので"}


@pytest.mark.parametrize("language", ["en", "ja"])
def test_an_enlargement_from_elsewhere_says_what_it_is(fake, browser, language):
    with open_page(browser, fake, locale=language) as page:
        page.click(".settings summary")
        page.fill("#field-seed", "33")
        draw(page, "a red cat")
        [original] = kept_pictures(page)
        page.fill("#prompt", "")
        page.fill("#field-seed", "")
        body = {"image": data_url(original["blob"]), "scale": 2}
        choose(page, post(fake, "/process/raw", json=body).content)
        page.wait_for_selector(f".notice >> text={SAID[language]}")
        assert hash_of(original["blob"])[:12] in page.inner_text(".notice")
        page.wait_for_selector(".input")
        # The one that it asks for brings its settings back.
        choose(page, original["blob"])
        page.wait_for_selector(".input", state="detached")
        assert page.input_value("#prompt") == "a red cat"
        assert page.input_value("#field-seed") == "33"


def test_what_would_become_too_large_is_not_offered(fake, browser):
    with open_page(browser, fake) as page:
        sized(page, 1920, 64)
        draw(page, "a cat")
        page.click(MORE)
        page.wait_for_selector(".menu-list >> text=Enlarge 2×")
        assert page.locator(".menu-list >> text=Enlarge 4×").count() == 0
        page.keyboard.press("Escape")
        enlarge(page, "Enlarge 2×", 1)
        page.wait_for_selector(".facts >> text=3840 × 128")
        page.click(MORE)
        page.click(".menu-list >> text=Enlarge")
        page.wait_for_selector(".notice >> text=cannot become any larger")
        assert page.locator(".card").count() == 2


def test_a_model_that_makes_none_larger_draws_it_at_twice_the_size(browser):
    settings = {"FLUX_MODEL": "flux2-dev"}
    with (
        run_api(app="tests.support.fake_app:app", **settings) as fake,
        open_page(browser, fake.wait_ready()) as page,
    ):
        sized(page, 256, 256)
        draw(page, "a cat")
        enlarge(page, '"Enlarge"', 1)
        page.wait_for_selector(".facts >> text=512 × 512")
        made = stats(fake)["requests"][-1]
    assert (made["mode"], made["size"]) == ("generate", [512, 512])


def test_it_shows_how_far_it_is_and_is_stopped(api, browser):
    with open_page(browser, api) as page:
        sized(page, 256, 256)
        page.fill("#field-steps", "2")
        draw(page, "a red heart")
        enlarge(page, "Enlarge 4×", 1, state="running")
        # The steps of all tiles.
        page.wait_for_selector("text=/^Step \\d+ of \\d\\d+$/")
        page.click(".progress .stop")
        page.wait_for_selector(".strip li:first-child .card.stopped")
        status = f"{api.url}/v1/status"
        wait_for(lambda: not requests.get(status, timeout=5).json()["running"], 20)
        page.click(".failure .main")
        page.wait_for_selector(".strip li:first-child .card.done")
        page.wait_for_selector(".facts >> text=1024 × 1024")
        page.wait_for_selector(".facts >> text=enlarged 4×")
        made = kept_pictures(page)[0]["blob"]
        # Its own file is no recipe for the form: it is a picture to go on with.
        page.click(".tools .button >> nth=0")
        page.click("text=Delete all")
        page.click("text=Really delete all")
        page.wait_for_selector(".card", state="detached")
        choose(page, made)
        page.wait_for_selector(".input")
        page.wait_for_selector(".notice >> text=This is an enlargement, and an input")
