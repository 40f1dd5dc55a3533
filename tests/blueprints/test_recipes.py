"""The apps of docs/recipes: every request shape sent byte for byte, and the Vercel AI
SDK itself. scripts/print_transcripts.py runs the other apps themselves."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
from urllib.parse import urlsplit

import pytest
import requests
from PIL import Image

from tests.support import app_requests, node_client
from tests.support.raw_requests import exchange
from tests.support.servers import ROOT, run_api
from tests.support.wire import make_mask

KEY = "sk-of-the-recipes"
LITERAL = [
    *app_requests.OPEN_WEBUI,
    *app_requests.LITELLM,
    *app_requests.LIBRECHAT,
    *app_requests.VERCEL,
    *app_requests.OTHERS,
]


@pytest.fixture(scope="module")
def servers(files):
    """The fake server behind a key, without and with a file server."""
    keys = {"FLUX_API_KEYS": f"recipes:{KEY}"}
    with (
        run_api(app="tests.support.fake_app:app", **keys) as plain,
        run_api(
            app="tests.support.fake_app:app", FILE_SERVER=files.url, **keys
        ) as storing,
    ):
        yield {"plain": plain.wait_ready(), "storing": storing.wait_ready()}


@pytest.mark.parametrize("which", ["plain", "storing"])
@pytest.mark.parametrize("asked", LITERAL, ids=lambda asked: asked.id)
def test_the_app_can_read_the_answer(servers, png, asked, which):
    target = urlsplit(servers[which].url)
    raw = asked.raw(target.netloc, KEY, png, make_mask((96, 64), (0, 0, 20, 20)))
    status, headers, body = exchange((target.hostname, target.port), raw)
    assert status == "HTTP/1.1 200 OK", body
    assert headers["content-type"] == "application/json"
    answer = json.loads(body)
    assert isinstance(answer["created"], int)
    assert answer["quality"] in ("low", "medium", "high")
    assert all(isinstance(v, (int, dict)) for v in answer["usage"].values())
    [*_, item] = answer["data"]
    # One of the two and never both; a null would be taken for a value.
    [key] = {"b64_json", "url"} & set(item)
    if asked.reads != "either":
        assert key == asked.reads
    size, kind = fetch(item[key], key)
    assert kind == asked.kind
    assert answer["size"] == f"{size[0]}x{size[1]}"
    if asked.size:
        assert answer["size"] == asked.size


def fetch(text, key):
    """The size and media type of a picture as a client reads it."""
    kind = None
    if key == "b64_json":
        data = base64.b64decode(text, validate=True)
    elif text.startswith("data:"):
        data = base64.b64decode(text.partition(",")[2], validate=True)
        kind = text[5:].partition(";")[0]
    else:
        stored = requests.get(text, timeout=10)
        data, kind = stored.content, stored.headers["Content-Type"]
    image = Image.open(io.BytesIO(data))
    real = f"image/{image.format.lower()}"
    assert kind in (None, real)
    return image.size, real


@pytest.mark.parametrize("which", ["plain", "storing"])
def test_the_vercel_ai_sdk_itself(servers, png, tmp_path, which):
    node_client.install()
    image, mask = tmp_path / "in.png", tmp_path / "mask.png"
    image.write_bytes(png)
    mask.write_bytes(make_mask((96, 64), (0, 0, 20, 20)))
    done = subprocess.run(
        ["node", "vercel.mjs", f"{servers[which].url}/v1", KEY, image, mask],
        cwd=node_client.FOLDER,
        capture_output=True,
        timeout=60,
    )
    results = json.loads(done.stdout)
    wrong = results.pop("openai-compatible, wrong size")
    assert wrong["error"] == "AI_APICallError"
    assert "multiples of 16" in wrong["message"]
    assert [len(result["images"]) for result in results.values()] == [2, 1, 2, 1]
    assert not any(result["warnings"] for result in results.values())


@pytest.mark.parametrize("app", ["open-webui", "litellm", "librechat", "vercel-ai-sdk"])
def test_every_recipe_has_its_transcript(app):
    text = (ROOT / f"docs/recipes/{app}.md").read_text()
    shown = text.partition("<!-- transcript -->")[2].partition("<!-- end -->")[0]
    assert shown.count("```http\nPOST ") >= 4
    assert shown.count("HTTP/1.1 200 OK") >= 3
    assert re.search(r"\bitself\b|literal requests", text)
