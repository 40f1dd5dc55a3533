"""A server that loads, fails, drains or is gone: the page says so and goes on after."""

from __future__ import annotations

import shutil

from tests.blueprints.test_respond_async import submit
from tests.support.browser import open_page
from tests.support.servers import ROOT, run_api
from tests.support.wire import release


def test_a_model_that_cannot_be_loaded_is_told(browser, tmp_path):
    shutil.copy(ROOT / "models" / "tiny" / "model_index.json", tmp_path)
    sets = tmp_path / "sets.toml"
    sets.write_text(f'[broken]\nlike = "tiny"\nbase_model = "{tmp_path}"\n')
    settings = {"MODEL_INFO": sets, "FLUX_MODEL": "broken"}
    with (
        run_api(**settings) as server,
        open_page(browser, server) as page,
    ):
        page.wait_for_selector("h2 >> text=The model could not be loaded")
        page.click(".said summary")
        page.wait_for_selector(".said >> text=loading failed")
        page.wait_for_selector(".status.bad")


def test_the_page_shows_how_far_loading_is(browser, tmp_path):
    (tmp_path / "load").write_text("hold")
    app = "tests.support.fake_app:app"
    with (
        run_api(app=app, FAKE_LOAD=tmp_path / "load") as server,
        open_page(browser, server, refusals=True) as page,
    ):
        page.wait_for_selector("progress[value]")
        assert page.locator(".welcome progress").evaluate("it => it.value") == 0.25
        assert "25 %" in page.inner_text(".welcome")
        # Also for who has asked already, and sees that picture's card instead.
        page.fill("#prompt", "a red heart")
        page.keyboard.press("Control+Enter")
        page.wait_for_selector(".progress >> text=Waits for the model")
        assert "25 %" in page.inner_text(".status")
        (tmp_path / "load").write_text("go on")
        page.wait_for_selector(".card.done")
        page.wait_for_selector(".status.good")
        assert "%" not in page.inner_text(".status")


def test_the_strip_tells_of_the_queue_and_of_memory(browser):
    settings = {"FAKE_MEMORY": "6,24"}
    with run_api(app="tests.support.fake_app:app", **settings) as fake:
        fake.wait_ready()
        for _ in range(3):
            submit(fake, "hold")
        with open_page(browser, fake) as page:
            page.wait_for_selector(".status >> text=tiny")
            page.wait_for_selector(".status >> text=2 waiting")
            page.wait_for_selector(".status >> text=6 of 24 GB")
            release(fake)
            page.wait_for_selector(".status >> text=waiting", state="detached")


def test_a_prompt_is_taken_while_the_model_loads(browser):
    with run_api() as server, open_page(browser, server, refusals=True) as page:
        page.fill("#prompt", "a red heart")
        page.keyboard.press("Control+Enter")
        page.wait_for_selector(".card.done", timeout=90_000)


def test_a_server_that_keeps_no_pictures_cannot_be_drawn_on(
    browser, fake_without_results
):
    with open_page(browser, fake_without_results) as page:
        page.wait_for_selector("h2 >> text=This page cannot draw here")
        page.fill("#prompt", "a cat")
        page.keyboard.press("Control+Enter")
        page.wait_for_selector(".notice >> text=FLUX_RESULTS_MB")
        assert page.locator(".card").count() == 0
