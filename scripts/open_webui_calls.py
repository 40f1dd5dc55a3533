"""Open WebUI itself, started and asked for pictures over its own API; used by
print_transcripts.py."""

from __future__ import annotations

import base64
import os
import subprocess
import tempfile
import time
from contextlib import contextmanager

import requests

SETTINGS = {
    "ENABLE_IMAGE_GENERATION": "True",
    "IMAGE_GENERATION_ENGINE": "openai",
    "IMAGE_SIZE": "512x512",
    "ENABLE_IMAGE_EDIT": "True",
    "IMAGE_EDIT_ENGINE": "openai",
}
# What keeps a test instance from looking for logins, models and updates.
_QUIET = {
    "WEBUI_AUTH": "False",
    "WEBUI_SECRET_KEY": "a key of this run and of no other",
    "OFFLINE_MODE": "true",
    "HF_HUB_OFFLINE": "1",
    "RAG_EMBEDDING_ENGINE": "openai",
    "RAG_OPENAI_API_KEY": "none",
    "ENABLE_OLLAMA_API": "False",
    "ENABLE_OPENAI_API": "False",
    "ENABLE_VERSION_UPDATE_CHECK": "False",
    "ANONYMIZED_TELEMETRY": "False",
}
START_SECONDS = 300


def make_calls(program, port, base_url, key, picture):
    """What Open WebUI answers to a picture, two edits and a size that is refused."""
    with _running(program, port, base_url, key) as url:
        session = requests.Session()
        session.trust_env = False
        login = session.post(
            f"{url}/api/v1/auths/signin", json={"email": "", "password": ""}, timeout=60
        )
        session.headers["Authorization"] = f"Bearer {login.json()['token']}"
        data = "data:image/png;base64," + base64.b64encode(picture).decode()
        for path, body in (
            ("generations", {"prompt": "a red heart"}),
            ("edit", {"image": data, "prompt": "make it blue", "size": "512x512"}),
            ("edit", {"image": [data], "prompt": "make it blue", "model": "tiny"}),
            ("generations", {"prompt": "a red heart", "size": "511x512"}),
        ):
            answer = session.post(f"{url}/api/v1/images/{path}", json=body, timeout=120)
            short = {k: v for k, v in body.items() if k != "image"}
            yield f"/api/v1/images/{path} {short}: {answer.status_code} {answer.text}"


@contextmanager
def _running(program, port, base_url, key):
    settings = SETTINGS | _QUIET
    for kind in ("IMAGES", "IMAGES_EDIT"):
        settings[f"{kind}_OPENAI_API_BASE_URL"] = base_url
        settings[f"{kind}_OPENAI_API_KEY"] = key
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [program, "serve", "--host", "127.0.0.1", "--port", str(port)],
            env=os.environ | settings | {"DATA_DIR": folder},
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(f"{url}/health", process)
            yield url
        finally:
            process.terminate()
            process.wait(60)


def _wait(url, process):
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            if requests.get(url, timeout=5).ok:
                return
        except requests.ConnectionError:
            time.sleep(1)
    raise SystemExit("Open WebUI did not start")
