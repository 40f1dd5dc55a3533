"""A real nginx with a site's configuration, whose addresses are replaced."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import requests

from tests.support.programs import need
from tests.support.servers import ROOT, free_port, run, wait_for


def printed(*options, **settings):
    """What ``flux-api serve --print-nginx`` prints, for nginx at 8080, the instances
    from 8000 on."""
    command = [sys.executable, "-m", "flux_api", "serve", "--print-nginx"]
    done = subprocess.run(
        [*command, "--bind", "127.0.0.1:8080", "--first-port", "8000", *options],
        cwd=ROOT,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@contextlib.contextmanager
def run_nginx_with(folder, text, files, scheme="http"):
    """nginx with the site ``text`` on a free port in place of 8080; the file server is
    ``files``."""
    port = free_port()
    text = text.replace("127.0.0.1:8010", files.url.removeprefix("http://"))
    text = text.replace("listen 127.0.0.1:8080", f"listen 127.0.0.1:{port}")
    (folder / "flux.conf").write_text(text)
    temp = "".join(
        f"{kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"pid {folder}/pid; error_log stderr; worker_processes 1; daemon off;"
        f"events {{}} http {{ access_log off; {temp} include {folder}/flux.conf; }}"
    )
    command = [need("nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf")]
    if os.geteuid() == 0:
        # Else somebody who may not write large bodies into this folder.
        command += ["-g", "user root;"]
    url = f"{scheme}://127.0.0.1:{port}"
    with run(command, url=url, settings={}) as server:
        wait_for(lambda: requests.get(f"{url}/healthz", verify=False).ok, 20, server)
        yield server
