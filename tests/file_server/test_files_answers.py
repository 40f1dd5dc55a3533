"""What every answer has: JSON for failures, safe headers, a request id, a log line."""

from __future__ import annotations

import threading
import uuid

import pytest
import requests

from file_server import Settings, create_app
from tests.file_server.serving import AUTH, SAFE, fact

ADDRESSES = {
    "unknown-id": ("GET", f"/i/{'0' * 32}.png", 404),
    "no-route": ("GET", "/nothing/here", 404),
    "api": ("GET", "/v1", 404),
    "api-route": ("POST", "/v1/images/generations", 404),
    "list": ("GET", "/i/", 404),
    "double-slash": ("GET", "/i//latest", 404),
    "trailing-slash": ("GET", "/latest/", 404),
    "upload-by-get": ("GET", "/upload", 405),
    "delete": ("DELETE", f"/i/{'0' * 32}.png", 405),
    "put": ("PUT", "/latest", 405),
    "post-to-file": ("POST", f"/i/{'0' * 32}.png", 405),
    "invented-method": ("BREW", "/healthz", 405),
}


@pytest.mark.parametrize("what", ADDRESSES)
def test_every_failure_is_one_json_sentence(server, what):
    method, path, status = ADDRESSES[what]
    # A redirect would be built from whatever Host the caller wrote.
    url = server.url + path
    answer = requests.request(method, url, timeout=30, allow_redirects=False)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert answer.json()["error"].endswith(".")
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers.items() >= SAFE.items()
    if status == 405:
        assert answer.headers["Allow"]
        assert answer.json()["error"] == "This address does not take that method."


def test_who_looks_for_the_api_is_told_where_it_is(server):
    root = server.get("/")
    assert root.status_code == 200
    assert "keeps pictures and makes none" in root.json()["about"]
    routes = {route.split()[1] for route in root.json()["routes"]}
    described = server.get("/openapi.json").json()["paths"]
    assert {path.replace("{fid}", "<name>") for path in described} - routes == {
        "/",
        "/healthz",
    }
    for path in ("/v1", "/v1/models", "//v1/", "/process", "/docs"):
        assert "Flux Imaging API" in server.get(path).json()["error"]
    for path in ("/v2", "/processes", "/nothing"):
        assert server.get(path).json()["error"] == "There is nothing at this address."


def test_the_description_says_where_a_token_is_needed(server):
    for path, methods in server.get("/openapi.json").json()["paths"].items():
        url = server.url + path.replace("{fid}", f"{'0' * 32}.png")
        for method, told in methods.items():
            answer = requests.request(method, url, timeout=30)
            assert (answer.status_code == 401) == bool(told["security"]), path
            assert str(answer.status_code) in told["responses"], path
            assert all(one["description"] for one in told["responses"].values())
    app = create_app(Settings(upload_token="x"), storage=Broken())
    told = app.test_client().get("/openapi.json").json["paths"]["/upload"]["post"]
    assert told["security"] == [{"bearer": []}] and "401" in told["responses"]


@pytest.mark.parametrize(
    ("given", "echoed"),
    [
        ("abc-1.2_Z", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("a b", False),
        ("a\tb", False),
        ('"}{', False),
        ("é", False),
    ],
)
def test_a_request_id_is_echoed_only_when_harmless(server, given, echoed):
    headers = {"X-Request-Id": given.encode()}
    answer = server.get("/healthz", headers=headers)
    assert (answer.headers["X-Request-Id"] == given) is echoed
    assert answer.headers["X-Request-Id"]


def test_every_request_is_one_json_line_without_secrets(server):
    sent = {"X-Request-Id": uuid.uuid4().hex, "Authorization": "Bearer hush-hush"}
    answer = server.get("/latest%0a%7b%22forged%22:1%7d?key=hidden", headers=sent)
    assert answer.status_code == 404
    # The line is written before the answer is sent, but read by another thread.
    turn = threading.Event()
    for _ in range(100):
        lines = [
            line
            for line in server.log()
            if line.get("request_id") == sent["X-Request-Id"]
        ]
        if lines:
            break
        turn.wait(0.05)
    [line] = lines
    assert (line["method"], line["status"]) == ("GET", 404)
    assert line["path"].startswith("/latest\n")
    everything = "".join(server.lines)
    assert "hush-hush" not in everything
    assert "hidden" not in everything
    assert AUTH["Authorization"].split()[1] not in everything


@fact("6-healthz")
def test_probes_need_no_token_and_leave_nothing_behind(server, place):
    before = place.names()
    for path in ("/healthz", "/readyz"):
        answer = server.get(path)
        assert answer.status_code == 200
        assert requests.head(server.url + path, timeout=30).status_code == 200
    assert place.names() == before


class Broken:
    """A storage with a mistake in it that knows a secret path."""

    def latest(self):
        raise RuntimeError("/secret/path")


def test_a_mistake_of_the_server_is_a_json_500_that_tells_nothing():
    app = create_app(Settings(bearer_token="x"), storage=Broken())
    headers = {"Authorization": "Bearer x", "X-Request-Id": "mine"}
    answer = app.test_client().get("/latest", headers=headers)
    assert answer.status_code == 500
    assert answer.json == {"error": "The server failed to answer this request."}
    assert answer.headers["X-Request-Id"] == "mine"
    assert app.test_client().get("/healthz").status_code == 200
