"""Making pictures in the page: previews, several at once, stops, reloads, errors."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
from dataclasses import asdict

import numpy as np
import pytest
import requests
from PIL import Image
from safetensors.numpy import save_file

from flux_api.blueprints.page import PAGE
from flux_api.models.catalog import MODEL_INFO
from tests.support.browser import draw, kept_pictures, open_page
from tests.support.programs import need
from tests.support.servers import run_api, wait_for
from tests.support.wire import stats


def release(server):
    """Let go what is held."""
    requests.post(f"{server.url}/fake/release", timeout=5)


def newest(page, state):
    """Wait until the newest card is in ``state``."""
    page.wait_for_selector(f".strip li:first-child .card.{state}")


def test_a_picture_with_previews_and_steps(api, browser):
    with open_page(browser, api) as page:
        assert page.locator(".examples button").count() == 4
        page.click(".examples button >> nth=0")
        assert page.input_value("#prompt") == "a red heart"
        page.click("text=More settings")
        page.fill("#field-steps", "60")
        page.fill("#field-seed", "7")
        page.click(".composer .main")
        page.wait_for_selector("text=/^Step \\d+ of 60$/")
        page.wait_for_selector(".picture.busy img:not(.backdrop)")
        page.wait_for_selector("text=/left$/")
        page.wait_for_selector(".actions")
        assert "512 × 512" in page.inner_text(".facts")
        assert "Seed 7" in page.inner_text(".facts")
        assert "Steps 60" in page.inner_text(".facts")
        [kept] = kept_pictures(page)
    asked = {"prompt": "a red heart", "seed": 7, "num_inference_steps": 60}
    answer = requests.post(f"{api.url}/process/raw", json=asked, timeout=60)
    assert kept["blob"] == answer.content


def test_several_at_once_each_shown_when_it_is_finished(fake, browser):
    with open_page(browser, fake) as page:
        draw(page, "hold", state="running")
        page.check("[name=count] >> nth=2", force=True)
        page.fill("#prompt", "pause=0.01")
        page.fill("#field-width", "64")
        page.keyboard.press("Control+Enter")
        page.wait_for_selector(".strip li:nth-child(5)")
        assert page.locator(".card.done").count() == 0
        page.wait_for_selector(".status.busy >> text=5 under way")
        page.wait_for_selector("text=/before it in the queue|Waits for its turn/")
        release(fake)
        page.wait_for_selector(".strip:not(:has(.card:not(.done)))")
        seeds = [kept["recipe"]["seed"] for kept in kept_pictures(page)][:4]
        assert seeds == list(range(seeds[0], seeds[0] + 4))
        page.wait_for_selector(".status.good")
    assert stats(fake)["finished"] == 5


def test_who_waits_is_told_how_many_are_before(fake, browser):
    with open_page(browser, fake) as page:
        draw(page, "hold", state="running")
        for prompt in ("one", "two"):
            draw(page, prompt, state="queued")
            page.wait_for_selector(
                ".progress >> text=/in the queue|Waits for its turn/"
            )
        page.wait_for_selector(".progress >> text=1 before it in the queue")
        release(fake)
        page.wait_for_selector(".strip:not(:has(.card:not(.done)))")


def test_more_than_the_server_has_room_for_wait_here(browser):
    settings = {"FLUX_MAX_QUEUE": 1, "FLUX_MAX_PER_CALLER": 2}
    with run_api(app="tests.support.fake_app:app", **settings) as fake:
        fake.wait_ready()
        with open_page(browser, fake, refusals=True) as page:
            page.check("[name=count] >> nth=2", force=True)
            page.fill("#field-width", "64")
            page.fill("#prompt", "pause=0.01")
            page.keyboard.press("Control+Enter")
            page.wait_for_selector(".strip li:nth-child(4) .card.done")
            page.wait_for_selector(".strip:not(:has(.card:not(.done)))")


def test_stop_ends_the_run_on_the_server(fake, browser):
    with open_page(browser, fake) as page:
        draw(page, "hold", state="running")
        page.click(".progress .stop")
        newest(page, "stopped")
        wait_for(lambda: stats(fake)["running"] == 0, 10)
        page.wait_for_selector("h2 >> text=Stopped")
        page.click(".failure .main")
        newest(page, "running")
        release(fake)
        newest(page, "done")
        assert page.locator(".card").count() == 1


def test_what_was_stopped_while_it_was_fetched_stays_away(fake, browser):
    held = []
    with open_page(browser, fake) as page:
        page.route("**/result", lambda route: held.append(route))
        draw(page, "a red cat", state="fetching")
        wait_for(lambda: page.wait_for_timeout(50) or held, 20)
        page.click(".progress .stop")
        newest(page, "stopped")
        held[0].continue_()
        page.unroute("**/result")
        draw(page, "a blue dog")
        assert [kept["recipe"]["prompt"] for kept in kept_pictures(page)] == [
            "a blue dog"
        ]


def test_nothing_is_lost_when_the_page_is_reloaded_in_mid_run(fake, browser):
    with open_page(browser, fake) as page:
        draw(page, "hold", state="running")
        page.reload()
        newest(page, "running")
        page.reload()
        release(fake)
        newest(page, "done")
        assert stats(fake)["begun"] == 1
        # What ended while nobody looked is fetched too.
        draw(page, "pause=0.4", state="running")
        page.goto("about:blank")
        wait_for(lambda: stats(fake)["finished"] == 2, 20)
        page.goto(f"{fake.url}/")
        newest(page, "done")
        assert page.locator(".card.done").count() == 2
        assert stats(fake)["begun"] == 2


def test_a_restarted_server_has_lost_what_it_had(browser):
    app = "tests.support.fake_app:app"
    with run_api(app=app) as fake:
        fake.wait_ready()
        port = fake.url.rpartition(":")[2]
        with open_page(browser, fake, refusals=True) as page:
            draw(page, "hold", state="running")
            os.killpg(fake.process.pid, signal.SIGKILL)
            page.wait_for_selector(".status.bad")
            again = {"FLUX_MODELS": "klein-4b,tiny"}
            with run_api("-b", f"127.0.0.1:{port}", app=app, **again):
                page.wait_for_selector(".status >> text=klein-4b")
                page.click(".settings summary")
                page.wait_for_selector(
                    "[name=model] option:nth-child(2)", state="attached"
                )
                newest(page, "lost")
                page.click(".failure .main")
                newest(page, "running")


@pytest.mark.parametrize("language", ["en", "ja"])
def test_a_refused_setting_is_named_and_can_be_changed(fake, browser, language):
    with open_page(browser, fake, refusals=True, locale=language) as page:
        page.click(".settings summary")
        page.fill("#field-steps", "500")
        draw(page, "a cat", state="failed")
        title = page.inner_text(".failure h2")
        said = page.inner_text(".failure")
        assert ("Steps" in title) if language == "en" else ("ステップ数" in title)
        assert all(number in said for number in ("500", "200"))
        assert ("です。200" in said) == (language == "ja")
        # The server's English is there for whoever unfolds it.
        assert "Invalid" not in said
        page.click(".said summary")
        assert "Invalid" in page.inner_text(".said p")
        page.click(".failure .main")
        page.wait_for_selector("#field-steps:focus")
        page.fill("#field-steps", "2")
        draw(page, "a cat")
        assert page.locator("#prompt").input_value() == "a cat"


@pytest.mark.parametrize(("language", "example"), [("en", "a red heart"), ("ja", None)])
def test_a_prompt_that_says_nothing_to_the_model_gets_examples(
    fake, browser, language, example
):
    with open_page(browser, fake, locale=language) as page:
        draw(page, "qwxzv")
        told = page.inner_text(".facts")
        assert ("knows no word" in told) == (language == "en")
        assert "tiny" in told and "/v1/" not in told
        if language == "ja":
            assert "このプロンプトの言葉をどれも知りません" in told
        page.click(".facts .examples button >> nth=0")
        chosen = page.input_value("#prompt")
        assert chosen == (example or chosen) and chosen != "qwxzv"


def test_what_the_server_cannot_read_is_told_in_words(fake, browser):
    heic = b"\0\0\0\x18ftypheic\0\0\0\0" + bytes(64)
    with open_page(browser, fake, refusals=True, locale="ja") as page:
        kept = {"name": "a.heic", "mimeType": "image/heic", "buffer": heic}
        page.set_input_files(".bar input[type=file]", [kept])
        page.wait_for_selector(".input >> text=a.heic")
        draw(page, "make it blue", state="failed")
        told = page.inner_text(".failure")
        assert "PNG か JPEG" in told or "HEIC を読み込めません" in told
        assert "server" not in told


@pytest.mark.parametrize(
    ("word", "title", "again"),
    [
        ("memory", "There is not enough memory for this size", "Try again"),
        ("deadline", "It took too long", "Try again"),
        ("busy", "The server has run short of something", "Try again"),
        ("pipeline", "Nothing usable came out", "Try another seed"),
        ("unexpected", "Nothing usable came out", "Try another seed"),
        ("filtered", "filter refused this picture", "Try another seed"),
    ],
)
def test_failures_are_told_in_words(fake, browser, word, title, again):
    with open_page(browser, fake, refusals=True) as page:
        draw(page, f"fail={word} times=1", state="failed")
        page.wait_for_selector(f"h2 >> text={title}")
        assert "library" not in page.inner_text(".failure")
        page.click(f".failure button >> text={again}")
        newest(page, "done")
    seeds = {request["seed"] for request in stats(fake)["requests"]}
    assert len(seeds) == (2 if "seed" in again else 1)


def test_no_prompt_is_no_request(fake, browser):
    with open_page(browser, fake) as page:
        page.keyboard.press("Control+Enter")
        page.wait_for_selector(".notice >> text=Write a prompt first.")
        assert page.locator(".card").count() == 0


def test_a_negative_prompt_that_is_not_read_is_told_in_japanese(fake, browser):
    with open_page(browser, fake, locale="ja") as page:
        page.click(".settings summary")
        page.fill("#field-guidance", "1")
        page.fill("[name=negative]", "text")
        draw(page, "a cat")
        said = "ガイダンスが 1 以下のため、「除きたいもの」は使われませんでした。"
        page.wait_for_selector(f".facts .note >> text={said}")
        assert page.locator(".facts .note").count() == 1


def test_settings_reach_the_request(fake, browser):
    with open_page(browser, fake) as page:
        page.click(".choices.size label:nth-child(4)")
        page.click(".settings summary")
        for name, value in (("steps", "3"), ("guidance", "2.5"), ("seed", "11")):
            page.fill(f"#field-{name}", value)
        page.fill("[name=negative]", "text")
        page.select_option("[name=format]", "webp")
        draw(page, "a cat")
        [kept] = kept_pictures(page)
    made = stats(fake)["requests"][-1]
    assert (made["num_inference_steps"], made["guidance_scale"]) == (3, 2.5)
    assert (made["seed"], made["negative_prompt"]) == (11, "text")
    width, height = made["size"]
    assert abs(width / height - 16 / 9) < 0.1
    image = Image.open(io.BytesIO(kept["blob"]))
    assert (image.format, image.size) == ("WEBP", (width, height))


def test_numbers_that_cannot_be_meant_are_put_right(fake, browser):
    with open_page(browser, fake) as page:
        page.click(".settings summary")
        for name, typed, kept in (("seed", "-1", ""), ("width", "-5", "64")):
            page.fill(f"#field-{name}", typed)
            page.press(f"#field-{name}", "Tab")
            page.wait_for_function(f"document.activeElement.id !== 'field-{name}'")
            assert page.input_value(f"#field-{name}") == kept
        draw(page, "a cat")
    # Any, as in other tools: not that one.
    assert 0 <= stats(fake)["requests"][-1]["seed"] < 2**32


FIT = """
import { fitSize } from "./recipe.js";
const [sizes, wanted] = JSON.parse(process.argv[1]);
console.log(JSON.stringify(wanted.map((size) => fitSize(...size, sizes))));
"""


def test_sizes_are_put_right_to_what_the_server_takes():
    for sizes in {info.sizes for info in MODEL_INFO.values()}:
        sides = range(sizes.minimum, sizes.maximum + 1, 8)
        wanted = [(side, sizes.max_pixels // side) for side in sides]
        told = json.dumps([asdict(sizes), wanted])
        command = [need("node"), "--input-type=module", "-e", FIT, told]
        done = subprocess.run(command, cwd=PAGE, capture_output=True, check=True)
        for fitted in json.loads(done.stdout):
            assert sizes.choose(sizes.default, fitted, "size") == tuple(fitted)


def test_digits_of_a_japanese_keyboard_are_digits(fake, browser):
    with open_page(browser, fake, locale="ja") as page:
        page.click(".settings summary")
        typed = {"width": "１２８", "steps": "３", "guidance": "２．５", "seed": "１１"}
        for name, text in typed.items():
            page.fill(f"#field-{name}", text)
        draw(page, "ねこ")
        made = stats(fake)["requests"][-1]
        assert (made["size"][0], made["seed"]) == (128, 11)
        assert (made["num_inference_steps"], made["guidance_scale"]) == (3, 2.5)
        page.click("text=設定を比較")
        page.fill(".axis:nth-child(1) input", "１，２、３")
        page.wait_for_selector("text=3 枚を作る")


def test_only_what_the_model_honours_is_shown(browser, tmp_path):
    weights = {"a.lora_A.weight": np.zeros((4, 8), "float32")}
    for name in ("ink", "clay"):
        save_file(weights, tmp_path / f"{name}.safetensors")
    settings = {"FLUX_MODELS": "tiny,klein-4b", "FLUX_LORA_DIR": tmp_path}
    with (
        run_api(app="tests.support.fake_app:app", **settings) as fake,
        open_page(browser, fake.wait_ready()) as page,
    ):
        page.click(".settings summary")
        assert page.locator("#field-guidance").count() == 1
        page.select_option("[name=model]", "klein-4b")
        assert page.locator("#field-guidance, [name=negative]").count() == 0
        for name in ("clay", "ink"):
            page.select_option("[name=lora]", name)
        assert page.locator("[name=lora]").count() == 0
        page.fill("#field-lora-ink", "0.65")
        page.click("[aria-label='Remove clay']")
        draw(page, "a cat")
        [kept] = kept_pictures(page)
        assert kept["recipe"]["model"] == "klein-4b"
        assert "ink 0.65" in page.inner_text(".facts")
        assert stats(fake)["requests"][-1]["loras"] == [["ink", 0.65]]


# A weight typed as soon as its field is there, before the browser has painted; then
# what the field holds once it has.
TYPE_AT_ONCE = """async (select) => {
  select.value = "ink";
  select.dispatchEvent(new Event("change", { bubbles: true }));
  await Promise.resolve();
  const field = document.querySelector("#field-lora-ink");
  field.value = "0.65";
  field.dispatchEvent(new Event("input", { bubbles: true }));
  await new Promise((done) => setTimeout(done, 500));
  return field.value;
}"""


def test_a_number_typed_before_its_field_is_painted_is_kept(browser, tmp_path):
    weights = {"a.lora_A.weight": np.zeros((4, 8), "float32")}
    save_file(weights, tmp_path / "ink.safetensors")
    with (
        run_api(app="tests.support.fake_app:app", FLUX_LORA_DIR=tmp_path) as fake,
        open_page(browser, fake.wait_ready()) as page,
    ):
        assert page.locator("[name=lora]").evaluate(TYPE_AT_ONCE) == "0.65"


def test_a_key_is_asked_for_and_kept_for_the_tab(browser):
    keys = {"FLUX_API_KEYS": "one:sk-key-one"}
    with run_api(app="tests.support.fake_app:app", **keys) as server:
        server.wait_ready()
        with open_page(browser, server, refusals=True) as page:
            page.wait_for_selector("dialog[open] #field-key")
            page.keyboard.press("Escape")
            page.wait_for_selector(".status >> text=Key needed")
            draw(page, "a cat", state="failed")
            page.wait_for_selector("dialog[open] #field-key")
            for wrong in ("sk-wrong-key", "鍵"):
                page.fill("#field-key", wrong)
                page.click("dialog .main")
                page.wait_for_selector("dialog .wrong >> text=The key is not right")
                page.fill("#field-key", "")
            # Nothing was tried with it, and it is not kept.
            assert not page.evaluate("sessionStorage.getItem('flux.key')")
            assert page.locator(".card.failed").count() == 1
            page.fill("#field-key", "sk-key-one")
            page.click("dialog .main")
            newest(page, "done")
            assert page.locator(".card").count() == 1
            page.reload()
            page.wait_for_selector(".status.good")
            draw(page, "another cat")
