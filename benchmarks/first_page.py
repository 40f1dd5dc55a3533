"""``python -m benchmarks.first_page``: from a fresh clone to a picture in the page.

Clones this repository into a temporary folder, runs ``make serve`` there, which
installs everything, opens the page in a browser as soon as it answers, and prints the
seconds until each step. Needs requirements-dev.txt and chromium-headless-shell; asks
the package index for what pip has not cached.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.server import ROOT
from tests.support.browser import run_browser
from tests.support.servers import free_port

HOUR = 3600.0
STEPS = {
    "the page is there (packages installed, server started)": "#prompt",
    "the model is loaded": ".status.good",
    "a picture is seen": ".actions",
}


def main() -> None:
    """Print the seconds from ``make serve`` on."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "clone"
        subprocess.run(["git", "clone", "-q", ROOT, folder], check=True)
        api, files = free_port(), free_port()
        options = f"--bind 127.0.0.1:{api} --files-bind 127.0.0.1:{files}"
        environ = {k: v for k, v in os.environ.items() if not k.startswith("FLUX_")}
        began = time.monotonic()
        process = subprocess.Popen(
            ["make", "serve", f"SERVE_OPTIONS={options}"],
            cwd=folder,
            env=environ,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            see(f"http://127.0.0.1:{api}/", began, process)
        finally:
            os.killpg(process.pid, signal.SIGINT)
            process.wait()


def see(url: str, began: float, process: subprocess.Popen[bytes]) -> None:
    """Look until there is a page, ask for a picture, and say when each step came."""
    with run_browser() as browser:
        page = browser.new_page(locale="en-US")
        page.set_default_timeout(HOUR * 1000)
        while process.poll() is None:
            try:
                page.goto(url)
                break
            except Exception:  # nobody answers yet
                time.sleep(0.5)
        for step, selector in STEPS.items():
            page.wait_for_selector(selector)
            print(f"{time.monotonic() - began:6.1f} s  {step}", flush=True)
            if selector == "#prompt":
                page.wait_for_selector(".options .choices", state="attached")
                page.fill("#prompt", "a red heart")
                page.keyboard.press("Control+Enter")


if __name__ == "__main__":
    main()
