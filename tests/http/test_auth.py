"""API keys and the pages of other origins."""

from __future__ import annotations

import socket
import threading

import pytest
import requests

from flux_api import create_app
from flux_api.api_keys import ApiKey, holder_of, parse_keys
from flux_api.errors import BadSetting
from flux_api.http.access import OPEN_BLUEPRINTS
from flux_api.queue.manager import PipelineManager
from flux_api.settings import Settings
from tests.support.raw_http import exchange_to_the_end, post
from tests.support.servers import free_port, run_api, wait_for

KEY, OTHER = "sk-alice-0123456789", "sk-bob-0123456789"
PAGE = "https://app.example.org"


@pytest.fixture(scope="module")
def keyed(tmp_path_factory):
    """The fake server with a key from the environment, one from a file, and CORS."""
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text(f"# who may call\nbob:{OTHER}\n\n")
    with run_api(
        app="tests.support.fake_app:app",
        FLUX_API_KEYS=f"alice:{KEY}",
        FLUX_API_KEYS_FILE=file,
        FLUX_CORS_ORIGINS=f"https://other.example,{PAGE}",
    ) as server:
        yield server.wait_ready()


def call(server, path="/v1/models", method="GET", **headers):
    return requests.request(
        method,
        server.url + path,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        json={"prompt": "x", "size": "64x64"} if method == "POST" else None,
        timeout=10,
    )


GUARDED = [
    ("POST", "/v1/images/generations"),
    ("POST", "/images/generations"),
    ("POST", "/v1/images/edits"),
    ("POST", "/v1/images/variations"),
    ("POST", "/openai/deployments/x/images/generations"),
    ("POST", "/openai/v1/images/generations"),
    ("GET", "/v1/models"),
    ("GET", "/models/tiny"),
    ("GET", "/openai/models"),
    ("POST", "/process"),
    ("POST", "/process/raw"),
    ("GET", "/jobs/12345678"),
    ("GET", "/jobs/12345678/events"),
    ("DELETE", "/jobs/12345678"),
]


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_without_a_key_nothing_is_served(keyed, method, path):
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"api_key": "wrong"}):
        answer = call(keyed, path, method, **headers)
        assert answer.status_code == 401
        assert answer.reason == "Missing or wrong API key"
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.headers["X-Request-Id"]
        if path.startswith(("/process", "/jobs")):
            assert isinstance(answer.json()["error"], str)
        else:
            error = answer.json()["error"]
            assert error["type"] == "invalid_request_error"
            assert (error["code"], error["param"]) == ("invalid_api_key", None)


def test_only_health_and_pages_are_open():
    app = create_app(Settings(), manager=PipelineManager(threading.Event().wait))
    open_routes = {
        rule.rule
        for rule in app.url_map.iter_rules()
        if rule.endpoint.partition(".")[0] in OPEN_BLUEPRINTS
    }
    assert {"/healthz", "/readyz", "/v1/health"} <= open_routes
    assert not [r for r in open_routes if "images" in r or "jobs" in r]


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer   {OTHER} "},
        {"api_key": KEY},
        {"Api_Key": OTHER},
        {"Authorization": "Bearer wrong", "api_key": KEY},
        {"Authorization": "Basic dTpw", "api_key": KEY},
    ],
    ids=str,
)
def test_a_key_opens_both_apis(keyed, headers):
    for method, path in GUARDED[:2] + GUARDED[5:10]:
        assert call(keyed, path, method, **headers).status_code == 200, path
    assert call(keyed, "/jobs/12345678", **headers).status_code == 404


@pytest.mark.parametrize(
    "shown",
    [
        *(
            b"Bearer \xff\xfe\xe9",
            b"Bearer \xd0\xba\xd0\xbb\xd1\x8e\xd1\x87",
            b"Bearer",
        ),
        *(
            b"Bearer ",
            b"",
            b"Bearer " + KEY.encode() + b"\xe9",
            b"Bearer " + b"x" * 4000,
        ),
    ],
    ids=lambda shown: repr(shown[:20]),
)
def test_odd_keys_are_wrong_and_nothing_worse(keyed, shown):
    host, port = keyed.url.removeprefix("http://").split(":")
    for header in (b"Authorization", b"api-key"):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            head = (
                b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            )
            connection.sendall(head + header + b": " + shown + b"\r\n\r\n")
            status = connection.makefile("rb").readline()
        assert status.startswith(b"HTTP/1.1 401 "), status


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, "You did not provide an API key"),
        # It holds no key in any form that is read.
        ({"Authorization": "Digest username=me"}, "You did not provide an API key"),
        ({"Authorization": "Bearer wrong"}, "Incorrect API key"),
        ({"Authorization": "Basic dTpw"}, "Incorrect API key"),
        ({"X_Key": "wrong"}, "Incorrect API key"),
    ],
    ids=str,
)
def test_no_key_is_told_from_a_wrong_one(keyed, headers, words):
    assert words in call(keyed, **headers).json()["error"]["message"]


def test_health_needs_no_key(keyed):
    for path in ("/healthz", "/readyz", "/health", "/v1/health"):
        assert call(keyed, path).status_code == 200
    lost = call(keyed, "/v1/nope")
    assert lost.status_code == 404
    wrong = call(keyed, "/jobs?limit=0", api_key=KEY)
    assert wrong.status_code == 400
    # No browser is to ask for a password.
    for answer in (lost, wrong):
        assert "WWW-Authenticate" not in answer.headers


def test_the_body_is_read_before_the_refusal(keyed):
    """Otherwise the connection is reset, at times before the answer was read."""
    answer = exchange_to_the_end(keyed, post("/v1/images/edits", b"x" * (8 << 20)))
    assert answer.status == 401


def test_jobs_belong_to_the_key_that_made_them(keyed):
    alice = {"Authorization": f"Bearer {KEY}", "X_Job_Id": "job-of-alice"}
    assert call(keyed, "/v1/images/generations", "POST", **alice).ok
    path = "/jobs/job-of-alice"
    assert call(keyed, path, **alice).json()["state"] == "done"
    assert call(keyed, path, Authorization=f"Bearer {OTHER}").status_code == 404
    facts = call(keyed, "/fake/stats", api_key=KEY).json()
    assert facts["requests"][-1]["caller"] == "key alice"


# -- other origins ---------------------------------------------------------------


def test_preflight_is_answered_without_a_key(keyed):
    asked = "authorization,content-type,user-agent,x-stainless-os,x-evil,cookie"
    answer = call(
        keyed,
        "/v1/images/generations",
        "OPTIONS",
        Origin=PAGE,
        Access_Control_Request_Method="POST",
        Access_Control_Request_Headers=asked,
    )
    assert answer.status_code == 200
    headers = answer.headers
    assert headers["Access-Control-Allow-Origin"] == PAGE
    assert headers["Access-Control-Allow-Headers"] == (
        "authorization, content-type, user-agent, x-stainless-os"
    )
    assert "POST" in headers["Access-Control-Allow-Methods"]
    assert "Access-Control-Allow-Credentials" not in headers


def test_answers_and_errors_show_themselves_to_allowed_pages(keyed):
    for headers, status in (({"api_key": KEY}, 200), ({}, 401)):
        # A cache may not give one page's answer to another, nor to none.
        assert call(keyed, **headers).headers["Vary"] == "Origin"
        answer = call(keyed, Origin=PAGE, **headers)
        assert answer.headers["Vary"] == "Origin"
        assert answer.status_code == status
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        assert "X-Request-Id" in answer.headers["Access-Control-Expose-Headers"]
    for origin in ("https://evil.example", "null", f"{PAGE}.evil.example"):
        answer = call(keyed, Origin=origin, api_key=KEY)
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert answer.headers["Vary"] == "Origin"


def test_without_the_setting_no_page_is_let_in(fake):
    for method in ("GET", "OPTIONS"):
        answer = call(fake, method=method, Origin=PAGE)
        assert not [name for name in answer.headers if name.startswith("Access-")]
        assert "Vary" not in answer.headers


# -- settings --------------------------------------------------------------------


def test_keys_are_read_from_lists_and_lines():
    text = f" alice:{KEY} , alice:second-key-1\n# comment, with: comma\nb.o_b-1:{OTHER}"
    keys = parse_keys(text)
    assert [key.name for key in keys] == ["alice", "alice", "b.o_b-1"]
    assert holder_of(keys, OTHER.encode()) == "b.o_b-1"
    assert holder_of(keys, b"second-key-1") == "alice"
    assert holder_of(keys, b"") is None
    assert KEY not in repr(keys) and KEY not in repr(Settings(api_keys=keys))
    assert keys[0] == ApiKey("alice", KEY)


@pytest.mark.parametrize(
    "environ",
    [
        {"FLUX_API_KEYS": "just-a-secret-key"},
        {"FLUX_API_KEYS": "name:short"},
        {"FLUX_API_KEYS": "name:clé-secrète"},
        {"FLUX_API_KEYS": "a b:just-a-secret-key"},
        {"FLUX_API_KEYS": f"a:{KEY},b:{KEY}"},
        {"FLUX_API_KEYS": ","},
        {"FLUX_API_KEYS_FILE": "/nowhere/at/all"},
        {"FLUX_API_KEYS_FILE": "/dev/null"},
        {"FLUX_CORS_ORIGINS": "app.example.org"},
        {"FLUX_CORS_ORIGINS": "https://app.example.org/path"},
    ],
    ids=str,
)
def test_wrong_settings_are_named_and_keys_never_shown(environ):
    with pytest.raises(BadSetting) as caught:
        Settings.from_env(environ)
    [(name, value)] = environ.items()
    assert name in str(caught.value)
    if name == "FLUX_API_KEYS" and len(value) > 1:
        assert value.partition(":")[2] not in str(caught.value) or ":" not in value
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "keys", "warned"),
    [("0.0.0.0", "", True), ("0.0.0.0", f"a:{KEY}", False), ("127.0.0.1", "", False)],
)
def test_an_open_port_without_keys_is_warned_about(host, keys, warned):
    port = free_port()
    options = ("-b", f"{host}:{port}")
    with run_api(
        *options, app="tests.support.fake_app:app", FLUX_API_KEYS=keys
    ) as server:
        wait_for(lambda: requests.get(f"{server.url}/readyz", timeout=5).ok, 20, server)
        assert ("set FLUX_API_KEYS" in server.output) == warned
