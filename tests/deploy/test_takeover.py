"""HUP, with a real gunicorn: the new worker takes over without a gap, or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import requests

from tests.deploy.test_nginx import run_nginx
from tests.support.servers import ROOT, run_api, run_files, wait_for
from tests.support.wire import pid, release, stats

FAKE = "tests.support.fake_app:app"
SMALL = {"width": 64, "height": 64}
CAT = SMALL | {"prompt": "a cat"}


@pytest.fixture
def fake(load):
    """A server of its own, whose loading ``load`` commands; its gunicorn ends workers
    that show no life for 3 seconds."""
    settings = {"FAKE_LOAD": load}
    with run_api("--timeout", "3", app=FAKE, imports={}, **settings) as server:
        yield server.wait_ready()


class Client:
    """Asks for pictures until it is told to stop, each time on a new connection and on
    one that is kept alive."""

    def __init__(self, url):
        self.url, self.statuses, self.longest = url, [], 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._stop.set()
        self._thread.join()

    def _ask(self):
        last = time.monotonic()
        with requests.Session() as session:
            while not self._stop.is_set():
                for ask in (session.post, requests.post):
                    answer = ask(
                        f"{self.url}/process/raw", data=SMALL | {"prompt": "x"}
                    )
                    self.statuses.append(answer.status_code)
                    now = time.monotonic()
                    if answer.ok:
                        self.longest, last = max(self.longest, now - last), now


def hup(server):
    """Tell gunicorn's master to update."""
    server.process.send_signal(signal.SIGHUP)


def booted(server):
    """How many workers were started."""
    return server.output.count("Booting worker")


def loading(server):
    """How many have begun to load."""
    return server.output.count("loading nothing")


def hold_update(server, load):
    """Update ``server``, whose new worker loads until ``load`` is written to; the
    process of the old one."""
    old = pid(server)
    load.write_text("hold")
    hup(server)
    wait_for(lambda: loading(server) == 2, 20, server)
    return old


def ready(server):
    """What /readyz says."""
    return requests.get(f"{server.url}/readyz", timeout=5)


def test_nobody_who_asks_meanwhile_notices(fake, load):
    old = pid(fake)
    load.write_text("hold")
    with Client(fake.url) as client:
        hup(fake)
        wait_for(lambda: loading(fake) == 2, 20, fake)
        # Longer than gunicorn lets a worker be silent: it shows life while it loads.
        waited, until = len(client.statuses), time.monotonic() + 5
        wait_for(lambda: time.monotonic() > until, 10, fake)
        assert len(client.statuses) > waited
        assert pid(fake) == old
        load.write_text("")
        wait_for(lambda: f"Worker exiting (pid: {old})" in fake.output, 20, fake)
        after = len(client.statuses) + 20
        wait_for(lambda: len(client.statuses) > after, 20, fake)
    assert set(client.statuses) == {200}
    assert client.longest < 2
    assert pid(fake) != old
    assert booted(fake) == 2


READ_TWICE = """
import runpy, socket
for _ in range(2):
    worker = runpy.run_path("sturdy_worker.py")
ours, _ = socket.socketpair()
worker["PolledConnection"](None, ours, None, None).close()
print(ours.fileno())
"""


def test_connections_are_closed_after_an_update_too():
    """At HUP the master reads the worker's file once more."""
    command = [sys.executable, "-c", READ_TWICE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "-1", done.stderr


def test_old_worker_finishes_what_it_has_taken_and_takes_its_jobs_along(fake):
    old, answers = pid(fake), []
    form = {"prompt": "pause=0.1", "num_inference_steps": 50} | SMALL
    headers = {"X-Job-Id": "of-the-old-one"}
    thread = threading.Thread(
        target=lambda: answers.append(
            requests.post(f"{fake.url}/process", data=form, headers=headers)
        )
    )
    thread.start()
    job = f"{fake.url}/jobs/of-the-old-one"
    wait_for(lambda: requests.get(job).ok, 10, fake)
    hup(fake)
    wait_for(lambda: pid(fake) != old, 20, fake)
    thread.join()
    assert answers[0].status_code == 200
    wait_for(lambda: f"Worker exiting (pid: {old})" in fake.output, 20, fake)
    assert requests.get(job).status_code == 404


def test_old_worker_finishes_a_job_that_nobody_waits_for(fake):
    old = pid(fake)
    form = {"prompt": "pause=0.1", "num_inference_steps": 60} | SMALL
    headers = {"Prefer": "respond-async"}
    accepted = requests.post(f"{fake.url}/process", data=form, headers=headers)
    assert accepted.status_code == 202
    hup(fake)
    wait_for(lambda: pid(fake) != old, 20, fake)
    wait_for(lambda: f"Worker exiting (pid: {old})" in fake.output, 30, fake)
    ended = fake.output.partition(f"Worker exiting (pid: {old})")[0]
    assert '"state": "done"' in ended


def test_old_worker_has_all_the_time_that_its_jobs_need():
    """Nobody waits for it: the new one has taken over."""
    with run_api("--graceful-timeout", "1", app=FAKE, imports={}) as fake:
        old = pid(fake.wait_ready())
        form = {"prompt": "pause=0.1", "num_inference_steps": 60} | SMALL
        headers = {"Prefer": "respond-async"}
        assert requests.post(f"{fake.url}/process", data=form, headers=headers).ok
        hup(fake)
        wait_for(lambda: pid(fake) != old, 20, fake)
        wait_for(lambda: f"Worker exiting (pid: {old})" in fake.output, 30, fake)
        ended = fake.output.partition(f"Worker exiting (pid: {old})")[0]
        assert '"state": "done"' in ended and "given up" not in ended


def test_who_is_to_stop_gives_up_what_takes_too_long_and_says_so():
    with run_api("--graceful-timeout", "2", app=FAKE, imports={}) as fake:
        fake.wait_ready()
        form = {"prompt": "hold"} | SMALL
        headers = {"Prefer": "respond-async"}
        assert requests.post(f"{fake.url}/process", data=form, headers=headers).ok
        fake.process.terminate()
        wait_for(lambda: "requests are given up" in fake.output, 20, fake)


def test_new_worker_that_cannot_load_leaves_the_old_one(fake, load):
    old = pid(fake)
    load.write_text("fail")
    with Client(fake.url) as client:
        hup(fake)
        wait_for(lambda: "failed_update" in ready(fake).json(), 20, fake)
        wait_for(lambda: "the update failed" in fake.output, 20, fake)
    assert set(client.statuses) == {200}
    answer = ready(fake)
    assert answer.status_code == 200
    assert answer.json()["failed_update"] == (
        "loading failed: the weights of fake are damaged"
    )
    assert "the old worker goes on: loading failed: the weights" in fake.output
    assert pid(fake) == old
    load.write_text("")
    hup(fake)
    wait_for(lambda: pid(fake) != old, 20, fake)
    assert "failed_update" not in ready(fake).json()


def test_new_worker_that_cannot_start_leaves_the_old_one(tmp_path):
    models = tmp_path / "models.toml"
    models.write_text("")
    with run_api(app=FAKE, MODEL_INFO=models) as server:
        old = pid(server.wait_ready())
        models.write_text("[broken")
        hup(server)
        wait_for(lambda: "failed_update" in ready(server).json(), 20, server)
        assert ready(server).json()["failed_update"] == (
            "the new worker ended before it was ready; the log says more"
        )
        assert pid(server) == old


def test_settings_file_that_cannot_be_read_leaves_the_old_one(tmp_path):
    own = tmp_path / "own.conf.py"
    whole = str(ROOT / "gunicorn.conf.py")
    own.write_text(f"import runpy\nglobals().update(runpy.run_path({whole!r}))\n")
    with run_api("-c", str(own), app=FAKE) as server:
        old = pid(server.wait_ready())
        own.write_text("here is a mistake")
        hup(server)
        wait_for(lambda: "failed_update" in ready(server).json(), 20, server)
        assert "settings file" in ready(server).json()["failed_update"]
        assert pid(server) == old
        assert server.stop() == 0


def test_new_worker_that_is_killed_leaves_the_old_one(fake, load):
    old = hold_update(fake, load)
    os.kill(newest(fake), signal.SIGKILL)
    wait_for(lambda: "failed_update" in ready(fake).json(), 20, fake)
    assert pid(fake) == old
    assert booted(fake) == 2


def newest(server):
    """The process id of the worker that was started last."""
    return int(server.output.split("Booting worker with pid: ")[-1].split('"')[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_both_end_at_any_time(fake, load, number):
    old = hold_update(fake, load)
    new = newest(fake)
    assert fake.stop(number) == 0
    for worker in (old, new):
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)
    assert "failed" not in fake.output


def test_both_end_while_the_new_worker_boots(fake):
    hup(fake)
    wait_for(lambda: booted(fake) == 2, 20, fake)
    assert fake.stop() == 0
    assert "Traceback" not in fake.output


def test_without_room_for_two_the_old_worker_ends_first(fake, load):
    old, answers = pid(fake), []
    form = SMALL | {"prompt": "hold"}
    thread = threading.Thread(
        target=lambda: answers.append(
            requests.post(f"{fake.url}/process", data=form, timeout=60)
        )
    )
    thread.start()
    wait_for(lambda: stats(fake)["running"], 10, fake)
    load.write_text("room")
    hup(fake)
    wait_for(lambda: ready(fake).status_code == 503, 20, fake)
    refused = requests.post(f"{fake.url}/process", data=CAT)
    assert refused.status_code == 503
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    release(fake)
    thread.join()
    assert answers[0].status_code == 200
    wait_for(lambda: pid(fake) != old and ready(fake).ok, 20, fake)
    assert "no room for both" in fake.output


def test_only_the_last_of_two_updates_counts(fake, load):
    old = hold_update(fake, load)
    first = newest(fake)
    hup(fake)
    wait_for(lambda: f"Worker exiting (pid: {first})" in fake.output, 20, fake)
    wait_for(lambda: loading(fake) == 3, 20, fake)
    assert pid(fake) == old
    load.write_text("")
    wait_for(lambda: pid(fake) == newest(fake), 20, fake)
    assert booted(fake) == 3
    assert "failed" not in fake.output


def test_old_worker_that_dies_meanwhile_leaves_no_one_waiting(fake, load):
    old = hold_update(fake, load)
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: ready(fake).status_code == 503, 20, fake)
    refused = requests.post(f"{fake.url}/process", data=CAT)
    assert refused.status_code == 503
    assert refused.headers["Retry-After"]
    load.write_text("")
    fake.wait_ready()
    assert booted(fake) == 2


def test_worker_that_is_killed_is_replaced_and_its_queue_hears_503(tmp_path, load):
    settings = {"FLUX_TRUSTED_PROXIES": 1, "FAKE_LOAD": load}
    with contextlib.ExitStack() as stack:
        files = stack.enter_context(run_files(tmp_path / "files"))
        fake = stack.enter_context(run_api(app=FAKE, **settings)).wait_ready()
        nginx = stack.enter_context(run_nginx(tmp_path, fake, files))
        answers = []

        def ask():
            form = SMALL | {"prompt": "hold"}
            answers.append(requests.post(f"{nginx.url}/process", data=form))

        threads = [threading.Thread(target=ask) for _ in range(5)]
        for thread in threads:
            thread.start()
        wait_for(lambda: stats(fake)["queued"] == 4, 20, fake)
        os.kill(pid(fake), signal.SIGKILL)
        for thread in threads:
            thread.join(30)
        assert [answer.status_code for answer in answers] == [503] * 5
        assert all(answer.headers["Retry-After"] for answer in answers)
        fake.wait_ready()
        assert requests.post(f"{nginx.url}/process", data=CAT).ok


def test_worker_whose_master_is_killed_frees_the_port_though_clients_stay(fake):
    old = pid(fake)
    host, port = fake.url.removeprefix("http://").split(":")
    with requests.Session() as session:
        assert session.post(f"{fake.url}/process", data=CAT).ok
        fake.process.kill()
        fake.process.wait()

        def is_free():
            with contextlib.suppress(requests.ConnectionError):
                assert session.post(f"{fake.url}/process", data=CAT).ok
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                with contextlib.suppress(OSError):
                    probe.bind((host, int(port)))
                    probe.listen()
                    return True

        wait_for(is_free, 10)
    wait_for(lambda: f"Worker exiting (pid: {old})" in fake.output, 10)


def test_worker_whose_loading_failed_is_replaced_cleanly(tmp_path):
    folder, models = tmp_path / "own", tmp_path / "models.toml"
    shutil.copytree(ROOT / "models" / "tiny", folder)
    whole = {path: path.read_bytes() for path in folder.rglob("*.safetensors")}
    for path, data in whole.items():
        path.write_bytes(data[:1000])
    models.write_text(f'[own]\nlike = "tiny"\nbase_model = "{folder}"\n')
    with run_api(imports={}, MODEL_INFO=models, FLUX_MODEL="own") as server:
        # In the middle of its first try, and while it waits for the next.
        hup(server)
        wait_for(lambda: "failed" in ready(server).json()["reason"], 60, server)
        hup(server)
        wait_for(lambda: booted(server) == 3, 20, server)
        for path, data in whole.items():
            path.write_bytes(data)
        server.wait_ready()
        assert "was sent" not in server.output
        assert "exited with code" not in server.output
        assert server.stop() == 0
