"""Pages of other sites and foreign names: shut out while the server asks no key."""

from __future__ import annotations

import pytest
import requests

from tests.support.servers import run_api
from tests.support.wire import message_of, stats

FAKE = "tests.support.fake_app:app"
CAT = {"prompt": "a cat"}
PATHS = ["/process", "/v1/images/generations"]


def post(server, path="/process", **headers):
    """A small picture, asked for with these headers."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.post(server.url + path, data=CAT, headers=names, timeout=30)


@pytest.mark.parametrize("path", PATHS)
def test_a_page_of_another_site_is_refused(fake, path):
    for origin in ({"Origin": "https://evil.test"}, {"Origin": "null"}, {}):
        answer = post(fake, path, Sec_Fetch_Site="cross-site", **origin)
        assert answer.status_code == 403
        assert "FLUX_CORS_ORIGINS" in message_of(answer)
    told = post(fake, path, Sec_Fetch_Site="cross-site", Origin="null")
    assert "FLUX_API_KEYS" in message_of(told)
    assert stats(fake)["begun"] == 0
    gone = requests.delete(
        f"{fake.url}/jobs/some-job-id", headers={"Sec-Fetch-Site": "cross-site"}
    )
    assert gone.status_code == 403


@pytest.mark.parametrize("path", [*PATHS, "/sdapi/v1/interrupt"])
def test_without_fetch_metadata_the_origin_counts(fake, path):
    """Browsers send none to plain http on another machine."""
    named = {"Host": "localhost:8000"}
    for origin in ("https://evil.test", "null", "http://localhost.evil.test:8000"):
        answer = post(fake, path, Origin=origin, **named)
        assert answer.status_code == 403, origin
    # Whatever the port is: proxies drop it.
    for origin in ("http://localhost", "http://LOCALHOST:9000"):
        answer = post(fake, path, Origin=origin, **named)
        assert answer.status_code == 200, answer.text
    assert post(fake, path, Origin="http://[::1]:1", Host="[::1]:8000").ok
    # What another site's page cannot send unasked, as this server's own page does.
    own = {"X_Requested_With": "XMLHttpRequest"}
    assert post(fake, path, Origin="http://gpu.lan", **own).ok


def test_a_proxy_may_say_what_the_pages_address_was(fake):
    named = {"Host": "localhost:8000", "X_Forwarded_Host": "a.example, b.example"}
    assert post(fake, Origin="https://b.example", **named).ok
    assert post(fake, Origin="https://c.example", **named).status_code == 403


def test_the_openai_dialect_has_a_code_for_it(fake):
    answer = post(fake, PATHS[1], Sec_Fetch_Site="cross-site")
    assert answer.json()["error"]["code"] == "cross_site_request"


@pytest.mark.parametrize("site", [None, "same-origin", "same-site", "none"])
def test_others_pass(fake, site):
    headers = {"Sec_Fetch_Site": site} if site else {}
    assert post(fake, **headers).status_code == 200


def test_reading_and_health_pass(fake):
    for path in ("/", "/v1/models", "/healthz", "/readyz"):
        answer = requests.get(
            fake.url + path,
            headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
        )
        assert answer.status_code == 200
        # What is true now need not be when a cache is asked.
        assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("settings", "origin"),
    [
        ({"FLUX_CORS_ORIGINS": "https://app.test"}, "https://app.test"),
        ({"FLUX_CORS_ORIGINS": "app://obsidian.md,file://"}, "app://obsidian.md"),
        ({"FLUX_CORS_ORIGINS": "*"}, "null"),
        ({"FLUX_API_KEYS": "app:the-key-of-app"}, "https://app.test"),
    ],
    ids=str,
)
def test_what_the_operator_allows_passes(settings, origin):
    with run_api(app=FAKE, **settings) as server:
        server.wait_ready()
        answer = post(
            server,
            Sec_Fetch_Site="cross-site",
            Origin=origin,
            Authorization="Bearer the-key-of-app",
        )
        assert answer.status_code == 200


LOCAL = ["localhost", "127.0.0.1", "[::1]", "app.localhost", "host.docker.internal"]


@pytest.mark.parametrize("name", [*LOCAL, "LOCALHOST", "localhost.", "localhost:1"])
def test_local_names_are_taken_on_a_loopback_address(fake, name):
    assert post(fake, Host=name).status_code == 200


@pytest.mark.parametrize(
    "name", ["evil.test", "localhost.evil.test", "127.0.0.1.evil.test", "[::2]", "x:80"]
)
@pytest.mark.parametrize("path", PATHS)
def test_foreign_names_are_not(fake, path, name):
    answer = post(fake, path, Host=name)
    assert answer.status_code == 403
    assert "FLUX_TRUSTED_HOSTS" in message_of(answer)
    # A page would read this as well as post.
    assert (
        requests.get(f"{fake.url}/v1/models", headers={"Host": name}).status_code == 403
    )
    for path in ("/healthz", "/readyz"):
        answer = requests.get(fake.url + path, headers={"Host": name})
        assert answer.status_code == 200


@pytest.mark.parametrize(
    ("settings", "taken", "refused"),
    [
        ({"FLUX_TRUSTED_HOSTS": "gpu.lan,.test"}, ["gpu.lan", "a.test"], ["localhost"]),
        ({"FLUX_TRUSTED_HOSTS": "*"}, ["anything.test"], []),
        ({"FLUX_TRUSTED_PROXIES": 1}, ["anything.test"], []),
    ],
    ids=str,
)
def test_names_follow_the_settings(settings, taken, refused):
    with run_api(app=FAKE, **settings) as server:
        server.wait_ready()
        for status, names in ((200, taken), (403, refused)):
            for name in names:
                assert post(server, Host=name).status_code == status


def test_where_others_can_call_every_name_will_do():
    with run_api("-b", "0.0.0.0:0", app=FAKE) as server:
        server.wait_ready()
        assert post(server, Host="any.test").status_code == 200


def test_with_keys_every_name_will_do():
    with run_api(app=FAKE, FLUX_API_KEYS="app:the-key-of-app") as server:
        server.wait_ready()
        answer = post(server, Host="any.test", Authorization="Bearer the-key-of-app")
        assert answer.status_code == 200


@pytest.mark.parametrize("hops", [0, 1])
def test_the_prefix_of_a_proxy_counts_where_proxies_do(hops):
    with run_api(app=FAKE, FLUX_TRUSTED_PROXIES=hops) as server:
        server.wait_ready()
        answer = requests.get(
            f"{server.url}/flux/v1/models", headers={"SCRIPT_NAME": "/flux"}
        )
        assert answer.status_code == (200 if hops else 404)
        # What nobody can have meant does not end in 500.
        odd = requests.get(f"{server.url}/v1/models", headers={"SCRIPT_NAME": "/x"})
        assert odd.status_code == (500 if hops else 200)
