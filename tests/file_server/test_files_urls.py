"""Whose word counts for a URL: the settings', never a caller's header."""

from __future__ import annotations

import pytest

from tests.file_server.serving import fact
from tests.support.servers import wait_for


@fact("6-public-url")
def test_urls_start_with_the_public_url_whatever_the_request_claims(serve, folder):
    server = serve(PUBLIC_URL="https://pictures.example/files/", **folder.settings)
    path = server.stored()
    for headers in ({}, {"Host": "evil.example"}, {"X-Forwarded-Host": "evil.example"}):
        url = server.latest(**headers).json()["url"]
        assert url == f"https://pictures.example/files{path}"


FORGED = {
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Protocol": "ssl",
    "X-Forwarded-Ssl": "on",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Port": "444",
    "X-Forwarded-Prefix": "/evil",
    "X-Forwarded-For": "1.2.3.4",
    "Forwarded": "for=1.2.3.4;host=evil.example;proto=https",
    "Script-Name": "/evil",
    "X-Original-Url": "/evil",
    "X-Http-Method-Override": "DELETE",
}


@pytest.mark.parametrize("name", FORGED)
@fact("forged-headers")
def test_forwarding_headers_of_a_caller_do_nothing(server, name):
    path = server.stored()
    headers = {name: FORGED[name]}
    assert server.latest(**headers).json()["url"] == server.url + path


@pytest.mark.parametrize("host", ["", "a b", "x/y", "x@y", "<script>", "x\\y", "a,b"])
@fact("forged-host")
def test_a_malformed_host_never_reaches_a_url(server, host):
    path = server.stored()
    answer = server.latest(Host=host)
    # gunicorn itself refuses some of them.
    assert answer.status_code in (200, 400)
    if answer.status_code == 200:
        assert answer.json()["url"] == server.url + path


@fact("forged-host", "6-trusted-hosts")
def test_a_host_outside_the_list_is_refused_once_there_is_one(serve, folder):
    hosts = "files.example,.lan"
    server = serve(FILES_TRUSTED_HOSTS=hosts, **folder.settings)
    path = server.stored()
    for host in ("files.example", "files.example:8010", "pc.lan"):
        assert server.latest(Host=host).json()["url"] == f"http://{host}{path}"
    for host in ("evil.example", "files.example.evil.example", "127.0.0.1"):
        answer = server.latest(Host=host)
        assert answer.status_code == 400
        assert list(answer.json()) == ["error"]
    assert server.get("/healthz", headers={"Host": "127.0.0.1"}).status_code == 200


@fact("proxy-hops")
def test_behind_one_proxy_only_the_last_hop_counts(serve, folder):
    server = serve(FILES_TRUSTED_PROXIES="1", **folder.settings)
    path = server.stored()
    port = server.url.rpartition(":")[2]

    def url(**headers):
        return server.latest(**headers).json()["url"]

    secure = {"Host": "files.example", "X-Forwarded-Proto": "https"}
    assert url(**secure) == f"https://files.example{path}"
    last_says_http = {"Host": "files.example", "X-Forwarded-Proto": "https, http"}
    assert url(**last_says_http) == f"http://files.example{path}"
    forged = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Ssl": "on"}
    assert url(**forged) == f"http://127.0.0.1:{port}{path}"
    server.get("/healthz", headers={"X-Forwarded-For": "6.6.6.6, 192.0.2.7"})
    server.get("/healthz")
    # A line is written after the answer is out.
    wait_for(lambda: "192.0.2.7" in {line.get("remote") for line in server.log()}, 20)
    assert "6.6.6.6" not in {line.get("remote") for line in server.log()}
