"""How the page's files are served: policy, revalidation, nothing beside them."""

from __future__ import annotations

import re

import pytest
import requests

from flux_api.blueprints.page import FILES, PAGE
from tests.support.servers import run_api

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture(scope="module")
def keyed():
    """A server that asks for a key."""
    keys = {"FLUX_API_KEYS": "one:sk-key-one"}
    with run_api(app="tests.support.fake_app:app", **keys) as server:
        yield server.wait_ready()


def test_browsers_get_the_page_and_programs_json(keyed):
    page = requests.get(keyed.url, headers=BROWSER, timeout=10)
    assert page.headers["Content-Type"].startswith("text/html")
    assert '<div id="app">' in page.text
    for accept in ("*/*", "application/json", "text/html;q=0.1,application/json"):
        answer = requests.get(keyed.url, headers={"Accept": accept}, timeout=10)
        assert answer.json()["name"] == "Flux Imaging API"
    assert "Accept" in page.headers["Vary"] and "Accept" in answer.headers["Vary"]


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_file_is_open_sealed_and_asked_for_anew(keyed, name):
    url = f"{keyed.url}/page/{name}"
    answer = requests.get(url, timeout=10)
    assert answer.content == (PAGE / name).read_bytes()
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-cache"
    kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    kind = kinds.get((PAGE / name).suffix)
    assert kind is None or answer.headers["Content-Type"].startswith(kind)
    known = {"If-None-Match": answer.headers["ETag"]}
    assert requests.get(url, headers=known, timeout=10).status_code == 304


@pytest.mark.parametrize("name", ["", "none.js", "../errors.py", "%2e%2e/errors.py"])
def test_there_is_nothing_beside_them(keyed, name):
    session = requests.Session()
    request = requests.Request("GET", f"{keyed.url}/page/x").prepare()
    request.url = f"{keyed.url}/page/{name}"
    answer = session.send(request, timeout=10)
    session.close()
    assert answer.status_code == 404
    assert "class FluxError" not in answer.text


def test_every_module_is_used():
    seen, left = set(), ["main.js"]
    while left:
        name = left.pop()
        seen.add(name)
        text = (PAGE / name).read_text("utf-8")
        found = re.findall(r"""from "\./([\w/.-]+)";""", text)
        left += [other for other in found if other not in seen]
    modules = {path.name for path in PAGE.glob("*.js")}
    assert seen == modules | {"vendor/htm-preact.js"}


def test_nothing_is_loaded_from_elsewhere():
    for name, path in FILES.items():
        if path.suffix in (".js", ".css", ".html") and "vendor" not in name:
            text = path.read_text("utf-8")
            assert not re.search(r"""(?:src|href|import|url\()[\s=("']*https?:""", text)
            assert ' style="' not in text and "innerHTML" not in text, name
