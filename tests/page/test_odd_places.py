"""Browsers that keep nothing, fingers instead of a mouse, and a path of a proxy."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest
import requests

from tests.page.test_editing import choose, stroke
from tests.support.browser import draw, open_page
from tests.support.pictures import make_png
from tests.support.programs import need
from tests.support.servers import free_port, run, run_api, wait_for
from tests.support.wire import release, stats

NOTHING_KEPT = """
for (const name of ["indexedDB", "localStorage", "sessionStorage"]) {
  Object.defineProperty(window, name, { get() { throw new DOMException("no"); } });
}"""
DISK_FULL = """
const put = IDBObjectStore.prototype.put;
IDBObjectStore.prototype.put = function (...values) {
  if (this.name === "pictures") throw new DOMException("full", "QuotaExceededError");
  return put.apply(this, values);
};"""
SCALE = """() => Number(
  /scale\\((.*)\\)/.exec(document.querySelector(".world").style.transform)[1])"""


@contextlib.contextmanager
def below_a_path(folder, api):
    """nginx that has the API below /flux/, and takes the path off."""
    port = free_port()
    temp = "".join(
        f"{kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"pid {folder}/pid; error_log stderr; worker_processes 1; daemon off;"
        f"events {{}} http {{ access_log off; {temp} server {{"
        f"listen 127.0.0.1:{port}; proxy_http_version 1.1;"
        f"proxy_set_header Host $http_host;"
        f"location /flux/ {{ proxy_pass {api.url}/; }} }} }}"
    )
    command = [need("nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf")]
    url = f"http://127.0.0.1:{port}/flux"
    with run(command, url=url, settings={}) as server:
        wait_for(lambda: requests.get(f"{url}/healthz", timeout=5).ok, 20, server)
        yield SimpleNamespace(url=url)


def test_below_a_path_of_a_proxy(fake, browser, tmp_path):
    with below_a_path(tmp_path, fake) as proxied, open_page(browser, proxied) as page:
        draw(page, "hold", state="running")
        release(fake)
        page.wait_for_selector(".card.done")
        page.click("[lang=ja].button")
        page.wait_for_selector(".composer .main >> text=生成")


@pytest.mark.parametrize("script", [NOTHING_KEPT, DISK_FULL], ids=["nothing", "full"])
def test_a_browser_that_keeps_nothing_still_draws(fake, browser, script):
    with open_page(browser, fake, script=script) as page:
        draw(page, "a cat")
        page.wait_for_selector(".notice >> text=no room for more pictures")
        page.wait_for_selector(".picture img")
        page.click(".actions >> text=Again")
        page.wait_for_selector(".strip li:nth-child(2)")
        page.wait_for_selector(".strip:not(:has(.card:not(.done)))")


def test_where_nobody_may_watch_the_page_asks(browser):
    settings = {"FLUX_MAX_WATCHERS": 0}
    with run_api(app="tests.support.fake_app:app", **settings) as fake:
        fake.wait_ready()
        with open_page(browser, fake, refusals=True) as page:
            draw(page, "pause=0.3", state="running")
            page.wait_for_selector("text=/^Step \\d+ of 12$/")
            page.wait_for_selector(".card.done")
            draw(page, "fail=memory", state="failed")


def test_two_fingers_zoom_and_one_paints(fake, browser):
    context = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
    with open_page(browser, fake, **context) as page:
        choose(page, make_png())
        page.click("text=Paint a mask")
        stroke(page, (0.2, 0.2), (0.3, 0.3))
        before = page.evaluate(SCALE)
        device = page.context.new_cdp_session(page)

        def touch(kind, *points):
            device.send(
                "Input.dispatchTouchEvent",
                {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]},
            )

        touch("touchStart", (180, 450))
        touch("touchStart", (180, 450), (210, 450))
        for far in range(10, 60, 10):
            touch("touchMove", (180 - far, 450), (210 + far, 450))
        touch("touchEnd")
        assert page.evaluate(SCALE) > 1.5 * before
        page.click("[aria-label='Show all']")
        assert page.evaluate(SCALE) == pytest.approx(before)
        # The pinch has left no stroke: one undo and nothing is painted.
        page.click("[aria-label=Undo]")
        page.wait_for_selector("[aria-label=Undo]:disabled")
        touch("touchStart", (195, 480))
        touch("touchMove", (205, 500))
        touch("touchEnd")
        page.wait_for_selector("[aria-label=Undo]:not(:disabled)")
        page.click("dialog >> text=Done")
        draw(page, "x")
    assert stats(fake)["requests"][-1]["mask"] == [0, 255]
