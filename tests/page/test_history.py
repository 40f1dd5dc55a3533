"""What this browser keeps, and the code that a picture can be had by again."""

from __future__ import annotations

import subprocess
import sys

import pytest
from PIL import Image

from flux_api.images.codec import encode_image
from flux_api.images.metadata import Metadata, add_metadata
from flux_api.images.recipe import make_xmp
from tests.page.test_editing import MORE, choose, stroke
from tests.support.browser import draw, kept_pictures, open_page
from tests.support.programs import need
from tests.support.servers import run_api, wait_for
from tests.support.wire import stats

KEY = "sk-key-one"
QUOTES = """it's "quoted" @ $HOME \\ 猫"""


def test_history_is_searched_restored_and_cleared(fake, browser):
    with open_page(browser, fake) as page:
        page.click(".settings summary")
        page.fill("#field-seed", "33")
        page.fill("#field-steps", "3")
        draw(page, "a red cat")
        page.fill("#field-steps", "4")
        draw(page, "a blue dog")
        page.reload()
        page.wait_for_selector(".strip li:nth-child(2)")
        page.click("text=History")
        page.fill("dialog input[type=search]", "CAT red")
        page.wait_for_selector(".gallery li:only-child")
        page.click(".gallery [aria-label^='Restore']")
        page.wait_for_selector(".notice >> text=Settings restored.")
        assert page.input_value("#prompt") == "a red cat"
        assert page.input_value("#field-seed") == "33"
        assert page.input_value("#field-steps") == "3"
        page.click("text=History")
        page.click("text=Delete all")
        page.click("text=Really delete all")
        page.wait_for_selector(".card", state="detached")
        page.reload()
        page.wait_for_selector(".examples")
        assert kept_pictures(page) == []


def marked(recipe):
    """A picture whose file carries ``recipe``."""
    plain = encode_image(Image.new("RGB", (64, 64)))
    metadata = Metadata(make_xmp(recipe["mode"], {"recipe": 1} | recipe))
    return add_metadata(plain, metadata).data


RECIPE = {
    "mode": "generate",
    "model": "tiny",
    "prompt": "a <green> bird & 猫",
    "seed": 45,
    "width": 256,
    "height": 192,
    "num_inference_steps": 3,
}


def test_a_picture_from_elsewhere_brings_its_settings_along(fake, browser):
    with open_page(browser, fake) as page:
        page.click(".settings summary")
        choose(page, marked(RECIPE))
        page.wait_for_selector(".notice >> text=carries its settings")
        assert page.input_value("#prompt") == RECIPE["prompt"]
        assert page.input_value("#field-seed") == "45"
        assert page.input_value("#field-steps") == "3"
        assert page.input_value("#field-width") == "256"
        assert page.locator(".input").count() == 0
        page.click(".notice >> text=Use it as input")
        page.wait_for_selector(".input")


def test_what_a_recipe_does_not_tell_is_asked_for(fake, browser):
    digest = "0123456789abcdef" * 4
    told = RECIPE | {"mode": "edit", "model": "klein-4b", "inputs": [digest]}
    told["prompt_sha256"] = digest[::-1]
    del told["prompt"]
    told["strength"] = 0.5
    told["loras"] = [{"name": "ink", "adapter_weight": 1}]
    with open_page(browser, fake) as page:
        choose(page, marked(told))
        page.wait_for_selector(".notice >> text=carries its settings")
        said = page.inner_text(".notice")
        for words in (
            *("model klein-4b is not", "not on this server: ink", "strength 0.5"),
            *("SHA-256 fedcba987654", "made from, SHA-256 0123456789ab"),
        ):
            assert words in said
        # The next picture is the one that was asked for, whatever it carries.
        choose(page, marked(RECIPE))
        page.wait_for_selector(".input")
        assert page.input_value("#prompt") == ""


def test_the_pictures_of_a_recipe_are_added_one_by_one(fake_multi, browser):
    digests = [digit * 64 for digit in "123"]
    told = RECIPE | {"mode": "inpaint", "inputs": digests[:2], "mask": digests[2]}
    with open_page(browser, fake_multi) as page:
        choose(page, marked(told))
        page.wait_for_selector(".notice >> text=carries its settings")
        for count in (1, 2):
            choose(page, marked(RECIPE | {"prompt": "an input's own"}))
            page.wait_for_selector(f".input:nth-child({count})")
            assert page.input_value("#prompt") == told["prompt"]
        # No more were asked for: this one brings its own.
        choose(page, marked(RECIPE | {"prompt": "a blue dog"}))
        page.wait_for_selector(".input", state="detached")
        assert page.input_value("#prompt") == "a blue dog"


def test_a_size_that_was_chosen_for_an_edit_is_restored(fake, browser, png):
    with open_page(browser, fake) as page:
        choose(page, png)
        page.wait_for_selector(".input")
        # The model's own size, which is not that of the picture.
        page.check("[name=size] >> nth=1", force=True)
        draw(page, "make it blue")
        page.check("[name=size] >> nth=0", force=True)
        page.click(MORE)
        page.click(".menu-list >> text=Restore its settings")
        page.wait_for_selector(".notice >> text=Settings restored.")
        draw(page, "make it red")
    assert [one["size"] for one in stats(fake)["requests"]] == [[512, 512]] * 2


def test_a_dropped_picture_of_ours_brings_its_settings_back(fake, browser):
    with open_page(browser, fake) as page:
        page.click(".settings summary")
        page.fill("#field-seed", "44")
        draw(page, "a green bird")
        [kept] = kept_pictures(page)
        page.fill("#prompt", "")
        page.fill("#field-seed", "")
        choose(page, kept["blob"])
        page.wait_for_selector(".notice >> text=This picture was made here")
        assert page.input_value("#prompt") == "a green bird"
        assert page.input_value("#field-seed") == "44"
        assert page.locator(".input").count() == 0
        page.click(".notice >> text=Use it as input")
        page.wait_for_selector(".input")


def copied(page, name):
    """The text of one tab of the code dialog, as copied."""
    page.click(f"[role=tab] >> text={name}")
    page.click("dialog .main")
    page.wait_for_selector("dialog .main >> text=Copied.")
    return page.evaluate("() => navigator.clipboard.readText()")


def run_copies(page, folder, key):
    """Copy the newest picture's request as each kind of code, run it, and give what
    each made."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click(MORE)
    page.click(".menu-list >> text=Copy as code")
    saved = []
    page.on("download", lambda download: saved.append(download))
    if page.locator("dialog .row .framed").count():
        page.click("dialog .row .framed")
        wanted = 2 if "mask.png" in page.inner_text("#snippet") else 1
        wait_for(lambda: page.wait_for_timeout(50) or len(saved) == wanted, 20)
        for download in saved:
            download.save_as(folder / download.suggested_filename)
    commands = {
        "curl": ["bash", "-e"],
        "Python": [sys.executable],
        "JavaScript": [need("node")],
    }
    need("curl")
    made = {}
    for name, command in commands.items():
        script = folder / f"copied-{name}.mjs"
        script.write_text(copied(page, name))
        picture = folder / "picture.png"
        picture.unlink(missing_ok=True)
        environ = {"PATH": "/usr/bin:/bin:/usr/local/bin", "FLUX_API_KEY": key}
        done = subprocess.run(
            [*command, script.name],
            cwd=folder,
            env=environ,
            capture_output=True,
            timeout=60,
        )
        assert done.returncode == 0, (script.read_text(), done.stderr.decode())
        made[name] = picture.read_bytes()
    page.keyboard.press("Escape")
    return made


@pytest.fixture(scope="module")
def keyed():
    """A server that asks for a key."""
    keys = {"FLUX_API_KEYS": f"one:{KEY}"}
    with run_api(app="tests.support.fake_app:app", **keys) as server:
        yield server.wait_ready()


@pytest.mark.parametrize("server", ["api", "keyed"])
def test_copied_code_makes_the_same_picture_again(request, browser, tmp_path, server):
    key = KEY if server == "keyed" else ""
    with open_page(browser, request.getfixturevalue(server)) as page:
        if key:
            page.fill("#field-key", key)
            page.click("dialog .main")
        page.click(".settings summary")
        for name, value in (("steps", 2), ("width", 64), ("height", 64)):
            page.fill(f"#field-{name}", str(value))
        page.fill("[name=negative]", "text")
        draw(page, QUOTES)
        same(page, tmp_path, key)
        if key:
            return
        page.click("text=Use as input")
        page.click("text=Paint a mask")
        stroke(page, (0.3, 0.3), (0.7, 0.6))
        page.click("dialog >> text=Done")
        draw(page, "a red heart")
        same(page, tmp_path, key)
        page.click(".actions >> text=Vary")
        page.wait_for_selector(".strip li:nth-child(3)")
        page.wait_for_selector(".strip li:first-child .card.done")
        same(page, tmp_path, key)
        page.click(MORE)
        page.click(".menu-list >> text=Enlarge 2×")
        page.wait_for_selector(".strip li:nth-child(4)")
        page.wait_for_selector(".strip li:first-child .card.done")
        same(page, tmp_path, key)


def same(page, folder, key):
    """All three copies make the bytes that the page has."""
    made = run_copies(page, folder, key)
    newest = kept_pictures(page)[0]["blob"]
    assert {name: data == newest for name, data in made.items()} == {
        "curl": True,
        "Python": True,
        "JavaScript": True,
    }
