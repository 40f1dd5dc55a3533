"""Networks that break off or fall silent, keys that change, several tabs, and a server
that tells late what it has."""

from __future__ import annotations

import numpy as np
import pytest
import requests
from safetensors.numpy import save_file

from tests.page.test_editing import MORE, choose, stroke
from tests.page.test_history import KEY, RECIPE, marked
from tests.support.browser import draw, kept_pictures, open_page
from tests.support.pictures import make_png
from tests.support.servers import run_api, wait_for
from tests.support.wire import release, stats

FAKE = "tests.support.fake_app:app"
SETTLED = ".strip:not(:has(.card:not(.done)))"

# The first time its bytes break off on their way.
CUT_OFF = """
let left = 1;
const ask = window.fetch;
window.fetch = async (address, options) => {
  const answer = await ask(address, options);
  if (!address.endsWith("/result") || !left) return answer;
  left -= 1;
  const pull = (control) => control.error(new TypeError("network error"));
  return new Response(new ReadableStream({ pull }), answer);
};"""

PENDING = """async () => {
  const asked = indexedDB.open("flux-imaging");
  await new Promise((resolve) => { asked.onsuccess = resolve; });
  const all = asked.result.transaction("pending").objectStore("pending").getAll();
  await new Promise((resolve) => { all.onsuccess = resolve; });
  asked.result.close();
  return all.result.map(({ sent }) => Boolean(sent)).sort();
}"""


def until(page, true):
    """Wait until ``true()``, while what the page asks for is heard."""
    wait_for(lambda: true() or page.wait_for_timeout(20), 20)


def hold(page, pattern, **limit):
    """Keep requests of ``pattern`` waiting; gives them, and what lets them go."""
    held = []

    def keep(route):
        held.append(route)

    def go_on():
        for route in held:
            route.continue_()
        page.unroute(pattern, keep)

    page.route(pattern, keep, **limit)
    return held, go_on


def prompts(server):
    """What has been drawn."""
    return [request["prompt"] for request in stats(server)["requests"]]


def test_a_result_is_asked_for_once_however_long_it_takes(fake, browser):
    with open_page(browser, fake) as page:
        held, go_on = hold(page, "**/result")
        draw(page, "a cat", state="fetching")
        # The stream is opened anew for it, and tells all from the beginning.
        draw(page, "hold", state="running")
        page.wait_for_selector(".strip li:nth-child(2) .card.fetching")
        assert len(held) == 1
        go_on()
        page.wait_for_selector(".strip li:nth-child(2) .card.done")
        release(fake)
        page.wait_for_selector(SETTLED)


def test_a_result_that_breaks_off_is_fetched_again(fake, browser):
    with open_page(browser, fake, script=CUT_OFF) as page:
        draw(page, "a cat")
        [kept] = kept_pictures(page)
    assert kept["blob"].startswith(b"\x89PNG")
    assert prompts(fake) == ["a cat"]


def test_a_result_waits_for_a_network_that_is_away(fake, browser):
    refused = []
    with open_page(browser, fake, refusals=True) as page:
        page.clock.install()

        def refuse(route):
            refused.append(route)
            route.abort("connectionreset")

        page.route("**/result", refuse)
        draw(page, "a cat", state="fetching")
        # No pause between two of them is longer.
        for count in range(1, 8):
            until(page, lambda count=count: len(refused) >= count)
            page.wait_for_selector(".card.fetching")
            page.clock.fast_forward(5000)
        page.unroute("**/result")
        page.clock.fast_forward(5000)
        page.wait_for_selector(".card.done")
        assert len(kept_pictures(page)) == 1
    assert prompts(fake) == ["a cat"]


@pytest.mark.parametrize(
    ("address", "state"),
    [("**/v1/jobs/events*", "queued"), ("**/result", "fetching")],
)
def test_what_falls_silent_is_asked_for_again(fake, browser, address, state):
    with open_page(browser, fake) as page:
        page.clock.install()
        held, _ = hold(page, address, times=1)
        draw(page, "a cat", state=state)
        until(page, lambda: held)
        page.clock.fast_forward(31_000)
        page.wait_for_selector(".card.done")
    assert prompts(fake) == ["a cat"]


def test_a_result_behind_another_key_is_fetched_with_it(browser):
    with (
        run_api(app=FAKE, FLUX_API_KEYS=f"one:{KEY}") as fake,
        open_page(browser, fake.wait_ready(), refusals=True) as page,
    ):
        page.fill("#field-key", KEY)
        page.click("dialog .main")
        # Each time, also for a key that was refused and then taken.
        for count in (1, 2):
            draw(page, "pause=0.2", state="running")
            page.evaluate("sessionStorage.setItem('flux.key', 'sk-key-old')")
            page.wait_for_selector("dialog #field-key")
            page.fill("#field-key", KEY)
            page.click("dialog .main")
            page.wait_for_selector(SETTLED)
            assert page.locator(".card.done").count() == count


def test_a_server_that_is_silent_is_not_reachable(fake, browser):
    with open_page(browser, fake) as page:
        page.clock.install()
        page.reload()
        page.wait_for_selector(".status.good")
        held, _ = hold(page, "**/v1/status", times=1)
        page.clock.fast_forward(5000)
        until(page, lambda: held)
        page.clock.fast_forward(21_000)
        page.wait_for_selector(".status.bad >> text=Server not reachable")
        page.clock.fast_forward(2000)
        page.wait_for_selector(".status.good")


def test_a_picture_is_shown_before_the_server_has_told_what_it_has(fake, browser):
    with open_page(browser, fake) as page:
        draw(page, "a cat")
        held, go_on = hold(page, "**/v1/capabilities")
        page.reload()
        page.click(".strip .card")
        page.wait_for_selector(".picture img")
        page.click(MORE)
        page.keyboard.press("Escape")
        until(page, lambda: held)
        go_on()
        page.wait_for_selector(".options .choices", state="attached")
        assert page.locator("main.stage").count() == 1
        page.click(MORE)
        page.wait_for_selector(".menu-list >> text=Enlarge")


def test_inputs_stay_before_the_server_has_told_what_it_has(fake_multi, browser):
    with open_page(browser, fake_multi) as page:
        choose(page, make_png(), make_png((64, 64)))
        page.wait_for_selector(".input:nth-child(2)")
        held, go_on = hold(page, "**/v1/capabilities")
        page.reload()
        page.wait_for_selector(".input:nth-child(2)")
        until(page, lambda: held)
        choose(page, make_png((72, 72)))
        page.wait_for_selector(".input:nth-child(3)")
        go_on()
        page.wait_for_selector(".options .choices", state="attached")
        assert page.locator(".input").count() == 3


def test_nothing_is_missing_before_the_server_has_told_what_it_has(fake, browser):
    told = RECIPE | {"loras": [{"name": "ink", "adapter_weight": 1}]}
    with open_page(browser, fake) as page:
        held, go_on = hold(page, "**/v1/capabilities")
        page.reload()
        until(page, lambda: held)
        choose(page, marked(told))
        page.wait_for_selector(".notice >> text=carries its settings")
        assert "on this server" not in page.inner_text(".notice")
        go_on()
        page.wait_for_selector(".options .choices", state="attached")


def test_a_lora_that_is_added_appears(browser, tmp_path):
    weights = {"a.lora_A.weight": np.zeros((4, 8), "float32")}
    save_file(weights, tmp_path / "ink.safetensors")
    with (
        run_api(app=FAKE, FLUX_LORA_DIR=tmp_path) as fake,
        open_page(browser, fake.wait_ready()) as page,
    ):
        page.clock.install()
        page.reload()
        choice = "[name=lora] option[value={}]"
        page.wait_for_selector(choice.format("ink"), state="attached")
        save_file(weights, tmp_path / "clay.safetensors")
        page.clock.fast_forward(15_000)
        page.wait_for_selector(choice.format("clay"), state="attached")


def test_a_key_that_is_no_longer_known_is_asked_for_once(browser):
    refused = []
    with (
        run_api(app=FAKE, FLUX_API_KEYS=f"one:{KEY}") as fake,
        open_page(browser, fake.wait_ready(), refusals=True) as page,
    ):
        page.fill("#field-key", KEY)
        page.click("dialog .main")
        draw(page, "hold", state="running")
        page.evaluate("sessionStorage.setItem('flux.key', 'sk-key-old')")
        page.clock.install()
        page.reload()
        page.wait_for_selector("dialog .wrong >> text=The key is not right")
        page.keyboard.press("Escape")
        page.wait_for_selector("dialog", state="detached")
        page.on("response", lambda told: told.status == 401 and refused.append(told))
        for count in (1, 2):
            page.clock.fast_forward(2000)
            until(page, lambda count=count: len(refused) >= count)
        # Who has closed it does not want to be asked again.
        assert page.locator("dialog").count() == 0
        page.click(".tools [aria-label='API key']")
        page.fill("#field-key", KEY)
        page.click("dialog .main")
        page.wait_for_selector("dialog", state="detached")
        own = {"Authorization": f"Bearer {KEY}"}
        requests.post(f"{fake.url}/fake/release", headers=own, timeout=10)
        page.clock.fast_forward(2000)
        page.wait_for_selector(".card.done")
        assert page.locator(".card").count() == 1


def test_a_key_is_not_asked_for_over_a_mask(fake, browser):
    with open_page(browser, fake, refusals=True) as page:
        choose(page, make_png())
        page.wait_for_selector(".input")
        held, _ = hold(page, "**/v1/images/edits")
        draw(page, "make it blue", state="sending")
        page.click("text=Paint a mask")
        stroke(page, (0.3, 0.3), (0.7, 0.6))
        until(page, lambda: held)
        error = {"code": "invalid_api_key", "message": "no"}
        held[0].fulfill(status=401, json={"error": error})
        page.wait_for_selector(".card.failed")
        page.wait_for_selector("dialog.mask [aria-label=Undo]:not(:disabled)")
        page.click("dialog >> text=Done")
        page.wait_for_selector(".input .veil")


def begin_nine(page):
    """Ask for one more than a page sends at once: the last waits in it."""
    page.check("[name=count] >> nth=3", force=True)
    page.fill("#field-width", "64")
    page.fill("#field-height", "64")
    page.fill("#prompt", "hold")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".strip li:nth-child(8)")
    page.check("[name=count] >> nth=0", force=True)
    draw(page, "the ninth", state="local")
    wait_for(lambda: page.evaluate(PENDING) == [False] + [True] * 8, 20)


def open_tab(page, server):
    """Another tab of the same browser, in which the ninth waits too."""
    other = page.context.new_page()
    other.goto(f"{server.url}/")
    other.wait_for_selector(".status.busy")
    other.wait_for_selector(".strip li:first-child .card.local")
    return other


def test_what_is_stopped_in_one_tab_is_not_drawn_by_another(fake, browser):
    with open_page(browser, fake) as page:
        begin_nine(page)
        other = open_tab(page, fake)
        page.click(".progress .stop")
        page.wait_for_selector(".strip li:first-child .card.stopped")
        wait_for(lambda: page.evaluate(PENDING) == [True] * 8, 20)
        release(fake)
        other.wait_for_selector(SETTLED)
        assert other.locator(".card").count() == 8
    assert prompts(fake) == ["hold"] * 8


def test_what_one_tab_has_drawn_is_not_drawn_by_another(fake, browser):
    with open_page(browser, fake) as page:
        begin_nine(page)
        other = open_tab(page, fake)
        # It has no room for the ninth until the first tab has drawn it.
        held, go_on = hold(other, "**/result")
        release(fake)
        page.wait_for_selector(SETTLED)
        until(other, lambda: len({route.request.url for route in held}) == 8)
        wait_for(lambda: page.evaluate(PENDING) == [], 20)
        go_on()
        other.wait_for_selector(SETTLED)
        assert other.locator(".card").count() == 9
    assert sorted(prompts(fake)) == ["hold"] * 8 + ["the ninth"]
