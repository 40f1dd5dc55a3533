"""Behind a real nginx with the configuration in deploy/: what gets through."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.support.nginx import printed, run_nginx_with
from tests.support.pictures import make_png
from tests.support.servers import ROOT, post_and_leave, run_api, run_files, wait_for
from tests.support.wire import NUMBERS, release, stats

pytestmark = pytest.mark.filterwarnings(
    "ignore::urllib3.exceptions.InsecureRequestWarning"
)


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


DIALECTS = {
    "original": "/process",
    "openai": "/v1/images/generations",
    "hosted": "/v1/flux-dev",
    "a1111": "/sdapi/v1/txt2img",
    "tools": "/mcp",
}


def shape(body):
    """The names in a JSON body, and what kind each value is."""
    if not isinstance(body, dict):
        return type(body).__name__
    # Numbers that only the API knows stand beside OpenAI's four fields.
    return {name: shape(body[name]) for name in body.keys() - NUMBERS}


def codes(body):
    """What programs tell errors by, wherever it stands."""
    if not isinstance(body, dict):
        return []
    own = [body[name] for name in ("code", "type") if name in body]
    return own + [code for name in sorted(body) for code in codes(body[name])]


@pytest.mark.parametrize("path", DIALECTS.values(), ids=DIALECTS)
def test_too_large_body_is_refused_in_json(nginx, fake, path):
    """As the API itself says it, where nginx lets it in."""
    sent = {"headers": {"Content-Type": "application/json"}, "timeout": 60}
    answer = requests.post(nginx.url + path, data=b"x" * (66 << 20), **sent)
    own = requests.post(fake.url + path, data=b" " * (65 << 20) + b"{}", **sent)
    assert answer.status_code == own.status_code == 413
    assert shape(answer.json()) == shape(own.json())
    assert codes(answer.json()) == codes(own.json())
    assert "too large" in answer.text


def test_nobody_uploads_through_nginx(nginx):
    answer = requests.post(f"{nginx.url}/upload", files={"file": b"x"}, timeout=10)
    assert answer.status_code == 404


def test_what_nginx_itself_refuses_is_json(nginx):
    answer = requests.get(f"{nginx.url}/?{'x' * 20_000}", timeout=10)
    assert answer.status_code == 400
    # Without a line that can be read nobody knows which API was asked.
    assert answer.json()["error"]["code"] == "invalid_request"
    large = {"X-Large": "x" * 20_000}
    answer = requests.get(f"{nginx.url}/v1/flux-dev", headers=large, timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


def test_the_shipped_configuration_is_what_the_program_prints():
    assert (ROOT / "deploy" / "nginx.conf").read_text() == printed()


def test_streams_come_through_as_they_are_sent(nginx, fake):
    requests.post(f"{fake.url}/fake/reset", timeout=10)
    form = {"prompt": "hold", "stream": "true", "size": "64x64"}
    events = []
    with ThreadPoolExecutor(1) as pool:
        url = f"{nginx.url}/v1/images/generations"
        chosen = {"X-Job-Id": "streamed-through"}
        held = pool.submit(requests.post, url, data=form, headers=chosen, timeout=60)
        job = f"{nginx.url}/jobs/streamed-through/events"
        with requests.get(job, stream=True, timeout=30) as stream:
            for line in stream.iter_lines():
                events += [line] if line.startswith(b"event:") else []
                if line == b"event: started":
                    # Seen while it is still running: only now may it end.
                    assert stats(fake)["running"] == 1
                    release(fake)
        assert held.result().ok
    assert events[0] == b"event: queued" and events[-1] == b"event: done"


def test_one_address_may_not_ask_without_end(tmp_path, fake, files):
    text = (ROOT / "deploy" / "nginx.conf").read_text()
    text = text.replace("127.0.0.1:8000", fake.url.removeprefix("http://"))
    assert "rate=200r/s" in text and "burst=1000" in text
    text = text.replace("rate=200r/s", "rate=1r/m").replace("burst=1000", "burst=30")
    with run_nginx_with(tmp_path, text, files) as slow:
        answers = [requests.get(f"{slow.url}/healthz", timeout=10) for _ in range(40)]
    refused = [answer for answer in answers if not answer.ok]
    assert {answer.status_code for answer in refused} == {429}
    assert refused[0].json()["error"].startswith("Too many requests")
    assert refused[0].headers["Retry-After"] == "1"
    assert answers[0].ok


def test_one_address_may_not_hold_connections_without_end(tmp_path, fake, files):
    requests.post(f"{fake.url}/fake/reset", timeout=10)
    text = (ROOT / "deploy" / "nginx.conf").read_text()
    text = text.replace("127.0.0.1:8000", fake.url.removeprefix("http://"))
    assert "limit_conn flux_at_once 128;" in text
    text = text.replace("limit_conn flux_at_once 128;", "limit_conn flux_at_once 2;")
    form = {"prompt": "hold", "width": 64, "height": 64}
    with run_nginx_with(tmp_path, text, files) as narrow, ThreadPoolExecutor(2) as pool:
        url = f"{narrow.url}/v1/images/generations"
        held = [pool.submit(requests.post, url, data=form, timeout=60) for _ in "ab"]
        wait_for(lambda: stats(fake)["running"] + stats(fake)["queued"] == 2, 20)
        refused = requests.get(f"{narrow.url}/v1/models", timeout=10)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        while not all(one.done() for one in held):
            release(fake)
        assert all(one.result().ok for one in held)
        assert requests.get(f"{narrow.url}/v1/models", timeout=10).ok


def test_nginx_takes_what_the_api_takes_and_waits_longer():
    text = printed(FLUX_MAX_UPLOAD_MB="200", FLUX_REQUEST_TIMEOUT="900")
    assert "client_max_body_size 201m;" in text
    assert "proxy_read_timeout 920s;" in text


@pytest.mark.parametrize("hours", ["", "24"])
def test_no_picture_is_promised_for_longer_than_it_stays(tmp_path, fake, hours):
    folder = tmp_path / "images"
    settings = {"STORAGE_URL": f"file://{folder}", "FILES_TTL_HOURS": hours}
    text = printed(**settings)
    text = text.replace("127.0.0.1:8000", fake.url.removeprefix("http://"))
    with (
        run_files(folder, FILES_TRUSTED_PROXIES=1, FILES_TTL_HOURS=hours) as files,
        run_nginx_with(tmp_path, text, files) as server,
    ):
        form = {"file": ("x.png", make_png((64, 64)), "image/png")}
        path = requests.post(f"{files.url}/upload", files=form, timeout=10).json()[
            "url"
        ]
        told = requests.get(server.url + path, timeout=10).headers["Cache-Control"]
        (seconds,) = re.findall(r"max-age=(\d+)", told)
        assert int(seconds) <= (86_400 if hours else 31_536_000)
        assert int(seconds) > (86_300 if hours else 31_535_999)


@pytest.fixture(scope="module")
def secure(tmp_path_factory, fake, files):
    """The same with TLS."""
    pem = str(ROOT / "tests" / "support" / "tls" / "server.pem")
    text = printed("--tls", pem, pem)
    text = text.replace("127.0.0.1:8000", fake.url.removeprefix("http://"))
    folder = tmp_path_factory.mktemp("secure")
    with run_nginx_with(folder, text, files, scheme="https") as server:
        yield server


def curl(*options):
    """What curl prints that speaks HTTP/2 and takes any certificate."""
    command = ["curl", "-sSk", "--http2", "--max-time", "30", *options]
    return subprocess.run(command, capture_output=True, check=True).stdout


def test_http_2_gives_pictures_and_a_plain_request_is_led_to_tls(secure, tmp_path):
    picture = tmp_path / "x.png"
    form = ["-F", "prompt=x", "-F", "width=64", "-F", "height=64"]
    told = ["-o", picture, "-w", "%{http_version} %{content_type}"]
    assert curl(*form, *told, f"{secure.url}/process/raw") == b"2 image/png"
    assert picture.read_bytes()[:4] == b"\x89PNG"
    plain = secure.url.replace("https", "http")
    sent = requests.get(f"{plain}/readyz", allow_redirects=False, timeout=10)
    assert sent.headers["Location"] == f"{secure.url}/readyz"


def test_what_http_2_claims_counts_as_little(secure, fake):
    requests.post(f"{fake.url}/fake/reset", timeout=10)
    forged = ["-H", "X-Forwarded-For: 203.0.113.9", "-H", "X-Forwarded-Host: evil.test"]
    forged += ["-H", "X-Forwarded-Proto: gopher", "-H", "Forwarded: host=evil.test"]
    curl(*forged, "-F", "prompt=x", f"{secure.url}/process")
    assert stats(fake)["requests"][-1]["caller"] == "127.0.0.1"
    token = ["-H", "Authorization: Bearer a-token-of-the-tests"]
    latest = json.loads(curl(*forged, *token, f"{secure.url}/latest"))
    # The name and the port that it was called by, which HTTP/2 has in no Host.
    assert latest["url"].startswith(f"{secure.url}/i/")
    assert curl(latest["url"])[:4] == b"\x89PNG"
    gone = curl("-w", "%{http_code}", f"{secure.url}/metrics")
    assert gone.endswith(b"404") and json.loads(gone[:-3])["error"]


def test_http_2_has_events_as_they_are_sent(secure, fake):
    requests.post(f"{fake.url}/fake/reset", timeout=10)
    chosen = ["-H", "X-Job-Id: streamed-by-http-2", "-F", "prompt=hold"]
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(curl, *chosen, "-F", "size=64x64", f"{secure.url}/process")
        wait_for(lambda: stats(fake)["running"] == 1, 20)
        url = f"{secure.url}/jobs/streamed-by-http-2/events"
        command = ["curl", "-sNk", "--http2", "--max-time", "30", url]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as following:
            events = iter(following.stdout.readline, b"")
            # It comes while the job still runs: only now may it end.
            assert b"event: started\n" in events
            release(fake)
            assert b"event: done\n" in events
        assert json.loads(held.result())["seed"] is not None


def test_behind_another_proxy_its_word_counts(tmp_path, files):
    env = {"FLUX_TRUSTED_PROXIES": "1"}
    with run_api(app="tests.support.fake_app:app", FLUX_TRUSTED_PROXIES=2) as api:
        text = printed(**env).replace("127.0.0.1:8000", api.url[len("http://") :])
        with run_nginx_with(tmp_path, text, files) as nginx:
            api.wait_ready()
            said = {"X-Forwarded-For": "198.51.100.7, 203.0.113.9"}
            form = {"prompt": "x", "width": 64, "height": 64}
            requests.post(f"{nginx.url}/process", data=form, headers=said, timeout=10)
            assert stats(api)["requests"][-1]["caller"] == "203.0.113.9"
