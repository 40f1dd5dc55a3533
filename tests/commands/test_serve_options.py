"""What ``serve`` makes of its options and settings, before it starts anything."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import click
import pytest

from flux_api.commands import fleet
from flux_api.commands.fleet import Fleet, Server
from flux_api.commands.instances import Layout
from flux_api.commands.program import run
from flux_api.commands.serve import Address, welcome
from tests.support.servers import wait_for
from tests.support.trap_server import answer, trap


def plan(bind="127.0.0.1:8000", count=1, certificate=None, **environ):
    """Of as many instances as ``count`` says, without GPUs."""
    return Layout(bind, "127.0.0.1:8010", 8100, (None,) * count, certificate, environ)


@pytest.mark.parametrize("text", ["127.0.0.1:1", "[::]:8000", "host:65535"])
def test_an_address_has_a_host_and_a_port(text):
    assert Address().convert(text, None, None) == text


@pytest.mark.parametrize(
    "text",
    ["8000", ":8000", "host:", "host:0", "host:65536", "host:8000000", "h:\u0661"],
)
def test_what_has_none_is_no_address(text):
    with pytest.raises(click.BadParameter, match="is not HOST:PORT"):
        Address().convert(text, None, None)


@pytest.mark.parametrize(
    ("bind", "url"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("0.0.0.0:8000", "http://127.0.0.1:8000"),
        ("[::]:8000", "http://[::1]:8000"),
        ("192.0.2.7:80", "http://192.0.2.7:80"),
    ],
)
def test_it_is_reached_from_here_at_an_address_that_can_be_called(bind, url):
    assert plan(bind).url == url
    pair = (Path("server.pem"), Path("server.key"))
    assert plan(bind, certificate=pair).url == url.replace("http:", "https:")


@pytest.mark.parametrize("count", [1, 2, 1000])
def test_instances_share_the_cores_that_there_are(count):
    cores = len(os.sched_getaffinity(0))
    threads = int(plan(count=count).api_environ(0)["OMP_NUM_THREADS"])
    assert threads == max(1, cores // count)
    chosen = plan(count=count, OMP_NUM_THREADS="3").api_environ(0)
    assert chosen["OMP_NUM_THREADS"] == "3"


def test_each_instance_has_its_place():
    given = plan(count=3, FLUX_TRUSTED_PROXIES="1")
    assert given.instances == ("127.0.0.1:8100", "127.0.0.1:8101", "127.0.0.1:8102")
    own = [given.api_environ(number) for number in range(3)]
    assert [one["FLUX_INSTANCE"] for one in own] == ["0", "1", "2"]
    # nginx is one more proxy than there is in front.
    assert {one["FLUX_TRUSTED_PROXIES"] for one in own} == {"2"}
    assert given.files_environ()["FILES_TRUSTED_PROXIES"] == "2"
    assert {one["FILE_SERVER"] for one in own} == {"http://127.0.0.1:8010"}
    assert {one["FILE_SERVER_PUBLIC_URL"] for one in own} == {given.url}


@pytest.mark.parametrize(
    ("environ", "public"),
    [
        # nginx has no picture of another file server.
        ({"FILE_SERVER": "https://files.example.org"}, None),
        ({"FILE_SERVER_PUBLIC_URL": ""}, "http://127.0.0.1:8000"),
        ({"FILE_SERVER_PUBLIC_URL": "https://me.example"}, "https://me.example"),
    ],
)
def test_urls_of_pictures_lead_to_where_they_are(environ, public):
    given = plan("127.0.0.1:8000", count=2, **environ).api_environ(1)
    assert given.get("FILE_SERVER_PUBLIC_URL") == public
    assert given["FILE_SERVER"] == environ.get("FILE_SERVER", "http://127.0.0.1:8010")


@pytest.mark.parametrize(
    ("bind", "host"), [("127.0.0.5:8000", "127.0.0.5"), ("[::1]:8000", "::1")]
)
def test_the_name_that_it_is_bound_to_is_trusted(bind, host):
    names = plan(bind).api_environ(0)["FLUX_TRUSTED_HOSTS"].split(",")
    assert {"localhost", host} <= set(names)


@pytest.mark.parametrize("options", [[], ["--instances", "2"], ["--print-nginx"]])
def test_a_wrong_setting_is_said_before_anything_starts(capfd, options):
    for name, value in (("FLUX_MAX_QUEUE", "many"), ("FLUX_MODEL", "klein")):
        assert run(["serve", *options], {name: value}) == 2
        assert f"flux-api: {name}='{value}'" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("environ", "has_key"),
    [
        ({}, False),
        ({"FLUX_API_KEYS": "a:b"}, True),
        ({"FLUX_API_KEYS_FILE": "f"}, True),
    ],
)
def test_the_command_to_paste_has_the_key_where_one_is_needed(environ, has_key):
    text = welcome("http://a", "http://b", "klein-4b", environ)
    [line] = [line for line in text.splitlines() if line.startswith("  curl ")]
    assert line.startswith("  curl http://a/process/raw ")
    assert ('-H "Authorization: Bearer $FLUX_KEY"' in line) is has_key
    assert "klein-4b" in text and "http://b\n" in text


@pytest.fixture
def signals():
    """Signals as they were, after a test."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def test_a_second_signal_does_not_wait_for_who_goes_on(signals, tmp_path):
    def deaf(name):
        """One that does not end at TERM, as while it draws a picture."""
        return ["sh", "-c", f"trap '' TERM; touch {tmp_path}/{name}; exec sleep 600"]

    api = Server("API", deaf("api"), os.environ, "http://127.0.0.1:1")
    files = Server("file server", deaf("files"), os.environ)
    running = Fleet([api], files)
    running.start()
    wait_for(lambda: len(list(tmp_path.iterdir())) == 2, 20)
    assert not running.is_stopping
    signal.raise_signal(signal.SIGTERM)
    assert running.is_stopping
    signal.raise_signal(signal.SIGINT)
    running.stop()
    assert (api.status, files.status) == (-signal.SIGKILL, -signal.SIGKILL)


def test_nginx_is_asked_while_one_loads_so_that_it_sends_that_one_nothing(
    signals, monkeypatch
):
    monkeypatch.setattr(fleet, "_PROBE_SECONDS", 0.01)
    loads = threading.Event()

    def ready(seen, conn):
        if loads.is_set():
            return answer(b'{"reason": "loading"}', "503 Not Yet")
        return answer(b'{"model": "tiny"}')

    with trap(ready) as one, trap(ready) as other, trap() as nginx:
        front = Server("nginx", [], {})
        apis = [
            Server(f"g{n}", [], {}, at.url("")) for n, at in enumerate((one, other))
        ]
        files = Server("file server", [], {})
        running = Fleet(apis, files, front, nginx_url=nginx.url(""))
        assert running.look() == "tiny"
        # A question counts as work there: none is asked without need.
        wait_for(lambda: one.connections > 5, 20)
        assert nginx.connections == 0
        loads.set()
        wait_for(lambda: nginx.connections >= 2 * len(apis), 20)
        assert {head.split(" HTTP")[0] for head in nginx.requests} == {"GET /readyz"}
        signal.raise_signal(signal.SIGTERM)


def test_what_another_try_would_not_help_is_told_apart(signals):
    """gunicorn's own exit codes say that its worker cannot boot."""

    def ended(name, code, url):
        server = Server(name, ["sh", "-c", f"exit {code}"], os.environ, url)
        server.start()
        server.process.wait()
        return server

    files = Server("file server", ["sleep", "600"], os.environ)
    files.start()
    for code, hopeless in ((0, False), (1, False), (2, False), (3, True), (5, False)):
        api = ended("API", code, "http://127.0.0.1:1")
        assert (Fleet([api], files).cannot_start() is api) is hopeless, code
    files.kill()
    assert Fleet([], files).cannot_start() is files
