"""``serve --instances``: APIs behind a real nginx, killed, updated and stopped. Their
backend is the one of fake_app.py: an update waits for no torch."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
import requests
from click.testing import CliRunner

from flux_api.commands import fleet, instances
from flux_api.commands.program import program
from flux_api.commands.serve import warn_of_urls
from tests.commands.program import environment
from tests.support.programs import need
from tests.support.servers import ROOT, free_port, run, wait_for
from tests.support.terminal import in_terminal

COUNT = 3
CAT = {"prompt": "a cat", "width": 64, "height": 64}
SERVE = [sys.executable, "-m", "flux_api", "serve"]
FAKES = [sys.executable, "-m", "tests.support.fake_serve", "serve"]


def free_ports(count):
    """The first of ``count`` ports in a row that nobody uses."""
    while True:
        first = free_port()
        if first + count > 65_000:
            continue
        if not any(map(answers, range(first, first + count))):
            return first


def answers(port):
    try:
        requests.get(f"http://127.0.0.1:{port}/", timeout=1)
    except requests.ConnectionError:
        return False
    return True


def is_refused(url):
    """Whether nobody listens there."""
    try:
        socket.create_connection(urlsplit(url).netloc.split(":"), timeout=1).close()
    except ConnectionRefusedError:
        return True
    return False


class Served:
    """What ``serve`` started: as one, and each instance by itself."""

    def __init__(self, server, first, folder):
        self.server, self.url, self.images = server, server.url, folder / "images"
        self.models = folder / "models.toml"
        self.instances = [f"http://127.0.0.1:{first + n}" for n in range(COUNT)]

    def ran(self):
        """How many pictures each instance has finished."""
        counts = []
        for url in self.instances:
            text = requests.get(f"{url}/metrics", timeout=30).text
            done = re.findall(r'^flux_requests_total\{.*"done".*\} (\S+)', text, re.M)
            counts.append(sum(map(float, done)))
        return counts

    def masters(self):
        """The process ids of the instances' gunicorns, by their port."""
        found = {}
        pid = self.server.process.pid
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in path.read_text().split():
                command = Path(f"/proc/{child}/cmdline").read_text().split("\0")
                for url in self.instances:
                    if url.removeprefix("http://") in command:
                        found[url] = int(child)
        return found

    def workers(self):
        """The process ids of the instances' workers."""
        return [
            {
                int(c)
                for p in Path(f"/proc/{pid}/task").glob("*/children")
                for c in p.read_text().split()
            }
            for _, pid in sorted(self.masters().items())
        ]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    need("nginx")
    folder = tmp_path_factory.mktemp("served")
    bind, files, first = free_port(), free_port(), free_ports(COUNT)
    command = [
        *(*FAKES, "--instances", str(COUNT), "--bind", f"127.0.0.1:{bind}"),
        *("--files-bind", f"127.0.0.1:{files}", "--first-port", str(first)),
    ]
    settings = {
        "XDG_STATE_HOME": folder,
        "STORAGE_URL": f"file://{folder}/images",
        "FLUX_LOG_LEVEL": "warning",
        "MODEL_INFO": folder / "models.toml",
    }
    settings["MODEL_INFO"].write_text("")
    with run(command, url=f"http://127.0.0.1:{bind}", settings=settings) as server:
        wait_for(lambda: "Try it:" in server.output, 240, server)
        yield Served(server, first, folder)
        server.stop(seconds=60)


def post(served, **options):
    data = CAT | options.pop("data", {})
    return requests.post(f"{served.url}/process", data=data, timeout=120, **options)


def test_pictures_are_made_by_all_and_come_from_one_address(served):
    before = served.ran()
    with ThreadPoolExecutor(COUNT) as pool:
        slow = {"data": {"prompt": "a cat pause=0.1"}}
        held = [pool.submit(post, served, **slow) for _ in range(COUNT)]
        told = [one.result().json() for one in held]
    after = served.ran()
    assert [now - then for now, then in zip(after, before, strict=True)] == [1] * COUNT
    assert sorted(answer["job_id"][:3] for answer in told) == ["g0-", "g1-", "g2-"]
    for answer in told:
        assert answer["result_image_url"].startswith(f"{served.url}/i/")
        picture = requests.get(answer["result_image_url"], timeout=10)
        stored = served.images / answer["result_image_url"].rpartition("/")[2]
        assert picture.content == stored.read_bytes()
        assert picture.headers["Content-Type"] == "image/png"
        assert picture.headers["X-Content-Type-Options"] == "nosniff"
        assert "immutable" in picture.headers["Cache-Control"]
        assert picture.headers["Access-Control-Allow-Origin"] == "*"
        # The file server would have given it an id.
        assert "X-Request-Id" not in picture.headers


def test_jobs_are_found_again(served):
    for number in range(6):
        taken = post(served, headers={"Prefer": "respond-async"}).json()
        job = f"{served.url}/v1/jobs/{taken['id']}"
        assert "event: done" in requests.get(f"{job}/events", timeout=60).text
        assert requests.get(f"{job}/result", timeout=10).content[:4] == b"\x89PNG"
        key = {"Idempotency-Key": f"once-{number}"}
        first, again = (post(served, headers=key).json() for _ in range(2))
        assert first == again


def test_what_is_not_for_callers_is_not_there(served):
    for path in ("/metrics", "/upload", "/i/../../etc/passwd", "/i/latest.json"):
        answer = requests.get(served.url + path, timeout=10)
        assert answer.status_code in (400, 404) and "error" in answer.json(), path
    # A page under another name is not this machine's.
    strange = {"Host": "rebound.example"}
    assert requests.get(f"{served.url}/", headers=strange).status_code == 403


def test_one_that_is_killed_costs_one_request_and_comes_back(served):
    url, master = sorted(served.masters().items())[0]
    answers = []

    def ask():
        for _ in range(4):
            answers.append(post(served).status_code)

    with ThreadPoolExecutor(8) as pool:
        slow = {"prompt": "a cat hold"}
        doomed = pool.submit(requests.post, f"{url}/process", data=slow, timeout=120)
        is_running = "flux_num_requests_running 1.0"
        wait_for(lambda: is_running in requests.get(f"{url}/metrics").text, 30)
        os.kill(master, signal.SIGKILL)
        with pytest.raises(requests.ConnectionError):
            doomed.result()
        # Its connections end before its port does: what comes between is in its hands.
        wait_for(lambda: is_refused(url), 10)
        for one in [pool.submit(ask) for _ in range(4)]:
            one.result()
    assert answers == [200] * 16
    assert "the instance g0 ended (-9); it starts again in 1 s" in served.server.output
    wait_for(lambda: requests.get(f"{url}/readyz", timeout=10).ok, 90, served.server)
    before = served.ran()
    # nginx tries it again some seconds after it was away.
    wait_for(lambda: post(served).ok and served.ran()[0] > before[0], 60)


@pytest.mark.parametrize("time", ["first", "second"])
def test_an_update_that_one_cannot_take_stops_there_and_says_so(served, time):
    old, before = served.workers(), len(served.server.output)
    served.models.write_text("[broken")

    def said():
        return served.server.output[before:]

    os.kill(served.server.process.pid, signal.SIGHUP)
    wait_for(lambda: "send HUP again" in said(), 60, served.server)
    assert "instance g0 goes on with its old worker: the new worker ended" in said()
    assert "the update stops here, before instance g1, instance g2" in said()
    assert "is updated" not in said()
    served.models.write_text("")
    assert served.workers() == old
    assert post(served).ok


def test_an_update_of_all_fails_no_request(served):
    old, answers, over = served.workers(), [], threading.Event()
    slow = {"prompt": "a cat pause=0.01"}

    def ask():
        while not over.is_set():
            answers.append(post(served, data=slow).status_code)

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            os.kill(served.server.process.pid, signal.SIGHUP)
            said = "is updated"
            wait_for(lambda: served.server.output.count(said) == COUNT, 300)
        finally:
            over.set()
        asking.result()
    assert len(answers) > COUNT and set(answers) == {200}
    for before, after in zip(old, served.workers(), strict=True):
        assert after and not before & after


def test_term_finishes_what_runs_and_leaves_nothing(served):
    with ThreadPoolExecutor(COUNT) as pool:
        slow = {"data": {"prompt": "a cat pause=0.2"}}
        held = [pool.submit(post, served, **slow) for _ in range(COUNT)]

        def all_run():
            told = [requests.get(f"{url}/metrics").text for url in served.instances]
            return all("flux_num_requests_running 1.0" in text for text in told)

        wait_for(all_run, 60, served.server)
        assert served.server.stop(seconds=120) == 0
        assert [one.result().status_code for one in held] == [200] * COUNT
    for url in (served.url, *served.instances):
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{url}/healthz", timeout=2)


def test_one_that_does_not_stay_is_started_more_and_more_seldom(monkeypatch, capfd):
    clock = SimpleNamespace(now=1000.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(fleet, "time", clock)
    server = fleet.Server("instance g0", ["true"], os.environ, "http://127.0.0.1:1")
    server.start()
    pauses = []
    for _ in range(8):
        server.process.wait()
        server.restart_when_due()
        pauses.append(server.due - clock.now)
        clock.now = server.due - 0.1
        before = server.process
        server.restart_when_due()
        assert server.process is before
        clock.now = server.due
        server.restart_when_due()
        assert server.process is not before
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert "g0 ended (0); it starts again in 32 s" in capfd.readouterr().err
    # One that ran for a while is no longer one that cannot start.
    server.process.wait()
    clock.now += 100
    server.restart_when_due()
    assert server.due == clock.now + 1
    server.kill()


def test_without_nginx_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(instances.shutil, "which", lambda *_, **__: None)
    options = ["serve", "--instances", "2"]
    done = CliRunner().invoke(program, options, obj={}, standalone_mode=False)
    assert "apt-get install nginx-light" in done.output
    assert done.return_value == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--gpus", "all", "--instances", "2"], "exclude each other"),
        (["--tls", "README.md", "x"], "does not exist"),
        (["--tls", "README.md", "README.md"], "--tls needs --gpus or --instances"),
        (["--instances", "0"], "0 is not in the range"),
        (["--instances", "2", "--bind", "127.0.0.1:8101"], "need own ports"),
    ],
)
def test_options_that_cannot_be(options, said):
    done = subprocess.run(
        [*SERVE, *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert said in done.stderr


def test_a_wrong_setting_is_not_tried_again_and_again():
    ports = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    done = subprocess.run(
        [*SERVE, "--bind", ports[0], "--files-bind", ports[1]],
        cwd=ROOT,
        env=environment(FLUX_FILTER="no_such_module:judge"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "FLUX_FILTER='no_such_module:judge'" in done.stderr
    assert "the API cannot start; its last lines say why" in done.stderr


def test_without_a_gpu_that_is_said():
    done = subprocess.run(
        [*SERVE, "--gpus", "all"],
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "CUDA shows no GPU here" in done.stderr


def test_gpus_are_those_that_cuda_is_shown(monkeypatch):
    class Counted:
        returncode, stdout = 0, "2\n"

    monkeypatch.setattr(instances.subprocess, "run", lambda *_, **__: Counted)
    assert instances.list_gpus({}) == ("0", "1")
    named = {"CUDA_VISIBLE_DEVICES": "3, GPU-ab"}
    assert instances.list_gpus(named) == ("3", "GPU-ab")
    named["FLUX_METRICS_BIND"] = "[::1]:9100"
    layout = instances.Layout(
        "127.0.0.1:1", "127.0.0.1:2", 3, ("3", "GPU-ab"), None, named
    )
    given = layout.api_environ(1)
    assert given["FLUX_METRICS_BIND"] == "[::1]:9101"
    assert given["CUDA_VISIBLE_DEVICES"] == "GPU-ab"
    assert given["FLUX_INSTANCE"] == "1" and "OMP_NUM_THREADS" not in given


@pytest.mark.parametrize(
    ("bind", "settings", "local"),
    [
        ("127.0.0.1:1", {}, True),
        ("0.0.0.0:1", {}, False),
        ("127.0.0.1:1", {"FLUX_TRUSTED_PROXIES": "1"}, False),
        ("127.0.0.1:1", {"FLUX_API_KEYS": "ada:the-key-of-ada-123"}, False),
    ],
    ids=str,
)
def test_local_names_are_for_those_whom_nobody_else_reaches(bind, settings, local):
    layout = instances.Layout(bind, "127.0.0.1:2", 3, (None,), None, settings)
    assert ("FLUX_TRUSTED_HOSTS" in layout.api_environ(0)) == local


@pytest.mark.parametrize(
    ("bind", "environ", "told"),
    [
        ("0.0.0.0:8000", {}, True),
        ("127.0.0.1:8000", {}, False),
        ("0.0.0.0:8000", {"FILE_SERVER_PUBLIC_URL": "https://flux.example"}, False),
        ("0.0.0.0:8000", {"FILE_SERVER": "https://files.example"}, False),
    ],
    ids=str,
)
def test_urls_that_others_cannot_open_are_told(bind, environ, told, capfd):
    warn_of_urls(bind, "http://127.0.0.1:8010", environ)
    assert ("set FILE_SERVER_PUBLIC_URL" in capfd.readouterr().err) == told


def test_a_closed_terminal_ends_all(tmp_path):
    api, files = free_port(), free_port()
    command = [*SERVE, "--bind", f"127.0.0.1:{api}"]
    command += ["--files-bind", f"127.0.0.1:{files}"]
    settings = {"STORAGE_URL": f"file://{tmp_path}"}
    with in_terminal(command, env=environment(**settings), cwd=ROOT) as shown:
        wait_for(lambda: answers(api) and answers(files), 60)
        shown.hang_up()
        assert shown.process.wait(60) == 0
    assert not answers(api) and not answers(files)
