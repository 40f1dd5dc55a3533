"""Pictures as input: modes, masks, several references, and what the result offers."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from tests.support.browser import draw, kept_pictures, open_page
from tests.support.pictures import make_png, save
from tests.support.servers import run_api
from tests.support.wire import stats

MORE = ".actions .menu:last-child > .button"


def choose(page, *files):
    """Add pictures by the form's file field."""
    page.set_input_files(
        ".bar input[type=file]",
        [
            {"name": f"{n}.png", "mimeType": "image/png", "buffer": data}
            for n, data in enumerate(files)
        ],
    )


def stroke(page, start, end):
    """Paint in the mask editor, from and to in shares of the picture."""
    page.wait_for_selector(".world[style*=scale] img")
    box = page.locator(".world img").bounding_box()
    points = [
        (box["x"] + box["width"] * x, box["y"] + box["height"] * y)
        for x, y in (start, end)
    ]
    page.mouse.move(*points[0])
    page.mouse.down()
    page.mouse.move(*points[1], steps=8)
    page.mouse.up()


def downloaded(page, button):
    """The picture that is saved where ``button`` is pressed."""
    with page.expect_download() as waiting:
        page.click(button)
    return Image.open(io.BytesIO(Path(waiting.value.path()).read_bytes()))


def pixels(data):
    """The picture as numbers."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def test_what_is_painted_changes_and_nothing_else(api, browser):
    with open_page(browser, api) as page:
        draw(page, "a rocket")
        page.click("text=Use as input")
        page.wait_for_selector(".input")
        assert page.input_value("#prompt") == ""
        page.wait_for_selector(".main >> text=Vary")
        page.click("text=Paint a mask")
        stroke(page, (0.3, 0.3), (0.7, 0.35))
        stroke(page, (0.1, 0.8), (0.3, 0.9))
        page.keyboard.press("Control+z")
        page.click("dialog >> text=Done")
        page.wait_for_selector(".input .veil")
        page.wait_for_selector("text=Repaints the painted area.")
        draw(page, "a red heart")
        page.wait_for_selector(".main >> text=Repaint")
        edited, original = kept_pictures(page)
        page.click("text=Original")
        page.wait_for_selector(".original[aria-pressed=true]")
    mask = np.asarray(Image.open(io.BytesIO(edited["mask"])))[..., 3]
    assert mask.shape == (512, 512)
    inside = mask == 0
    assert 0.02 < inside.mean() < 0.2
    # The undone stroke is not in it.
    assert not inside[400:480, 60:120].any()
    changed = (pixels(edited["blob"]) != pixels(original["blob"])).any(axis=2)
    assert not changed[mask == 255].any()
    assert changed[inside].mean() > 0.5


def test_the_mode_follows_from_what_is_there(fake, browser, png):
    with open_page(browser, fake) as page:
        choose(page, png)
        page.wait_for_selector("text=Draws another picture like yours.")
        page.keyboard.press("Control+Enter")
        page.wait_for_selector(".card.done")
        assert stats(fake)["requests"][-1]["mode"] == "variation"
        draw(page, "make it blue")
        assert stats(fake)["requests"][-1]["mode"] == "edit"
        assert stats(fake)["requests"][-1]["images"] == [[96, 64]]
        page.click(".input .remove")
        page.wait_for_selector("text=Draws a new picture from your words.")


def test_pictures_are_dropped_and_pasted(fake, browser, png):
    script = """([type, data]) => {
        const file = new File([new Uint8Array(data)], "a.png", { type: "image/png" });
        const carried = new DataTransfer();
        carried.items.add(file);
        const init = { bubbles: true, cancelable: true };
        const event = type === "paste"
          ? new ClipboardEvent(type, { ...init, clipboardData: carried })
          : new DragEvent(type, { ...init, dataTransfer: carried });
        document.body.dispatchEvent(event);
    }"""
    with open_page(browser, fake) as page:
        page.evaluate(script, ["dragenter", list(png)])
        page.wait_for_selector("text=Drop it here to change it")
        page.evaluate(script, ["drop", list(png)])
        page.wait_for_selector(".input")
        page.wait_for_selector(".drop", state="detached")
        page.click(".input .remove")
        page.evaluate(script, ["paste", list(png)])
        page.wait_for_selector(".input")
        choose(page, b"no picture")
        page.wait_for_selector(".notice >> text=cannot be read: it may be damaged")


def add(page, **files):
    """Add files by name, ``_`` for the dot, of the type that a browser would give."""
    types = {"tif": "image/tiff", "md": "text/markdown", "png": "image/png"}
    page.set_input_files(
        ".bar input[type=file]",
        [
            {
                "name": name.replace("_", "."),
                "mimeType": types[name.rpartition("_")[2]],
                "buffer": data,
            }
            for name, data in files.items()
        ],
    )


def test_a_model_of_one_picture_says_what_became_of_the_others(fake, browser, png):
    with open_page(browser, fake) as page:
        add(page, one_png=png, two_png=make_png(size=(64, 64)))
        page.wait_for_selector(".notice >> text=only “one.png” was added")
        assert page.locator(".input").count() == 1
        add(page, three_png=make_png(size=(64, 64)))
        page.wait_for_selector(".notice >> text=taken the place of the one before")
        page.click(".notice >> text=Undo")
        draw(page, "make it blue")
    assert stats(fake)["requests"][-1]["images"] == [[96, 64]]


def test_what_is_no_picture_is_named(fake, browser, png):
    with open_page(browser, fake) as page:
        add(page, README_md=b"# Read me", one_png=png)
        page.wait_for_selector(".notice >> text=“README.md” is not a picture")
        assert page.locator(".input").count() == 1


def test_what_the_browser_cannot_show_is_sent_all_the_same(fake, browser):
    with open_page(browser, fake) as page:
        add(page, scan_tif=save(Image.new("RGB", (64, 96), "red"), "TIFF"))
        page.wait_for_selector(".notice >> text=cannot show “scan.tif”")
        page.wait_for_selector(".input >> text=scan.tif")
        assert page.locator("text=Paint a mask").count() == 0
        draw(page, "make it blue")
        assert page.locator("text=Original").count() == 0
        page.wait_for_selector(".facts >> text=64 × 96")
    assert stats(fake)["requests"][-1]["images"] == [[64, 96]]


def test_references_are_sent_in_their_order(fake_multi, browser):
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    files = []
    for colour in colours:
        files.append(save(Image.new("RGB", (64, 64), colour)))
    with open_page(browser, fake_multi) as page:
        for file in files:
            choose(page, file)
        page.wait_for_selector("text=Uses your 3 pictures, in this order.")
        page.click(".input:nth-child(3) .order")
        draw(page, "all of them")
    corners = stats(fake_multi)["requests"][-1]["corners"]
    assert [tuple(corner) for corner in corners] == [colours[2], *colours[:2]]


def test_a_mask_is_for_as_many_pictures_as_the_model_takes_with_one(browser, png):
    app = "tests.support.fake_app:app"
    with (
        run_api(app=app, FLUX_MODELS="klein-4b") as server,
        open_page(browser, server.wait_ready()) as page,
    ):
        choose(page, png)
        page.click("text=Paint a mask")
        stroke(page, (0.3, 0.3), (0.7, 0.6))
        page.click("dialog >> text=Done")
        page.wait_for_selector(".input .veil")
        choose(page, png)
        page.wait_for_selector(".input:nth-child(2)")
        page.fill("#prompt", "a cat")
        page.keyboard.press("Control+Enter")
        page.wait_for_selector(".notice >> text=With a mask this model takes 1 picture")
        page.click("text=Change the mask")
        page.click("dialog >> text=No mask")
        page.wait_for_selector("text=Change the mask", state="detached")
        assert page.locator("text=Paint a mask").count() == 0
        draw(page, "both of them")
        assert len(stats(server)["requests"][-1]["images"]) == 2


def test_masks_are_loaded_saved_inverted_and_kept(fake, browser):
    buffer = io.BytesIO()
    half = Image.new("L", (96, 64))
    half.paste(255, (0, 0, 48, 64))
    half.save(buffer, "PNG")
    with open_page(browser, fake) as page:
        choose(page, make_png())
        page.click("text=Paint a mask")
        page.set_input_files(
            "dialog input[type=file]",
            {"name": "m.png", "mimeType": "image/png", "buffer": buffer.getvalue()},
        )
        page.wait_for_selector("[aria-label=Undo]:not(:disabled)")
        page.click("[aria-label=Invert]")
        alpha = downloaded(page, "[aria-label='Save the mask']").getchannel("A")
        assert alpha.crop((0, 0, 47, 64)).getextrema() == (255, 255)
        assert alpha.crop((49, 0, 96, 64)).getextrema() == (0, 0)
        page.keyboard.press("Control+z")
        page.keyboard.press("Control+Shift+z")
        page.click("dialog >> text=Done")
        page.wait_for_selector(".input .veil")
        # Kept when the prompt changes, and over a reload, with its strokes.
        page.fill("#prompt", "something else")
        page.reload()
        page.wait_for_selector(".input .veil")
        page.click("text=Change the mask")
        page.wait_for_selector("[aria-label=Undo]:not(:disabled)")
        page.click("dialog >> text=No mask")
        page.wait_for_selector(".input .veil", state="detached")


def test_the_tools_of_the_mask_do_as_they_say(fake, browser):
    with open_page(browser, fake) as page:
        choose(page, make_png())
        page.click("text=Paint a mask")

        def painted():
            """The share of the picture that would be repainted."""
            mask = downloaded(page, "[aria-label='Save the mask']").getchannel("A")
            # A stroke drawn in one has other edges than one drawn as it came.
            return round((np.asarray(mask) < 128).mean(), 2)

        def view():
            return page.locator(".world").evaluate("it => it.style.transform")

        page.locator(".brush-size").fill("8")
        stroke(page, (0.1, 0.5), (0.9, 0.5))
        narrow = painted()
        page.locator(".brush-size").fill("30")
        stroke(page, (0.1, 0.5), (0.9, 0.5))
        wide = painted()
        assert 0 < 2 * narrow < wide
        page.click("[aria-label^=Eraser]")
        stroke(page, (0.5, 0.5), (0.9, 0.5))
        erased = painted()
        assert narrow < erased < 0.8 * wide
        page.click("[aria-label=Undo]")
        assert painted() == wide
        page.click("[aria-label=Redo]")
        assert painted() == erased
        fitted = view()
        page.hover(".mask-view")
        page.mouse.wheel(0, -200)
        page.wait_for_function(
            "it => it !== document.querySelector('.world').style.transform", arg=fitted
        )
        zoomed = view()
        assert zoomed.partition("scale")[2] != fitted.partition("scale")[2]
        # Moved, not painted.
        page.focus(".mask-view")
        page.keyboard.down(" ")
        stroke(page, (0.5, 0.5), (0.6, 0.6))
        page.keyboard.up(" ")
        assert view() != zoomed and painted() == erased
        page.click("[aria-label='Show all']")
        assert view() == fitted


def test_what_becomes_of_a_file_in_the_mask_editor_is_told(fake, browser):
    drop = """([data, type]) => {
        const file = new File([new Uint8Array(data)], "m.png", { type });
        const carried = new DataTransfer();
        carried.items.add(file);
        const init = { bubbles: true, cancelable: true, dataTransfer: carried };
        const place = document.querySelector("dialog .mask-view");
        place.dispatchEvent(new DragEvent("drop", init));
    }"""
    with open_page(browser, fake) as page:
        choose(page, make_png((96, 64)))
        page.click("text=Paint a mask")
        page.evaluate(drop, [list(b"# no picture"), "image/png"])
        page.wait_for_selector("dialog .notice >> text=“m.png” is not a picture")
        # A notice behind the dialog could be neither seen nor closed.
        page.click("dialog .notice [aria-label=Close]")
        page.evaluate(drop, [list(make_png((64, 96))), "image/png"])
        page.wait_for_selector("dialog .notice >> text=its picture, 96 × 64")
        assert page.locator("[aria-label=Undo]:disabled").count() == 1
        page.evaluate(drop, [list(make_png((48, 32))), "image/png"])
        page.wait_for_selector("[aria-label=Undo]:not(:disabled)")
        page.click("dialog >> text=Done")
        draw(page, "x")
    [request] = stats(fake)["requests"]
    assert request["images"] == [[96, 64]]


def test_a_mask_of_nothing_is_none(fake, browser):
    with open_page(browser, fake) as page:
        choose(page, make_png())
        page.click("text=Paint a mask")
        stroke(page, (0.3, 0.3), (0.7, 0.6))
        page.click("dialog [aria-label=Clear]")
        page.click("dialog >> text=Done")
        page.wait_for_selector(".notice >> text=Nothing is painted")
        page.wait_for_selector("text=Draws another picture like yours.")
        assert page.locator(".veil").count() == 0


def test_a_mask_can_be_painted_without_a_mouse(fake, browser):
    with open_page(browser, fake) as page:
        choose(page, make_png())
        page.click("text=Paint a mask")
        page.focus(".mask-view")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        page.keyboard.press("e")
        page.wait_for_selector("[aria-label^=Eraser][aria-pressed=true]")
        page.keyboard.press("b")
        page.click("dialog >> text=Done")
        draw(page, "x")
    assert stats(fake)["requests"][-1]["mask"] == [0, 255]


def test_painting_is_quick_on_four_megapixels(fake, browser):
    with open_page(browser, fake) as page:
        choose(page, save(Image.new("RGB", (2048, 2048), (90, 120, 90))))
        page.click("text=Paint a mask")
        # No pixel is read back, whatever is painted or undone.
        page.evaluate(
            """() => {
            window.reads = 0;
            const read = CanvasRenderingContext2D.prototype.getImageData;
            CanvasRenderingContext2D.prototype.getImageData = function (...args) {
                window.reads += 1;
                return read.apply(this, args);
            };
        }"""
        )
        for row in range(4):
            stroke(page, (0.1, 0.2 * row + 0.1), (0.9, 0.2 * row + 0.1))
        page.keyboard.press("Control+z")
        assert page.evaluate("() => window.reads") == 0
        page.click("dialog >> text=Done")
        page.wait_for_selector(".input .veil")


def test_what_a_result_offers(fake, browser):
    with open_page(browser, fake) as page:
        page.click(".settings summary")
        page.fill("#field-seed", "20")
        page.fill("#field-width", "64")
        page.fill("#field-height", "64")
        draw(page, "a cat")

        def made(button, count):
            page.click(button)
            page.wait_for_selector(f".strip li:nth-child({count})")
            page.wait_for_selector(".strip:not(:has(.card:not(.done)))")
            return stats(fake)["requests"][-1]

        page.click(MORE)
        assert made(".menu-list >> text=Seed + 1", 2)["seed"] == 21
        page.click(MORE)
        larger = made(".menu-list >> text=Enlarge 2×", 3)
        assert (larger["mode"], larger["size"]) == ("upscale", [128, 128])
        page.click(".strip li:nth-child(3) .card")
        again = made(".actions >> text=Again", 4)
        assert again["prompt"] == "a cat" and again["seed"] != 21
        assert made(".actions >> text=Vary", 5)["mode"] == "variation"
        for name in ("PNG", "JPEG", "WEBP"):
            page.click(".actions >> text=Download")
            assert downloaded(page, f".menu-list >> text={name}").format == name
        page.click(MORE)
        page.click(".menu-list >> text=Use this seed")
        seed = page.input_value("#field-seed")
        assert f"Seed {seed}" in page.inner_text(".facts").splitlines()
        page.click(".strip li:nth-child(5) .card")
        page.click(MORE)
        page.click(".menu-list >> text=Restore its settings")
        assert page.input_value("#prompt") == "a cat"
        assert page.input_value("#field-seed") == "20"
        page.click(MORE)
        page.click(".menu-list >> text=Compare settings")
        page.wait_for_selector("dialog.compare")
        page.keyboard.press("Escape")
        page.click(".strip li:nth-child(1) .card")
        page.click(MORE)
        page.click(".menu-list >> text=Delete")
        page.wait_for_selector(".strip li:nth-child(5)", state="detached")
        page.click(".notice >> text=Undo")
        page.wait_for_selector(".strip li:nth-child(5)")
        page.click(".enlarge", force=True)
        page.wait_for_selector("dialog.view img")
        page.keyboard.press("ArrowRight")
        page.wait_for_selector(".strip li:nth-child(2) [aria-current]")


def test_links_are_of_stored_pictures(files, browser):
    app = "tests.support.fake_app:app"
    with run_api(app=app, FILE_SERVER=files.url) as server:
        server.wait_ready()
        with open_page(browser, server) as page:
            draw(page, "a cat")
            [kept] = kept_pictures(page)
            assert kept["url"].startswith(files.url)
            page.context.grant_permissions(["clipboard-read", "clipboard-write"])
            page.click(MORE)
            page.click(".menu-list >> text=Copy link")
            page.wait_for_selector(".notice >> text=Copied.")
            assert page.evaluate("() => navigator.clipboard.readText()") == kept["url"]


def draw_sheet(page, *axes):
    """Four pictures, over two settings with two values each."""
    page.fill("#field-width", "64")
    page.fill("#prompt", "a cat")
    page.click("text=Compare settings")
    for number, (setting, values) in enumerate(axes, start=1):
        page.select_option(f".axis:nth-child({number}) select", setting)
        page.fill(f".axis:nth-child({number}) input", values)
    page.click("text=Draw 4 pictures")
    page.wait_for_selector("text=Download the sheet")


def test_a_sheet_over_two_settings(fake, browser):
    with open_page(browser, fake) as page:
        draw_sheet(page, ("seed", "1, 2"), ("steps", "3, 4"))
        assert downloaded(page, "text=Download the sheet").width > 128
    made = stats(fake)["requests"]
    asked = {(one["seed"], one["num_inference_steps"]) for one in made}
    assert asked == {(1, 3), (1, 4), (2, 3), (2, 4)}


def test_a_sheet_over_loras_and_guidance(browser, tmp_path):
    weights = {"a.lora_A.weight": np.zeros((4, 8), "float32")}
    save_file(weights, tmp_path / "ink.safetensors")
    app = "tests.support.fake_app:app"
    with (
        run_api(app=app, FLUX_LORA_DIR=tmp_path) as server,
        open_page(browser, server.wait_ready()) as page,
    ):
        page.click(".settings summary")
        page.select_option("[name=lora]", "ink")
        draw_sheet(page, ("lora ink", "0.25, 0.5"), ("guidance", "1, 2.5"))
        made = stats(server)["requests"]
    asked = {(one["guidance_scale"], *one["loras"][0]) for one in made}
    assert asked == {(g, "ink", w) for g in (1, 2.5) for w in (0.25, 0.5)}
    assert len({one["seed"] for one in made}) == 1
