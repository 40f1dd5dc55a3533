"""Behind a real nginx with the configuration in deploy/: what gets through."""

from __future__ import annotations

import contextlib

import pytest
import requests

from tests.support.nginx import run_nginx_with
from tests.support.servers import ROOT, post_and_leave, run_api, run_files, wait_for


@contextlib.contextmanager
def run_nginx(folder, api, files):
    """nginx in front of both, from deploy/nginx.conf with the ports replaced."""
    text = (ROOT / "deploy" / "nginx.conf").read_text()
    text = text.replace("127.0.0.1:8000", api.url.removeprefix("http://"))
    with run_nginx_with(folder, text, files) as server:
        yield server


@pytest.fixture(scope="module")
def fake(files):
    """The API over the scripted backend, one proxy in front."""
    settings = {"FLUX_TRUSTED_PROXIES": 1, "FILE_SERVER": files.url}
    with run_api(app="tests.support.fake_app:app", **settings) as server:
        yield server.wait_ready()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A file server, one proxy in front."""
    folder = tmp_path_factory.mktemp("proxied")
    with run_files(folder, FILES_TRUSTED_PROXIES=1) as server:
        yield server


@pytest.fixture(scope="module")
def nginx(tmp_path_factory, fake, files):
    """nginx in front of both."""
    with run_nginx(tmp_path_factory.mktemp("nginx"), fake, files) as server:
        yield server


def stats(server):
    """What the scripted backend has done."""
    return requests.get(f"{server.url}/fake/stats", timeout=10).json()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/process", b"prompt=pause%3D0.1&num_inference_steps=100"),
        ("/v1/images/generations", b"prompt=pause%3D0.1&steps=100"),
        ("/v1/images/generations", b"prompt=pause%3D0.1&steps=100&stream=true"),
    ],
    ids=["original", "openai", "openai streaming"],
)
def test_client_that_leaves_through_nginx_stops_its_run(nginx, fake, path, body):
    requests.post(f"{fake.url}/fake/reset", timeout=10)
    post_and_leave(nginx.url, path, body, lambda: stats(fake)["steps"] > 1)
    steps = stats(fake)["steps"]
    wait_for(lambda: stats(fake)["running"] == 0, 5)
    assert stats(fake)["steps"] <= steps + 1
    assert stats(fake)["finished"] == 0


def test_pictures_and_urls_come_through(nginx, files):
    answer = requests.post(
        f"{nginx.url}/process", data={"prompt": "x", "width": 64, "height": 64}
    ).json()
    path = answer["result_image_url"].removeprefix(files.url)
    stored = requests.get(nginx.url + path, timeout=10)
    assert stored.headers["Content-Type"] == "image/png"


def test_forged_forwarding_headers_do_nothing(nginx, fake):
    requests.post(f"{fake.url}/fake/reset", timeout=10)
    forged = {
        "X-Forwarded-For": "203.0.113.9, 198.51.100.7",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "gopher",
        "Forwarded": "for=203.0.113.9;host=evil.example",
    }
    answer = requests.post(
        f"{nginx.url}/process",
        data={"prompt": "x", "width": 64, "height": 64},
        headers=forged,
        timeout=10,
    )
    assert answer.status_code == 200
    assert stats(fake)["requests"][-1]["caller"] == "127.0.0.1"
    latest = requests.get(
        f"{nginx.url}/latest",
        headers={"Authorization": "Bearer a-token-of-the-tests", **forged},
        timeout=10,
    )
    assert "evil" not in latest.text
    url = latest.json()["url"]
    assert url.startswith(f"{nginx.url}/i/")
    assert requests.get(url, timeout=10).ok


def test_too_large_body_is_refused_in_json(nginx):
    answer = requests.post(f"{nginx.url}/process", data=b"x" * (66 << 20), timeout=60)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "payload_too_large"


def test_nobody_uploads_through_nginx(nginx):
    answer = requests.post(f"{nginx.url}/upload", files={"file": b"x"}, timeout=10)
    assert answer.status_code == 404


def test_what_nginx_itself_refuses_is_json(nginx):
    answer = requests.get(f"{nginx.url}/?{'x' * 20_000}", timeout=10)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_request"
