"""/docs in a real browser: it shows every operation, and each can be tried."""

from __future__ import annotations

import contextlib
import json
import re

import pytest
import requests

from flux_api.blueprints.description.operations import EXAMPLE_JOB
from tests.support.browser import axe_findings
from tests.support.pictures import make_png
from tests.support.servers import ROOT, run_api, wait_for

KEY = "sk-key-of-alice"
FAKE = "tests.support.fake_app:app"


@contextlib.contextmanager
def open_docs(browser, server, path="/docs", **context):
    """The page; at the end nothing is on its console, and nobody else was asked."""
    context = {"viewport": {"width": 1280, "height": 900}} | context
    with contextlib.closing(browser.new_context(**context)) as fresh:
        page = fresh.new_page()
        page.set_default_timeout(60_000)
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(server.url + path)
        page.wait_for_selector("article")
        yield page
        elsewhere = [u for u in asked if not u.startswith((server.url, "blob:"))]
        assert elsewhere == []
        # Chromium writes a line for every refusal, which tests provoke.
        assert [
            m for m in said if "the server responded with a status of 4" not in m
        ] == []


@pytest.fixture(scope="module")
def server():
    """The scripted backend behind a key."""
    with run_api(app=FAKE, FLUX_API_KEYS=f"alice:{KEY}") as running:
        running.wait_ready()
        form = {"prompt": "a cat", "size": "64x64", "job_id": EXAMPLE_JOB}
        auth = {"Authorization": f"Bearer {KEY}"}
        url = f"{running.url}/process"
        assert requests.post(url, data=form, headers=auth, timeout=10).ok
        yield running


def attempt(page, name):
    """The form of an operation, unfolded."""
    article = page.locator(f"article#{name}")
    article.locator("summary", has_text="Try it").click()
    return article.locator("form")


def send(form):
    """Send it; the status that came."""
    form.get_by_role("button", name="Send").click()
    form.locator(".answer .status").wait_for()
    form.get_by_role("button", name="Stop").wait_for(state="detached")
    return form.locator(".answer .status").inner_text()


def test_every_address_and_parameter_is_shown(browser, server):
    document = requests.get(f"{server.url}/openapi.json", timeout=10).json()
    with open_docs(browser, server) as page:
        text = page.locator("main").inner_text()
        for path in document["paths"]:
            assert path in text
        names = page.locator("nav a").count()
        assert names == page.locator("article").count() > 15
        article = page.locator("article#post_v1_images_edits")
        article.locator("summary", has_text="What it takes").click()
        said = article.inner_text()
        for word in (
            "output_compression",
            "needed",
            "invalid_image_file",
            "507",
            "2048",
        ):
            assert (word in said) == (word != "2048"), word
        assert article.locator("tbody th", has_text="job_id").count() == 1


def test_without_a_key_one_is_told_so_and_with_it_a_picture_comes(browser, server):
    with open_docs(browser, server) as page:
        form = attempt(page, "post_process_raw")
        assert send(form) == "401"
        assert "You did not provide an API key" in form.inner_text()
        page.fill("#key", KEY)
        assert send(form) == "200"
        size = "image => image.decode().then(() => image.naturalWidth)"
        assert form.locator(".answer img").evaluate(size) == 256


def test_files_lists_and_long_answers(browser, server, tmp_path):
    picture, other = tmp_path / "in.png", tmp_path / "other.png"
    for file in (picture, other):
        file.write_bytes(make_png())
    with open_docs(browser, server) as page:
        page.fill("#key", KEY)
        form = attempt(page, "post_v1_images_edits")
        form.locator("input[name=image]").set_input_files([picture, other])
        form.locator("input[name=prompt]").fill("make it green")
        assert send(form) == "400"
        assert "but got 2" in form.inner_text()
        form.locator("input[name=image]").set_input_files(picture)
        form.locator("summary", has_text="More fields").click()
        form.locator("input[name=loras]").fill("no-such:0.5")
        assert send(form) == "400"
        assert "no-such" in form.locator("pre").first.inner_text()
        form.locator("input[name=loras]").fill("")
        form.locator("select[name=output_format]").select_option("webp")
        assert send(form) == "200"
        shown = form.locator("pre").first.inner_text()
        assert '"output_format": "webp"' in shown and len(shown) < 3000
        form.locator("select[name=Accept]").select_option("image/webp")
        assert send(form) == "200"
        assert form.locator(".answer img").count() == 1


def test_what_is_never_a_form_is_sent_as_json(browser, server):
    document = requests.get(f"{server.url}/openapi.json", timeout=10).json()
    bodies = document["components"]["requestBodies"]
    alone = {name for name, body in bodies.items() if len(body["content"]) == 1}
    names = [
        operation["operationId"]
        for methods in document["paths"].values()
        for operation in methods.values()
        if operation.get("requestBody", {}).get("$ref", "").split("/")[-1] in alone
    ]
    assert len(names) > 4
    with open_docs(browser, server) as page:
        page.fill("#key", KEY)
        for name in names:
            form = attempt(page, name)
            assert json.loads(form.locator("textarea").input_value()), name
            # As it stands there it works.
            assert send(form) == "200", name
        form = page.locator("article#post_sdapi_v1_txt2img form")
        form.locator("textarea").fill('{"prompt": "a cat", "steps": "many"}')
        assert send(form) == "422"
        article = page.locator("article#post_sdapi_v1_img2img")
        article.locator("summary", has_text="What it takes").click()
        for field in ("init_images", "mask", "distilled_cfg_scale"):
            named = article.locator("tbody th").get_by_text(field, exact=True)
            assert named.count() == 1


def test_streams_are_shown_as_they_come_and_can_be_stopped(browser, server):
    with open_docs(browser, server) as page:
        page.fill("#key", KEY)
        form = attempt(page, "post_v1_images_generations")
        form.locator("input[name=prompt]").fill("hold")
        form.locator("input[name=n]").fill("1")
        form.locator("summary", has_text="More fields").click()
        form.locator("select[name=stream]").select_option("true")
        form.get_by_role("button", name="Send").click()
        form.locator("pre", has_text="started").wait_for()
        form.get_by_role("button", name="Stop").click()
        form.locator(".problem", has_text="Stopped").wait_for()

    def idle():
        return requests.get(f"{server.url}/v1/status", timeout=5).json()["running"] == 0

    wait_for(idle, 10, server)


def test_addresses_and_queries(browser, server):
    with open_docs(browser, server) as page:
        page.fill("#key", KEY)
        form = attempt(page, "get_jobs_job_id_events")
        assert form.locator("input[name=job_id]").input_value() == EXAMPLE_JOB
        assert send(form) == "200"
        assert "event: done" in form.locator("pre").first.inner_text()
        form = attempt(page, "get_jobs")
        form.locator("input[name=limit]").fill("0")
        assert send(form) == "400"


def test_a_link_leads_to_its_operation(browser, server):
    with open_docs(browser, server, "/docs#get_v1_status") as page:
        article = page.locator("article#get_v1_status")
        top = "element => element.getBoundingClientRect().top"
        wait_for(lambda: 0 <= article.evaluate(top) < 700, 5)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_is_readable_everywhere(browser, server, scheme, width):
    view = {"width": width, "height": 844}
    with open_docs(browser, server, color_scheme=scheme, viewport=view) as page:
        page.fill("#key", KEY)
        form = attempt(page, "post_process")
        send(form)
        page.locator("article#post_process summary", has_text="What it takes").click()
        assert axe_findings(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_every_japanese_text_is_of_an_english_one_that_is_there(server):
    words = ROOT / "flux_api" / "page" / "docs" / "ja.js"
    texts = re.findall(r'^  ("(?:[^"\\]|\\.)*"):', words.read_text("utf-8"), re.M)
    assert len(texts) > 150 and len(texts) == len(set(texts))
    document = requests.get(f"{server.url}/openapi.json", timeout=10).text
    others = [one.read_text("utf-8") for one in words.parent.iterdir() if one != words]
    there = re.sub(r"(\s|\\n)+", " ", document + "".join(others))
    assert [text for text in texts if text[1:-1] not in there] == []


def test_a_japanese_browser_reads_japanese_and_may_switch(browser, server):
    """Every sentence of the description is there in Japanese."""
    with open_docs(browser, server, locale="ja-JP") as page:
        assert page.locator("html").get_attribute("lang") == "ja"
        unfold = (
            "document.querySelectorAll('article details').forEach(d => d.open = true)"
        )
        page.evaluate(unfold)
        page.locator("article form").last.wait_for()
        said = "h2, caption, .codes li, td > p:not(.note), article > p:not(.note)"
        said += ", .shape .note"
        texts = page.locator(said).all_inner_texts()
        texts += page.locator("main > p, summary:not(.shape summary)").all_inner_texts()
        assert len(texts) > 300
        english = [text for text in texts if not re.search(r"[ぁ-ヿ一-龯]", text)]
        assert not set(english)
        bounds = " ".join(page.locator("td > p.note").all_inner_texts())
        assert "〜" in bounds and not re.search(r"\b(to|at most|default)\b", bounds)
        assert axe_findings(page) == []
        page.get_by_role("button", name="English").click()
        page.locator("h2", has_text="Health and numbers").first.wait_for()
        assert page.locator("html").get_attribute("lang") == "en"
        page.reload()
        page.locator("summary", has_text="Try it").first.wait_for()
