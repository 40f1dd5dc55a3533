"""Fetching a picture's URL: nobody is led where they may not go.

The numbers in the ids name the measured facts (section, finding) and the faults (W)
that a case stands for.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import ipaddress
import logging
import re
import socket
import sys
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux_api.errors import ImageFetchFailed, InvalidRequest, Unavailable
from flux_api.images.codec import EncodedImage
from flux_api.net.addresses import SPECIAL_NETWORKS, is_special
from flux_api.net.fetch import Fetcher, FetchPolicy
from flux_api.net.file_server import FileServer
from flux_api.net.urls import UrlError, is_named, parse_url
from tests.support.trap_server import (
    BODY,
    answer,
    client_tls,
    drip,
    flood,
    redirect,
    server_tls,
    trap,
)

LOOPBACK = ipaddress.ip_network("127.0.0.0/8")


def policy(max_bytes=2**20, **options):
    """As much as no test here sends, and what is not opened is closed."""
    return FetchPolicy(max_bytes, **options)


OPEN = policy(allowed_networks=(LOOPBACK,), total_seconds=5)
TOKEN = "s3cret-token"

# Every connection that this process tries, by an audit hook: those cannot be removed,
# so it listens only while a test asks. Nothing leaves this machine then.
_listening: list[list[object]] = []


def _hear(event, args):
    if event == "socket.connect":
        for heard in _listening:
            heard.append(args[1])
        if _listening and args[1][0] not in ("127.0.0.1", "::1"):
            raise ConnectionRefusedError("tests dial nobody else")


sys.addaudithook(_hear)


@contextlib.contextmanager
def connections_tried():
    heard: list[object] = []
    _listening.append(heard)
    try:
        yield heard
    finally:
        _listening.remove(heard)


def names(**table):
    """A resolver that knows these names and numeric addresses only."""
    calls = []

    def resolve(host, port, **options):
        calls.append(host)
        entry = table.get(host.replace(".", "_").replace("-", "_"))
        if callable(entry):
            entry = entry()
        if entry is None:
            flags = socket.AI_NUMERICHOST
            return socket.getaddrinfo(host, port, flags=flags, **options)
        found = []
        for address in entry:
            found += socket.getaddrinfo(address, port, **options)
        return found

    resolve.calls = calls
    return resolve


def assert_refused(fetcher, url, **options):
    """Refused with the one public message, and nothing was dialled."""
    with connections_tried() as tried, pytest.raises(ImageFetchFailed) as caught:
        fetcher.fetch(url, **options)
    assert tried == []
    assert_public(caught.value)


def assert_public(error):
    # The one sentence; an address that the caller wrote out is told to be none.
    assert re.fullmatch(
        r"cannot fetch input_image_url: "
        r"([0-9a-f.:]+ is not a public address|no picture came from there)\. "
        r"Addresses of private networks need FLUX_ALLOW_PRIVATE_NETS\.",
        error.message,
    )
    assert error.param == "input_image_url"
    assert error.code == "image_fetch_failed"
    assert error.status == 400


def assert_failed(fetcher, url, **options):
    with pytest.raises(ImageFetchFailed) as caught:
        fetcher.fetch(url, **options)
    assert_public(caught.value)


# Where a fetch may not go


SPELLINGS = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "127.255.255.254",
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0x7f.1",
    "0X7F.0x0.0x0.0x1",
    "017700000001",
    "0177.0.0.1",
    "0177.1",
    "00000177.0.0.1",
    "127.0.0.1.",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "0",
    "0.0.0.0",
    "0x0",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[2002:7f00:1::]",
    "\uff11\uff12\uff17.\uff10.\uff10.\uff11",
    "127\u30020\u30020\u30021",
    "\u2460\u2461\u2466.\u24ea.\u24ea.\u2460",
]


@pytest.mark.parametrize("host", SPELLINGS, ids=lambda host: f"3-{host}")
def test_3_every_spelling_of_loopback_is_refused(host):
    with trap() as seen:
        assert_refused(Fetcher(policy()), seen.url(host=host))
        assert seen.connections == 0


@pytest.mark.parametrize(
    "host",
    [
        "[fe80::1%25lo]",
        "[::1%lo]",
        "127.0.0.1%2e",
        "local%00host",
        "127.0.0.1%23.example.com",
        "-127.0.0.1",
        "[127.0.0.1]",
        "[::1",
        "::1",
        "127.0.0.1:80",
        "exa$mple.com",
        "",
    ],
)
def test_3_hosts_that_no_url_has_are_refused(host):
    with trap() as seen, connections_tried() as tried:
        with pytest.raises((InvalidRequest, ImageFetchFailed)):
            Fetcher(policy()).fetch(seen.url(host=host))
        assert tried == []
        assert seen.connections == 0


def test_0_7_the_deny_list_is_the_fixed_one():
    """By hand, not from ``ipaddress``, whose answers change with Python's patches."""
    expected = """0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 168.63.129.16/32
        169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 192.31.196.0/24
        192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15
        198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 ::/96 ::ffff:0:0/96
        ::ffff:0:0:0/96 64:ff9b::/96 64:ff9b:1::/48 100::/64 2001::/23 2001:db8::/32
        2002::/16 2620:4f:8000::/48 3fff::/20 5f00::/16 fc00::/7 fe80::/10 fec0::/10
        ff00::/8"""
    assert {str(network) for network in SPECIAL_NETWORKS} == set(expected.split())


@pytest.mark.parametrize("network", SPECIAL_NETWORKS, ids=lambda net: f"0-7-{net}")
def test_0_7_every_special_network_is_refused(network):
    for address in {network[0], network[-1]}:
        fetcher = Fetcher(policy(), resolve=names(odd_test=[str(address)]))
        assert_refused(fetcher, "http://odd.test/")
        host = f"[{address}]" if network.version == 6 else str(address)
        assert_refused(fetcher, f"http://{host}/")


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "8.8.8.8",
        "168.63.129.17",
        "100.128.0.1",
        "172.32.0.1",
        "2606:4700::1",
    ],
)
def test_public_addresses_are_not_special(address):
    assert not is_special(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "addresses",
    [
        pytest.param(["8.8.8.8", "127.0.0.1"], id="W10-public-first"),
        pytest.param(["127.0.0.1", "8.8.8.8"], id="W10-private-first"),
        pytest.param(["8.8.8.8", "::1"], id="W10-other-family"),
        pytest.param(["8.8.8.8", "::ffff:127.0.0.1"], id="W10-mapped"),
        pytest.param(["8.8.8.8"] * 50 + ["169.254.169.254"], id="W10-last-of-many"),
    ],
)
def test_3_mixed_answers_are_refused(addresses):
    fetcher = Fetcher(policy(), resolve=names(mixed_test=addresses))
    assert_refused(fetcher, "http://mixed.test/")


@pytest.mark.parametrize("second", ["127.0.0.1"], ids=["W10-public-then-loopback"])
def test_rebinding_a_name_dials_only_what_was_checked(second):
    with trap() as seen:
        answers = iter([["8.8.8.8"], [second]])
        resolve = names(rebind_test=lambda: next(answers))
        fetcher = Fetcher(policy(), resolve=resolve)
        with connections_tried() as tried:
            assert_failed(fetcher, seen.url(host="rebind.test"))
        assert tried == [("8.8.8.8", seen.port)]
        assert resolve.calls == ["rebind.test"]
        assert seen.connections == 0
        assert_refused(fetcher, seen.url(host="rebind.test"))
        assert seen.connections == 0


@pytest.mark.parametrize("second", ["10.0.0.1"], ids=["W10-resolved-once"])
def test_an_allowed_name_is_resolved_once(second):
    with trap() as seen:
        answers = iter([["127.0.0.1"], [second]])
        resolve = names(rebind_test=lambda: next(answers))
        with connections_tried() as tried:
            url = seen.url(host="rebind.test")
            assert Fetcher(OPEN, resolve=resolve).fetch(url) == BODY
        assert tried == [("127.0.0.1", seen.port)]
        assert resolve.calls == ["rebind.test"]


@pytest.mark.parametrize("second", ["127.0.0.2"], ids=["W10-between-redirects"])
def test_each_redirect_resolves_and_checks_again(second):
    with trap(redirect("/again")) as seen:
        answers = iter([["127.0.0.1"], [second]])
        allowed = ipaddress.ip_network("127.0.0.1/32")
        fetcher = Fetcher(
            policy(allowed_networks=(allowed,)),
            resolve=names(rebind_test=lambda: next(answers)),
        )
        assert_failed(fetcher, seen.url(host="rebind.test"))
        assert seen.connections == 1


def test_3_a_resolver_without_answers_or_with_nonsense_fails():
    for entries in ([], [(socket.AF_INET, 1, 6, "", ("nonsense", 80))]):
        assert_refused(
            Fetcher(policy(), resolve=lambda *a, found=entries, **k: found),
            "http://odd.test/",
        )

    def broken(*args, **options):
        raise socket.gaierror(-2, "Name or service not known")

    assert_refused(Fetcher(policy(), resolve=broken), "http://odd.test/")


def test_a_name_server_that_is_away_is_worth_another_try():
    def away(*args, **options):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    with pytest.raises(Unavailable) as refused:
        Fetcher(policy(), resolve=away).fetch("http://example.com/a.png")
    assert refused.value.retry_after
    assert "example" not in refused.value.message


def test_a_fetch_without_a_descriptor_for_it_is_worth_another_try():
    def short(*args, **options):
        raise OSError(errno.EMFILE, "Too many open files")

    with pytest.raises(Unavailable) as refused:
        Fetcher(policy(), resolve=short).fetch("http://example.com/a.png")
    assert refused.value.retry_after


def test_3_a_slow_resolver_counts_into_the_total_time():
    release = threading.Event()

    def slow(*args, **options):
        release.wait(10)
        return []

    started = time.monotonic()
    fetcher = Fetcher(policy(total_seconds=0.3), resolve=slow)
    assert_refused(fetcher, "http://slow.test/")
    assert time.monotonic() - started < 3
    release.set()


# What opens private networks


def test_allowed_networks_open_only_themselves():
    with trap() as seen:
        assert Fetcher(OPEN).fetch(seen.url()) == BODY
        other = (ipaddress.ip_network("10.1.0.0/16"),)
        assert_refused(Fetcher(policy(allowed_networks=other)), seen.url())
        mapped = seen.url(host="[::ffff:127.0.0.1]")
        assert_refused(Fetcher(OPEN), mapped)


def test_allow_private_opens_all():
    with trap() as seen:
        fetcher = Fetcher(policy(allow_private=True))
        assert fetcher.fetch(seen.url()) == BODY


def own(seen, prefix="", host="127.0.0.1", **options):
    base = f"http://{host}:{seen.port}{prefix}"
    return policy(own_origins=(parse_url(base),), total_seconds=5, **options)


@pytest.mark.parametrize(
    "path", ["/i/abc.png", "/i/A-b_9.webp", "/latest/raw", "/i/a?x=1"]
)
def test_own_files_are_open(path):
    with trap() as seen:
        assert Fetcher(own(seen)).fetch(seen.url(path)) == BODY


@pytest.mark.parametrize("prefix", ["/files", "/files/", "/a/b"])
def test_own_files_may_lie_below_a_prefix(prefix):
    with trap() as seen:
        fetcher = Fetcher(own(seen, prefix))
        inside = f"{prefix.rstrip('/')}/i/abc.png"
        assert fetcher.fetch(seen.url(inside)) == BODY
        for path in ("/i/abc.png", f"{prefix.rstrip('/')}x/i/abc.png", "/latest/raw"):
            assert_refused(fetcher, seen.url(path))


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "",
        "/latest",
        "/healthz",
        "/upload",
        "/i/",
        "/i",
        "/i/../latest",
        "/i/..",
        "/i/.hidden",
        "/i/a/../../healthz",
        "/i/%2e%2e/healthz",
        "/i/%2E%2E%2Fhealthz",
        "/i/a%2F..%2F..%2Fhealthz",
        "/i/a/b",
        "//i/a.png",
        "/I/a.png",
        "/latest/raw/",
        "/latest/raw/../../upload",
        "/i/a.png;x",
        "/i/a.png%00",
        "/./i/a.png",
        "/\uff49/a.png",
    ],
)
def test_own_origin_opens_only_its_pictures(path):
    with trap() as seen:
        assert_refused(Fetcher(own(seen)), seen.url(path))
        assert seen.connections == 0


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ("401 No", "the file server wants its BEARER_TOKEN"),
        ("403 No", "the file server does not take this bearer_token."),
        ("404 No", "the file server has no such picture."),
        ("500 No", "the file server answers 500."),
    ],
)
def test_what_the_own_file_server_says_is_told(status, told):
    with trap(answer(status=status)) as seen:
        with pytest.raises(ImageFetchFailed, match=re.escape(told)):
            Fetcher(own(seen)).fetch(seen.url())
        # Of others nothing is.
        assert_failed(Fetcher(OPEN), seen.url())


def test_own_origin_is_exact():
    with trap() as seen, trap() as other:
        fetcher = Fetcher(own(seen))
        assert_refused(fetcher, other.url())
        assert_refused(fetcher, other.url(host="localhost"))
        assert_refused(fetcher, seen.url(host="127.1"))
        assert_refused(fetcher, seen.url(host="127.0.0.2"))
        assert_refused(fetcher, seen.url(scheme="https"))
        assert_refused(fetcher, seen.url(scheme="https", host="localhost"))
        assert_refused(fetcher, seen.url("/upload", host="localhost"))


@pytest.mark.parametrize("base", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"])
def test_own_files_are_open_by_every_name_of_this_machine(base, host):
    # What answers for another of the names at that port is not asked.
    resolve = names(**{base: ["127.0.0.1"]})
    with trap() as seen:
        fetcher = Fetcher(own(seen, host=base), resolve=resolve)
        assert fetcher.fetch(seen.url(host=host)) == BODY
        assert seen.header("Host") == f"{base}:{seen.port}"
    # Where the file server is elsewhere, they are this machine's own.
    with trap() as seen:
        away = Fetcher(own(seen, host="files.example"), resolve=resolve)
        assert_failed(away, seen.url(host=host))
        assert seen.connections == 0


def test_that_the_own_file_server_is_down_is_told():
    with trap() as seen:
        fetcher = Fetcher(own(seen))
    with pytest.raises(ImageFetchFailed) as caught:
        fetcher.fetch(seen.url())
    told = "cannot fetch input_image_url: the file server does not answer."
    assert caught.value.message == told


def test_own_origin_may_be_a_name_for_loopback():
    with trap() as seen:
        resolve = names(files=["127.0.0.1"])
        fetcher = Fetcher(own(seen, host="files"), resolve=resolve)
        assert fetcher.fetch(seen.url(host="files")) == BODY
        assert fetcher.fetch(seen.url(host="FILES")) == BODY
        assert seen.header("Host") == f"files:{seen.port}"


def test_a_redirect_away_from_the_own_origin_is_checked():
    with trap() as other:
        with trap(redirect(other.url())) as seen:
            assert_failed(Fetcher(own(seen)), seen.url())
            assert seen.connections == 1
        assert other.connections == 0


def test_a_redirect_into_the_own_origin_is_open_for_its_pictures_only():
    with trap() as files:
        for path, outcome in (("/i/a.png", 1), ("/upload", 0)):
            with trap(redirect(files.url(path))) as seen:
                own_origins = (parse_url(files.url("")), parse_url(seen.url("")))
                both = policy(own_origins=own_origins, total_seconds=5)
                before = files.connections
                if outcome:
                    assert Fetcher(both).fetch(seen.url()) == BODY
                else:
                    assert_failed(Fetcher(both), seen.url())
                assert files.connections - before == outcome


# Redirects


def test_three_redirects_are_followed_and_a_fourth_is_not():
    def hop(seen, conn):
        path = seen.requests[-1].split(" ")[1]
        count = int(path.rsplit("/", 1)[1])
        return redirect(f"/hop/{count - 1}") if count else answer()

    with trap(hop) as seen:
        assert Fetcher(OPEN).fetch(seen.url("/hop/3")) == BODY
        assert len(seen.requests) == 4
        assert_failed(Fetcher(OPEN), seen.url("/hop/4"))
        assert len(seen.requests) == 8


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]/",
        "//10.0.0.1/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_x",
        "data:image/png;base64,AAAA",
        "ftp://127.0.0.1/",
        "http://user:pass@127.0.0.1/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1\\@example.com/",
        "http://[",
        "/a b",
    ],
)
def test_3_each_redirect_is_checked(location):
    with trap(redirect(location)) as seen, connections_tried() as tried:
        assert_failed(Fetcher(OPEN), seen.url())
        assert tried == [("127.0.0.1", seen.port)]


@pytest.mark.parametrize("status", ["301 M", "302 F", "303 S", "307 T", "308 P"])
def test_every_kind_of_redirect_is_followed(status):
    with trap() as goal, trap(redirect(goal.url("/x?y=1"), status)) as seen:
        assert Fetcher(OPEN).fetch(seen.url()) == BODY
        assert goal.requests[0].startswith("GET /x?y=1 HTTP/1.1\r\n")


@pytest.mark.parametrize("size", [100 * 2**20], ids=["0-6-redirect-of-100-mb"])
def test_the_body_of_a_redirect_is_not_read(size):
    head = b"HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: %d\r\n\r\n"
    with trap() as goal, trap(flood(head % (goal.url().encode(), size))) as seen:
        assert Fetcher(OPEN).fetch(seen.url()) == BODY
        time.sleep(0.2)
        assert seen.sent < size / 2  # Socket buffers only.


# The token


def test_3_the_token_goes_to_the_first_origin():
    with trap() as seen:
        Fetcher(OPEN).fetch(seen.url(), bearer_token=TOKEN)
        assert seen.header("Authorization") == f"Bearer {TOKEN}"
        Fetcher(OPEN).fetch(seen.url())
        assert seen.header("Authorization") is None


def test_3_the_token_stays_within_the_first_origin():
    def handle(seen, conn):
        return answer() if " /end " in seen.requests[-1] else redirect("/end")

    with trap(handle) as seen:
        Fetcher(OPEN).fetch(seen.url(), bearer_token=TOKEN)
        assert seen.header("Authorization") == f"Bearer {TOKEN}"


def test_3_the_token_goes_to_no_other_origin_nor_back_again():
    def handle(seen, conn):
        first = len(seen.requests) == 1
        return redirect(away.url("/")) if first else answer()

    with trap(handle) as home, trap(lambda *_: redirect(home.url("/back"))) as away:
        Fetcher(OPEN).fetch(home.url(), bearer_token=TOKEN)
        assert home.header("Authorization", 0) == f"Bearer {TOKEN}"
        assert away.header("Authorization") is None
        assert home.header("Authorization", 1) is None


def test_3_another_name_for_the_same_server_is_another_origin():
    def handle(seen, conn):
        away = seen.url(host="other.test")
        return redirect(away) if len(seen.requests) == 1 else answer()

    with trap(handle) as seen:
        fetcher = Fetcher(OPEN, resolve=names(other_test=["127.0.0.1"]))
        fetcher.fetch(seen.url(), bearer_token=TOKEN)
        assert seen.header("Authorization", 1) is None


@pytest.mark.parametrize(
    "token",
    [
        "a b",
        "a\r\nX-Evil: 1",
        "\u00e9",
        "\u3042",
        "a\0",
        " ",
        "x" * 4097,
        "a\n",
        "\x7f",
    ],
)
def test_3_a_token_of_other_characters_is_refused(token):
    with trap() as seen:
        with pytest.raises(InvalidRequest) as caught:
            Fetcher(OPEN).fetch(seen.url(), bearer_token=token)
        assert caught.value.param == "bearer_token"
        assert seen.connections == 0
        longest = "~" * 4096
        Fetcher(OPEN).fetch(seen.url(), bearer_token=longest)
        assert seen.header("Authorization") == f"Bearer {longest}"


def test_logs_hold_neither_token_nor_query(caplog):
    caplog.set_level(logging.DEBUG)

    def echo(seen, conn):
        seen.send(conn, f"HTTP/9 {TOKEN} {TOKEN}\r\n\r\n".encode())

    with trap(echo) as seen, trap(answer(status=f"404 {TOKEN}")) as missing:
        for server in (seen, missing):
            url = server.url("/a/b.png?signature=hidden")
            assert_failed(Fetcher(OPEN), url, bearer_token=TOKEN)
    ours = [entry for entry in caplog.records if entry.name == "flux_api.net.fetch"]
    assert len(ours) == 2
    for entry in caplog.records:
        text = entry.getMessage()
        assert TOKEN not in text
        assert entry.name != "flux_api.net.fetch" or "hidden" not in text
    assert "/a/b.png" in ours[0].getMessage()


def test_failures_name_the_parameter_asked_for():
    with pytest.raises(ImageFetchFailed, match="^cannot fetch image: 127") as caught:
        Fetcher(policy()).fetch("http://127.0.0.1/", param="image")
    assert caught.value.param == "image"


# Requests


def test_the_request_is_what_a_server_expects(monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with trap() as proxy, trap() as seen:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url(""))
        fetcher = Fetcher(OPEN, resolve=names(pictures_test=["127.0.0.1"]))
        fetcher.fetch(
            seen.url("/p%20q/\u753b\u50cf.png?a=b#frag", host="pictures.test")
        )
        assert proxy.connections == 0
        line = seen.requests[0].split("\r\n")[0]
        assert line == "GET /p%20q/%E7%94%BB%E5%83%8F.png?a=b HTTP/1.1"
        assert seen.header("Host") == f"pictures.test:{seen.port}"
        assert seen.header("Accept-Encoding") == "identity"
        assert seen.header("Authorization") is None
        assert seen.header("Proxy-Authorization") is None
        assert seen.header("Cookie") is None
        assert len(seen.requests) == 1


def test_ipv6_is_dialled_when_allowed():
    allowed = (ipaddress.ip_network("::1/128"),)
    try:
        server = trap(family=socket.AF_INET6)
        with server as seen:
            fetcher = Fetcher(policy(allowed_networks=allowed))
            assert fetcher.fetch(seen.url(host="[::1]")) == BODY
            assert seen.header("Host") == f"[::1]:{seen.port}"
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")


def test_a_dead_address_is_passed_over_for_the_next():
    with trap() as seen:
        resolve = names(two_test=["127.0.0.77", "127.0.0.1"])
        assert Fetcher(OPEN, resolve=resolve).fetch(seen.url(host="two.test")) == BODY


def test_of_many_dead_addresses_four_are_tried():
    """Each may cost seconds."""
    dead = [f"127.0.0.{number}" for number in range(71, 76)]
    with trap() as seen:
        for count, reached in ((3, True), (4, False)):
            resolve = names(many_test=[*dead[:count], "127.0.0.1"])
            fetcher, url = Fetcher(OPEN, resolve=resolve), seen.url(host="many.test")
            with connections_tried() as tried:
                if reached:
                    assert fetcher.fetch(url) == BODY
                else:
                    assert_failed(fetcher, url)
            assert len(tried) == 4


def test_tls_names_and_verifies_the_host():
    asked = []
    with trap(tls=server_tls(asked)) as seen:
        resolve = names(pictures_test=["127.0.0.1"], other_test=["127.0.0.1"])
        fetcher = Fetcher(OPEN, resolve=resolve, tls=client_tls())
        url = seen.url(host="pictures.test", scheme="https")
        assert fetcher.fetch(url, bearer_token=TOKEN) == BODY
        assert asked == ["pictures.test"]
        assert seen.header("Host") == f"pictures.test:{seen.port}"
        wrong_name = seen.url(host="other.test", scheme="https")
        assert_failed(fetcher, wrong_name, bearer_token=TOKEN)
        assert_failed(Fetcher(OPEN, resolve=resolve), url, bearer_token=TOKEN)
        assert len(seen.requests) == 1


# Limits


def small(**options):
    defaults = {"total_seconds": 5, "max_bytes": 1000, "allowed_networks": (LOOPBACK,)}
    return Fetcher(policy(**{**defaults, **options}))


def chunked(body):
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


GOOD = {
    "length": answer(bytes(1000)),
    "chunked": chunked(bytes(1000)),
    "until-closed": b"HTTP/1.1 200 OK\r\n\r\n" + bytes(1000),
    "http-1.0": b"HTTP/1.0 200 OK\r\n\r\n" + bytes(1000),
    "identity": answer(bytes(1000), Content_Encoding="identity"),
    # Where it lies, too; only a redirect says that it does not lie here.
    "location": answer(bytes(1000), Content_Location="/a", Location="/b"),
    "any-type": answer(bytes(1000), Content_Type="text/html"),
    "continue": b"HTTP/1.1 100 Continue\r\n\r\n" + answer(bytes(1000)),
}


@pytest.mark.parametrize("reply", GOOD.values(), ids=GOOD)
def test_complete_answers_are_taken_up_to_the_limit(reply):
    with trap(reply) as seen:
        assert small().fetch(seen.url()) == bytes(1000)


HEAD = b"HTTP/1.1 200 OK\r\n"
BAD = {
    "3-length-over-limit": answer(bytes(1001)),
    "3-length-claims-too-much": answer(b"x", Content_Length=10**12),
    "3-chunked-over-limit": chunked(bytes(1001)),
    "3-until-closed-over-limit": HEAD + b"\r\n" + bytes(1001),
    "3-gzip-bomb": answer(gzip.compress(bytes(10**6)), Content_Encoding="gzip"),
    "3-deflate": answer(b"x", Content_Encoding="deflate"),
    "3-brotli": answer(b"x", Content_Encoding="br"),
    "3-two-encodings": HEAD
    + b"Content-Encoding: identity\r\nContent-Encoding: gzip\r\n\r\nx",
    "3-short-body": answer(b"x" * 10, Content_Length=20),
    "3-short-chunk": chunked(b"x" * 10)[:-9],
    "3-chunk-without-end": chunked(b"x" * 10)[:-5],
    "3-bad-chunk-size": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "3-negative-length": answer(b"x", Content_Length=-1),
    "3-no-number-length": answer(b"x", Content_Length="ten"),
    "3-two-lengths": HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "3-empty": answer(b""),
    "3-no-content": answer(b"", "204 No Content"),
    "3-partial": answer(b"x", "206 Partial Content"),
    "3-not-found": answer(b"x", "404 Not Found"),
    "3-unauthorized": answer(b"x", "401 Unauthorized"),
    "3-server-error": answer(b"x", "500 Oh"),
    "3-not-modified": answer(b"", "304 Not Modified", Location="/"),
    "3-redirect-to-nowhere": answer(b"x", "302 Found"),
    "3-not-http": b"220 ftp.example.com ready\r\n",
    "3-bad-status": b"HTTP/1.1 abc\r\n\r\n",
    "3-nothing": b"",
    "3-long-header": HEAD + b"X: " + b"a" * 70_000 + b"\r\n\r\nx",
    "3-many-headers": HEAD + b"X: a\r\n" * 200 + b"\r\nx",
    "3-long-status": b"HTTP/1.1 200 " + b"a" * 70_000 + b"\r\n\r\nx",
}


@pytest.mark.parametrize("reply", BAD.values(), ids=BAD)
def test_every_other_answer_fails_alike(reply):
    def handle(seen, conn):
        if reply:
            seen.send(conn, reply)

    with trap(handle) as seen:
        assert_failed(small(), seen.url())
        assert seen.connections == 1
    with trap() as good:
        assert small().fetch(good.url()) == BODY


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", id="until-closed"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n", id="length"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6400000\r\n",
            id="one-chunk",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n", id="encoded"
        ),
        pytest.param(b"HTTP/1.1 500 Oh\r\n\r\n", id="error"),
    ],
)
def test_3_a_huge_body_is_not_read_beyond_the_limit(head):
    with trap(flood(head)) as seen:
        assert_failed(small(), seen.url())
        time.sleep(0.1)
        assert seen.sent < 50 * 2**20  # Socket buffers only.


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n", id="body"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", id="body-until-closed"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: ", id="header"),
        pytest.param(b"HTTP/1.1 ", id="status"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_3_a_drip_ends_with_the_total_time(start):
    def handle(seen, conn):
        seen.send(conn, start)
        drip(b"2" * 200)(seen, conn)

    with trap(handle) as seen:
        started = time.monotonic()
        assert_failed(small(total_seconds=0.5), seen.url())
        assert time.monotonic() - started < 3


def test_3_the_total_time_is_not_given_anew_for_each_redirect():
    def late(seen, conn):
        time.sleep(0.3)
        return redirect("/again")

    with trap(late) as seen:
        assert_failed(small(total_seconds=0.5), seen.url())
        assert len(seen.requests) == 2


@pytest.mark.parametrize("endless", ["continue", "headers", "redirects"])
def test_3_endless_answers_end(endless):
    def handle(seen, conn):
        if endless == "redirects":
            return redirect("/again")
        line = (
            b"HTTP/1.1 100 Continue\r\n\r\n" if endless == "continue" else b"A: b\r\n"
        )
        seen.send(conn, HEAD if endless == "headers" else b"")
        while True:
            seen.send(conn, line)
            time.sleep(0.001)

    with trap(handle) as seen:
        started = time.monotonic()
        assert_failed(small(total_seconds=0.5), seen.url())
        assert time.monotonic() - started < 3


def test_3_a_tls_handshake_that_never_comes_ends_too():
    listener = socket.create_server(("127.0.0.1", 0))
    with listener:
        port = listener.getsockname()[1]
        started = time.monotonic()
        assert_failed(small(total_seconds=0.5), f"https://127.0.0.1:{port}/")
        assert time.monotonic() - started < 3


def test_3_a_refused_connection_fails_alike():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert_failed(small(), f"http://127.0.0.1:{port}/")


def test_a_fetch_ends_when_nobody_wants_it():
    wanted = threading.Event()
    wanted.set()

    def handle(seen, conn):
        wanted.clear()
        conn.settimeout(10)
        with contextlib.suppress(OSError):
            conn.recv(1)  # Until it is shut: nothing is ever answered.

    with trap(handle) as seen:
        started = time.monotonic()
        with pytest.raises(ImageFetchFailed):
            small(total_seconds=60).fetch(seen.url(), is_wanted=wanted.is_set)
        assert time.monotonic() - started < 4


def test_failures_leave_no_thread_or_socket_behind():
    with trap(answer(status="404 No")) as seen:
        fetcher = small()
        assert_failed(fetcher, seen.url())
        before = threading.active_count()
        for _ in range(24):
            assert_failed(fetcher, seen.url())
        deadline = time.monotonic() + 5
        while threading.active_count() > before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert threading.active_count() <= before


# Syntax


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("", id="empty"),
        pytest.param("example.com/a.png", id="no-scheme"),
        pytest.param("//example.com/a.png", id="no-scheme-either"),
        pytest.param("ftp://example.com/a.png", id="ftp"),
        pytest.param("file:///etc/passwd", id="file"),
        pytest.param("javascript:alert(1)", id="javascript"),
        pytest.param("http://", id="no-host"),
        pytest.param("http:///a.png", id="no-host-but-path"),
        pytest.param("http://user:pass@example.com/", id="userinfo"),
        pytest.param("http://@example.com/", id="empty-userinfo"),
        pytest.param("http://example.com/a b", id="blank"),
        pytest.param("http://example.com/\ta", id="tab"),
        pytest.param("http://example.com/\r\nX-Evil:1", id="newline"),
        pytest.param("http://exa\nmple.com/", id="newline-in-host"),
        pytest.param("http://example.com/\0", id="nul"),
        pytest.param("http://example.com/\x85a", id="c1"),
        pytest.param("http://example.com/\u2028a", id="line-separator"),
        pytest.param("http://example.com\\@127.0.0.1/", id="backslash"),
        pytest.param("http://example.com:0/", id="port-0"),
        pytest.param("http://example.com:65536/", id="port-65536"),
        pytest.param("http://example.com:-1/", id="port-negative"),
        pytest.param("http://example.com:\uff18\uff10/", id="port-full-width"),
        pytest.param("http://example.com:80:80/", id="two-ports"),
        pytest.param("http://" + "a" * 254 + "/", id="long-host"),
        pytest.param("http://example.com/" + "a" * 2000, id="long"),
        pytest.param("http://\udcff/", id="surrogate"),
        pytest.param("http://example.com/\udcff", id="surrogate-in-path"),
    ],
)
def test_3_impossible_urls_are_refused_in_one_clause(url):
    with connections_tried() as tried, pytest.raises(InvalidRequest) as caught:
        Fetcher(OPEN).fetch(url)
    assert tried == []
    assert caught.value.param == "input_image_url"
    assert caught.value.message.startswith("input_image_url ")
    assert len(caught.value.message) < 100


@pytest.mark.parametrize(("scheme", "port"), [("http", 80), ("https", 443)])
def test_without_a_port_it_is_the_one_that_servers_of_the_scheme_listen_at(
    scheme, port
):
    fetcher = Fetcher(policy(), resolve=names(pictures_test=["8.8.8.8"]))
    own = FileServer(f"{scheme}://192.0.2.1", "https://files.example")
    with connections_tried() as tried:
        assert_failed(fetcher, f"{scheme}://pictures.test/a.png")
        assert own.upload(EncodedImage(b"picture", "image/png")) is None
    assert tried == [("8.8.8.8", port), ("192.0.2.1", port)]


def test_a_url_of_the_longest_length_is_taken():
    with trap() as seen:
        url = seen.url("/")
        assert Fetcher(OPEN).fetch(url + "a" * (2000 - len(url))) == BODY


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("example.org", {"example.org", "*", ".org"}),
        # What is below it, and it itself.
        ("a.b.example.org", {".example.org", ".b.example.org", "*", ".org"}),
        ("notexample.org", {"*", ".org"}),
        ("localhost", {"*", ".localhost"}),
    ],
)
def test_a_host_is_known_by_its_name_or_by_what_it_is_below(name, known):
    names = {"example.org", ".b.example.org", ".org", "*", ".localhost"}
    assert {one for one in names if is_named(name, [one])} == known & names


def test_blanks_around_a_url_are_forgiven():
    with trap() as seen:
        assert Fetcher(OPEN).fetch(f" {seen.url()}\r\n") == BODY


# Whatever comes


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=60), st.sampled_from(["", "http://", "https://", "http://a/"]))
def test_any_text_is_a_url_or_a_refusal(text, start):
    try:
        url = parse_url(start + text)
    except UrlError:
        return
    assert url.scheme in ("http", "https")
    assert 0 < url.port < 65_536
    assert url.host.isascii()
    assert not set(url.host) & set("@/\\?#% ")
    assert url.target.isascii()
    assert url.target.startswith("/")
    assert not any(character <= " " or character == "\x7f" for character in url.target)
    assert parse_url(str(url)).origin == url.origin


def spellings(number):
    """Ways to write an IPv4 address that a resolver understands."""
    a, b, c, d = number >> 24, number >> 16 & 255, number >> 8 & 255, number & 255
    return [
        f"{a}.{b}.{c}.{d}",
        str(number),
        hex(number),
        f"0{number:o}",
        f"{a}.{number & 0xFFFFFF}",
        f"0x{a:x}.0{b:o}.{c << 8 | d}",
        f"[::ffff:{a}.{b}.{c}.{d}]",
        f"[::{a}.{b}.{c}.{d}]",
        f"[64:ff9b::{a}.{b}.{c}.{d}]",
        f"[2002:{number >> 16:x}:{number & 0xFFFF:x}::1]",
    ]


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from([net for net in SPECIAL_NETWORKS if net.version == 4]).flatmap(
        lambda net: st.integers(int(net[0]), int(net[-1]))
    ),
    st.integers(0, 9),
)
def test_no_spelling_of_a_special_address_is_dialled(number, which):
    url = f"http://{spellings(number)[which]}/"
    assert_refused(Fetcher(policy(total_seconds=2), tls=NO_TLS), url)


NO_TLS = client_tls()
