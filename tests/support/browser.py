"""The page in a real Chromium without a window, and what must never be seen there."""

from __future__ import annotations

import base64
import contextlib
import re

from playwright.sync_api import sync_playwright

from tests.support.node_client import FOLDER, install
from tests.support.programs import need

# Chromium writes a line for every 4xx and broken connection; tests that provoke one
# expect it.
REFUSED = re.compile(
    r"the server responded with a status of (4\d\d|503)"
    r"|net::ERR_(CONNECTION_REFUSED|CONNECTION_RESET|EMPTY_RESPONSE|INCOMPLETE_CHUNKED)"
)


@contextlib.contextmanager
def run_browser():
    """Debian's Chromium."""
    path = need("chromium-headless-shell")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@contextlib.contextmanager
def open_page(browser, server, *, refusals=False, script="", **context):
    """The page of ``server`` in a browser that has never been there. At the end: no
    error, nothing on the console (but ``refusals``, where they are provoked), and no
    request to anybody else."""
    context = {"locale": "en-US", "viewport": {"width": 1280, "height": 800}} | context
    with contextlib.closing(browser.new_context(**context)) as fresh:
        page = fresh.new_page()
        page.add_init_script(script)
        page.set_default_timeout(60_000)
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{server.url}/")
        try:
            page.wait_for_selector(".options .choices", state="attached")
            yield page
        except Exception as error:
            error.add_note(f"console: {said}\npage: {page.inner_text('body')}")
            raise
        elsewhere = [
            u for u in asked if not u.startswith((server.url, "blob:", "data:"))
        ]
        assert elsewhere == []
        assert [m for m in said if not (refusals and REFUSED.search(m))] == []


def draw(page, prompt, state="done"):
    """Ask for a picture of ``prompt`` and wait until it is in ``state``."""
    # What is filled in behind a dialog is lost without a word.
    page.wait_for_selector("dialog", state="detached")
    cards = page.locator(".card").count()
    page.fill("#prompt", prompt)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(f".strip li:nth-child({cards + 1})")
    page.wait_for_selector(f".strip li:first-child .card.{state}")


def kept_pictures(page):
    """What the browser keeps, the newest first: recipes, sizes, and bytes of files."""
    script = """async () => {
        const asked = indexedDB.open("flux-imaging");
        await new Promise((resolve) => { asked.onsuccess = resolve; });
        const store = asked.result.transaction("pictures").objectStore("pictures");
        const all = store.getAll();
        await new Promise((resolve) => { all.onsuccess = resolve; });
        asked.result.close();
        // Base64: an array of numbers takes many seconds on its way.
        const text = (blob) => new Promise((resolve) => {
            const reader = new FileReader();
            reader.onload = () => resolve(reader.result.split(",")[1] ?? "");
            reader.readAsDataURL(blob);
        });
        const told = all.result.map(async (kept) => ({
            ...kept, small: null, type: kept.blob.type, blob: await text(kept.blob),
            inputs: kept.inputs.length, mask: kept.mask && (await text(kept.mask.blob)),
        }));
        return (await Promise.all(told)).sort((a, b) => b.created - a.created);
    }"""
    pictures = page.evaluate(script)
    for picture in pictures:
        picture["blob"] = base64.b64decode(picture["blob"])
        picture["mask"] = picture["mask"] and base64.b64decode(picture["mask"])
    return pictures


def axe_findings(page):
    """What axe has to say against the page as it is: (rule, element) pairs."""
    install()
    page.evaluate((FOLDER / "node_modules/axe-core/axe.min.js").read_text("utf-8"))
    # What passes is not asked for: of a long page it takes a minute to hand over.
    script = """() => axe.run({ resultTypes: ["violations"] })
        .then((found) => found.violations)"""
    found = page.evaluate(script)
    return [
        (rule["id"], node["html"][:200], node.get("failureSummary"))
        for rule in found
        for node in rule["nodes"]
    ]
