"""Requests of OpenAI's Images API as any HTTP client sends them, and their parts."""

from __future__ import annotations

import base64
import http.client
import json

import requests
from PIL import Image, ImageDraw

from tests.support.pictures import save

EDITS = "/v1/images/edits"
# What errors about numbers carry beside OpenAI's four fields.
NUMBERS = {"minimum", "maximum", "multiple", "given"}
FORM = {"prompt": "a duck", "size": "64x64"}


def post(server, path="/v1/images/generations", **kwargs):
    """``requests.post`` to ``path`` of ``server``."""
    return requests.post(server.url + path, timeout=60, **kwargs)


def generate(server, **values):
    """One small picture, as JSON."""
    return post(server, json={"prompt": "a duck", "size": "64x64"} | values)


def begin(server, values, path="/v1/images/generations", headers=()):
    """Send a request and leave its answer for later; gives the connection."""
    connection = http.client.HTTPConnection(server.url[len("http://") :], timeout=30)
    body = json.dumps({"prompt": "a duck", "size": "64x64"} | values)
    connection.request(
        "POST", path, body, {"Content-Type": "application/json"} | dict(headers)
    )
    return connection


def stats(server):
    """What fake_app.py has seen and done since the last reset."""
    return requests.get(f"{server.url}/fake/stats", timeout=10).json()


def pid(server):
    """The process that answers."""
    return stats(server)["pid"]


def release(server):
    """Let go what waits for it."""
    requests.post(f"{server.url}/fake/release", timeout=10)


def seen(server):
    """The newest request as it reached the fake backend."""
    return stats(server)["requests"][-1]


def drawn(server):
    """The same without who asked, and when."""
    return {k: v for k, v in seen(server).items() if k not in ("caller", "at")}


def message_of(answer):
    """The error's sentence in either dialect."""
    error = answer.json()["error"]
    return error if isinstance(error, str) else error["message"]


def data_url(data, media_type="image/png"):
    """``data`` as a data URL."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def make_mask(size, box, *, kind="PNG"):
    """Opaque but for a transparent ``box``."""
    mask = Image.new("RGBA", size, (0, 0, 0, 255))
    ImageDraw.Draw(mask).rectangle(box, fill=(0, 0, 0, 0))
    return save(mask, kind)
