"""What many tests share: running servers, and pictures to send."""

from __future__ import annotations

import io

import pytest
import requests
from PIL import Image, ImageDraw
from servers import run_api, run_files


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """A file server."""
    with run_files(tmp_path_factory.mktemp("images")) as server:
        yield server


@pytest.fixture(scope="session")
def api():
    """The API without a file server: answers carry Base64."""
    with run_api() as server:
        yield server.wait_ready()


@pytest.fixture(scope="session")
def api_with_files(files):
    """The API that stores its pictures on ``files``."""
    with run_api(FILE_SERVER=files.url) as server:
        yield server.wait_ready()


@pytest.fixture(scope="session")
def fake_api():
    """The API over a backend without torch that prompts command; see fake_app.py."""
    with run_api(app="fake_app:app") as server:
        yield server.wait_ready()


@pytest.fixture
def fake(fake_api):
    """``fake_api`` with nothing remembered."""
    requests.post(f"{fake_api.url}/fake/reset", timeout=5)
    return fake_api


@pytest.fixture(scope="session")
def fake_multi():
    """The fake server with a model that takes 16 input pictures."""
    with run_api(app="fake_app:app", FAKE_MAX_IMAGES=16) as server:
        yield server.wait_ready()


def make_png(size=(96, 64), color="orange"):
    """PNG bytes of a disc on white."""
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).ellipse((8, 8, size[0] - 8, size[1] - 8), fill=color)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def png():
    """PNG bytes, 96x64."""
    return make_png()
