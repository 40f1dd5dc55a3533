"""A machine that is short of something: 503 with Retry-After, and later it works."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import signal
import socket
from pathlib import Path

import pytest
import requests

from tests.support.pictures import make_png
from tests.support.servers import run_api, wait_for
from tests.support.wire import pid

FAKE = "tests.support.fake_app:app"
FORM = {"prompt": "x", "width": 64, "height": 64}


@pytest.fixture(scope="module")
def fake():
    """A server of its own, whose limits are lowered."""
    with run_api(app=FAKE) as server:
        yield server.wait_ready()


@contextlib.contextmanager
def limited(process, kind, most):
    """The process with at most ``most`` of ``kind``."""
    _, hard = before = resource.prlimit(process, kind)
    resource.prlimit(process, kind, (most, hard))
    try:
        yield
    finally:
        resource.prlimit(process, kind, before)


def address_space(process):
    """Its bytes of virtual memory."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmSize:\s+(\d+)", status)[1]) * 1024


def post(server, **body):
    """A picture by the original API."""
    return requests.post(f"{server.url}/process", timeout=30, **({"data": FORM} | body))


def assert_refused(answer):
    """503 that says when to come again."""
    assert answer.status_code == 503, answer.text
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert "error" in answer.json()


def works_again(server, process):
    """The same process makes pictures of pictures."""
    files = {"input_file": make_png()}
    wait_for(lambda: post(server, files=files).ok, 10, server)
    assert pid(server) == process


def test_without_descriptors_connections_are_refused_and_later_taken(fake):
    process = pid(fake)
    host, port = fake.url.removeprefix("http://").split(":")
    taken = len(os.listdir(f"/proc/{process}/fd"))
    with (
        limited(process, resource.RLIMIT_NOFILE, taken + 10),
        contextlib.ExitStack() as idle,
    ):
        for _ in range(20):
            idle.enter_context(socket.create_connection((host, int(port))))
        for _ in range(5):
            assert_refused(post(fake))
    works_again(fake, process)
    assert "short of resources, refusing connections" in fake.output


def test_without_descriptors_for_it_a_picture_is_refused(fake):
    process = pid(fake)
    taken = len(os.listdir(f"/proc/{process}/fd"))
    with limited(process, resource.RLIMIT_NOFILE, taken + 1):
        killed = children(process)
        for child in killed:
            os.kill(child, signal.SIGKILL)
        # One that is still dying would be asked, and fail at the picture.
        wait_for(lambda: all(map(has_ended, killed)), 10)
        assert_refused(post(fake, files={"input_file": make_png()}))
        assert requests.get(f"{fake.url}/healthz", timeout=5).ok
    works_again(fake, process)


def has_ended(process):
    """Whether nothing of it is left but what its parent may ask for."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] == "Z"
    except FileNotFoundError:
        return True


def children(process):
    """Those that decode pictures."""
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def test_without_memory_for_it_a_body_is_refused(fake):
    process = pid(fake)
    with limited(process, resource.RLIMIT_AS, address_space(process) + (20 << 20)):
        assert_refused(post(fake, files={"input_file": b"x" * (60 << 20)}))
        assert requests.get(f"{fake.url}/healthz", timeout=5).ok
    works_again(fake, process)


def test_without_memory_for_a_threads_stack_a_request_is_refused(fake):
    process = pid(fake)
    host, port = fake.url.removeprefix("http://").split(":")
    half = b"POST /process HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"
    with (
        limited(process, resource.RLIMIT_AS, address_space(process) + (2 << 20)),
        contextlib.ExitStack() as slow,
    ):
        # Each has a thread that watches it, on a stack that was used before, at first.
        for _ in range(20):
            client = slow.enter_context(socket.create_connection((host, int(port))))
            client.sendall(half)
        wait_for(lambda: post(fake).status_code == 503, 10, fake)
        assert_refused(post(fake, files={"input_file": make_png()}))
        assert requests.get(f"{fake.url}/healthz", timeout=5).ok
    works_again(fake, process)


@pytest.mark.parametrize("what", ["host_memory", "descriptors", "disk", "threads"])
def test_a_backend_that_is_short_of_something_is_worth_another_try(fake, what):
    assert_refused(post(fake, data=FORM | {"prompt": f"fail={what}"}))
    body = {"prompt": f"fail={what}", "size": "64x64"}
    answer = requests.post(f"{fake.url}/v1/images/generations", json=body, timeout=30)
    assert_refused(answer)
    assert answer.json()["error"]["code"] == "server_is_overloaded"
    assert "X-Should-Retry" not in answer.headers
    assert post(fake).ok


def test_lora_folder_that_is_away_fails_only_who_names_loras(tmp_path):
    folder = tmp_path / "loras"
    folder.mkdir()
    with run_api(app=FAKE, FLUX_LORA_DIR=folder) as server:
        process = pid(server.wait_ready())
        shutil.rmtree(folder)
        named = FORM | {"loras": '["ink"]'}
        assert_refused(post(server, data=named))
        assert_refused(requests.get(f"{server.url}/v1/loras", timeout=5))
        assert requests.get(f"{server.url}/v1/capabilities", timeout=5).ok
        assert post(server).ok
        # A worker that dies meanwhile cannot be replaced, but its master lives on.
        os.kill(process, signal.SIGKILL)
        wait_for(lambda: "exited with code 3" in server.output, 20, server)
        folder.mkdir()
        server.wait_ready()
        assert post(server, data=named).status_code == 400
        assert post(server).ok


def test_master_that_is_short_of_something_goes_on_and_starts_a_worker_later():
    with run_api(app=FAKE) as server:
        process, master = pid(server.wait_ready()), server.process.pid
        with limited(master, resource.RLIMIT_NOFILE, 3):
            server.process.send_signal(signal.SIGHUP)
            wait_for(
                lambda: "failed_update" in requests.get(f"{server.url}/readyz").json(),
                *(20, server),
            )
            assert pid(server) == process
            os.kill(process, signal.SIGKILL)
            wait_for(lambda: "cannot be started for now" in server.output, 20, server)
        server.wait_ready()
        assert post(server).ok
