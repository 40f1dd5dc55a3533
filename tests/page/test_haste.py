"""Hands that are faster than the page, menus on small screens, and keys in dialogs."""

from __future__ import annotations

import pytest
from PIL import Image

from tests.page.test_editing import MORE, choose, downloaded, stroke
from tests.support.browser import draw, kept_pictures, open_page
from tests.support.pictures import make_png, save
from tests.support.servers import run_api, wait_for
from tests.support.wire import release, stats

FAKE = "tests.support.fake_app:app"
SETTLED = ".strip:not(:has(.card:not(.done)))"
LONG = "海から見た夕暮れの灯台、小雨、フィルム写真、遠くに漁船が三隻浮かび、" * 3

# Nothing of the page runs between the two.
PASTE_AND_SEND = """(data) => {
  const carried = new DataTransfer();
  carried.items.add(new File([new Uint8Array(data)], "a.png", { type: "image/png" }));
  const usual = { bubbles: true, cancelable: true };
  const prompt = document.querySelector("#prompt");
  const paste = new ClipboardEvent("paste", { ...usual, clipboardData: carried });
  prompt.dispatchEvent(paste);
  const key = { ...usual, key: "Enter", ctrlKey: true };
  prompt.dispatchEvent(new KeyboardEvent("keydown", key));
}"""
COMPOSE = """() => {
  const key = { key: "Enter", ctrlKey: true, isComposing: true, bubbles: true };
  document.querySelector("#prompt").dispatchEvent(new KeyboardEvent("keydown", key));
}"""
# Whether the page has taken what is pasted into the prompt.
PASTE = """([data, kinds]) => {
  const carried = new DataTransfer();
  carried.items.add(new File([new Uint8Array(data)], "a.png", { type: "image/png" }));
  for (const kind of kinds) carried.setData(kind, "a.png");
  const usual = { bubbles: true, cancelable: true };
  const event = new ClipboardEvent("paste", { ...usual, clipboardData: carried });
  document.querySelector("#prompt").dispatchEvent(event);
  return event.defaultPrevented;
}"""
# The items of the open menu that nobody can press, even after scrolling to them.
OUT_OF_REACH = """() => [...document.querySelectorAll(".menu-list button")]
  .filter((button) => {
    button.scrollIntoView({ block: "nearest" });
    const { left, top, width, height } = button.getBoundingClientRect();
    return !button.contains(
      document.elementFromPoint(left + width / 2, top + height / 2));
  })
  .map((button) => button.innerText)"""
# Counts how often the bytes of a file are asked for.
COUNT_READS = """
window.reads = 0;
for (const name of ["arrayBuffer", "slice", "stream", "text"]) {
  const read = Blob.prototype[name];
  Blob.prototype[name] = function (...values) {
    if (this instanceof File) window.reads += 1;
    return read.apply(this, values);
  };
}"""
SPOKEN = "[...document.querySelectorAll('p.unseen[role=status]')].at(-1)"


def flat(size, color):
    """A file of one color."""
    return save(Image.new("RGB", size, color))


def test_a_picture_that_is_still_being_read_is_sent_along(fake, browser):
    with open_page(browser, fake) as page:
        page.fill("#prompt", "make it blue")
        page.evaluate(PASTE_AND_SEND, list(make_png()))
        page.wait_for_selector(".card.done")
    [request] = stats(fake)["requests"]
    assert (request["mode"], request["images"]) == ("edit", [[96, 64]])


def test_pictures_keep_the_order_they_were_added_in(fake_multi, browser):
    with open_page(browser, fake_multi) as page:
        # The large one takes much longer to read.
        choose(page, flat((3000, 2000), "red"))
        choose(page, flat((64, 64), "blue"))
        page.wait_for_selector(".input:nth-child(2)")
        draw(page, "put them together")
    assert stats(fake_multi)["requests"][-1]["corners"] == [[255, 0, 0], [0, 0, 255]]


def test_a_key_that_is_held_is_one_wish(fake, browser):
    with open_page(browser, fake) as page:
        page.fill("#prompt", "a cat")
        page.keyboard.down("Control")
        for _ in range(5):
            page.keyboard.down("Enter")
        page.keyboard.up("Enter")
        page.keyboard.up("Control")
        page.wait_for_selector(".card.done")
        page.wait_for_selector(SETTLED)
        assert page.locator(".card").count() == 1


def test_nothing_is_sent_while_a_word_is_composed(fake, browser):
    with open_page(browser, fake, locale="ja") as page:
        page.fill("#prompt", "灯台")
        page.evaluate(COMPOSE)
        draw(page, "灯台")
        assert page.locator(".card").count() == 1


def test_a_picture_beside_copied_text_is_left_out(fake, browser):
    with open_page(browser, fake) as page:
        data = list(make_png())
        assert not page.evaluate(PASTE, [data, ["text/plain", "text/html"]])
        # A file manager tells the name as text beside a file.
        assert page.evaluate(PASTE, [data, ["text/plain"]])
        page.wait_for_selector(".input")
        assert page.locator(".input").count() == 1
        page.wait_for_selector(".notice", state="detached")


def test_a_film_is_not_read(browser):
    film = {"name": "film.mp4", "mimeType": "video/mp4", "buffer": bytes(3 << 19)}
    with (
        run_api(app=FAKE, FLUX_MAX_UPLOAD_MB=1) as fake,
        open_page(browser, fake.wait_ready(), script=COUNT_READS) as page,
    ):
        page.set_input_files(".bar input[type=file]", [film])
        page.wait_for_selector(".notice >> text=“film.mp4” is too large to send")
        assert page.evaluate("window.reads") == 0
        choose(page, make_png())
        page.wait_for_selector(".input")
        assert page.evaluate("window.reads") > 0


@pytest.mark.parametrize("size", [(375, 667), (640, 400)], ids=str)
def test_every_item_of_a_menu_can_be_pressed(fake, browser, size):
    view = {"width": size[0], "height": size[1]}
    with open_page(browser, fake, locale="ja", viewport=view) as page:
        draw(page, LONG)
        for button in (".actions .menu > .button >> nth=0", MORE):
            page.click(button)
            assert page.locator(".menu-list button").count() > 2
            assert page.evaluate(OUT_OF_REACH) == []
            box = page.locator(".menu-list").bounding_box()
            assert min(box["x"], box["y"]) >= 0
            assert box["x"] + box["width"] <= size[0]
            assert box["y"] + box["height"] <= size[1]
            page.keyboard.press("Escape")


def test_a_mask_stays_with_its_picture(fake, browser):
    with open_page(browser, fake) as page:
        choose(page, flat((200, 200), "red"))
        page.wait_for_selector(".input")
        choose(page, flat((400, 304), "blue"))
        page.wait_for_selector(".notice >> text=Undo")
        page.click("text=Paint a mask")
        stroke(page, (0.3, 0.3), (0.7, 0.6))
        # The other one is the input again; what is painted belongs to this one.
        page.click("dialog .notice >> text=Undo")
        page.click("dialog >> text=Done")
        page.wait_for_selector(".input .veil")
        draw(page, "a hat")
    [request] = stats(fake)["requests"]
    assert (request["images"], request["mask"]) == ([[400, 304]], [0, 255])
    assert request["corners"] == [[0, 0, 255]]


def test_a_mask_can_be_painted_as_soon_as_it_is_open(fake, browser):
    with open_page(browser, fake) as page:
        choose(page, make_png())
        page.click("text=Paint a mask")
        page.wait_for_selector(".world[style*=scale] img")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        page.wait_for_selector("[aria-label=Undo]:not(:disabled)")


def test_the_space_bar_moves_whatever_has_the_focus(fake, browser):
    with open_page(browser, fake) as page:
        choose(page, make_png((400, 400)))
        page.click("text=Paint a mask")
        page.click("[aria-label=Invert]")
        page.hover(".mask-view")
        before = page.locator(".world").evaluate("it => it.style.transform")
        page.keyboard.down(" ")
        stroke(page, (0.5, 0.5), (0.6, 0.6))
        page.keyboard.up(" ")
        assert page.locator(".world").evaluate("it => it.style.transform") != before
        mask = downloaded(page, "[aria-label='Save the mask']").getchannel("A")
        # All of it, as it was inverted once and nothing was painted over.
        assert mask.getextrema() == (0, 0)
        page.click("[aria-label=Undo]")
        page.wait_for_selector("[aria-label=Undo]:disabled")


def test_the_focus_goes_back_to_where_it_was(fake, browser):
    with open_page(browser, fake) as page:
        opener = ".tools .button:first-child"
        page.focus(opener)
        page.keyboard.press("Enter")
        page.wait_for_selector("dialog[open]")
        page.click("dialog [aria-label=Close]")
        page.wait_for_selector("dialog", state="detached")
        page.wait_for_selector(f"{opener}:focus")


def test_after_a_mask_the_prompt_has_the_focus(fake, browser):
    with open_page(browser, fake) as page:
        choose(page, make_png())
        page.click("text=Paint a mask")
        stroke(page, (0.3, 0.3), (0.7, 0.6))
        page.click("dialog >> text=Done")
        page.wait_for_selector("dialog", state="detached")
        page.keyboard.type("a hat")
        assert page.input_value("#prompt") == "a hat"


def test_every_finished_picture_is_announced(fake, browser):
    with open_page(browser, fake) as page:
        draw(page, "a cat")
        assert page.evaluate(f"{SPOKEN}.textContent") == "A picture is finished."
        page.evaluate(f"() => {{ window.before = {SPOKEN}.firstChild; }}")
        draw(page, "a dog")
        assert page.evaluate(f"{SPOKEN}.textContent") == "A picture is finished."
        # The same words in the same place would not be read out again.
        assert page.evaluate(f"{SPOKEN}.firstChild !== window.before")


def test_what_is_under_way_stays_chosen_when_all_is_deleted(fake, browser):
    with open_page(browser, fake) as page:
        draw(page, "a cat")
        draw(page, "hold", state="running")
        page.click("text=History")
        page.click("text=Delete all")
        page.click("text=Really delete all")
        page.wait_for_selector(".card.done", state="detached")
        page.wait_for_selector(".card.running[aria-current=true]")
        page.wait_for_selector(".progress")
        release(fake)
        page.wait_for_selector(".actions")
        assert page.locator(".card.done").count() == 1


def test_what_was_refused_for_its_key_keeps_its_order(browser):
    with (
        run_api(app=FAKE, FLUX_API_KEYS="one:sk-key-one") as fake,
        open_page(browser, fake.wait_ready(), refusals=True) as page,
    ):
        page.wait_for_selector("dialog #field-key")
        page.keyboard.press("Escape")
        page.wait_for_selector("dialog", state="detached")
        page.check("[name=count] >> nth=2", force=True)
        page.click(".settings summary")
        page.fill("#field-seed", "7")
        page.fill("#prompt", "a cat")
        page.keyboard.press("Control+Enter")
        page.wait_for_selector(".strip li:nth-child(4)")
        page.wait_for_selector(".strip:not(:has(.card:not(.failed)))")
        page.fill("#field-key", "sk-key-one")
        page.click("dialog .main")
        page.wait_for_selector(SETTLED)
        assert [kept["recipe"]["seed"] for kept in kept_pictures(page)] == [7, 8, 9, 10]


def test_stop_sends_nothing_of_a_sheet_that_waits(fake, browser):
    posts = []
    with open_page(browser, fake) as page:
        page.on("request", lambda asked: asked.method == "POST" and posts.append(asked))
        page.fill("#prompt", "hold")
        page.click("text=Compare settings")
        page.fill(".axis:nth-child(1) input", "1 2 3 4 5 6 7 8 9 10")
        page.click("text=Draw 10 pictures")
        # All that a page sends at once; the last two wait in it.
        wait_for(lambda: stats(fake)["running"] + stats(fake)["queued"] == 8, 20)
        page.wait_for_selector(".cell.running")
        assert page.locator(".cell.local").count() == 2
        page.click("dialog .stop")
        page.wait_for_selector("table:not(:has(.cell:not(.stopped)))")
        wait_for(lambda: stats(fake)["running"] + stats(fake)["queued"] == 0, 20)
    assert len(posts) == 8
