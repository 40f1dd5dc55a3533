"""Webhooks: told once a request has ended, signed, kept until they are taken."""

from __future__ import annotations

import hashlib
import hmac
import json
import signal
import stat
import subprocess
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from tests.support.servers import run_api, wait_for
from tests.support.wire import post, stats

FAKE = "tests.support.fake_app:app"
SMALL = {"prompt": "a cat", "width": 64, "height": 64}
SECRET = "a-secret-of-the-receiver"
# Another program's reckoning of the signature than the server's own.
SIGN = "openssl dgst -sha256 -hmac {} -hex -r"


class Receiver:
    """What came, and what is answered: the first ``refused`` times 500."""

    def __init__(self, refused=0):
        self.came = []
        self.refused = refused
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.came.append((self.path, self.headers, body))
                refused = len(receiver.came) <= receiver.refused
                self.send_response(500 if refused else 204)
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"

    @contextmanager
    def running(self):
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def bodies(self):
        """What was told, as JSON."""
        return [json.loads(body) for _, _, body in self.came]


def run(folder, **more):
    """A server that may tell this machine, and keeps what it has to say in
    ``folder``."""
    settings = {
        "FLUX_WEBHOOK_HOSTS": "127.0.0.1",
        "FLUX_ALLOW_PRIVATE_NETS": "127.0.0.0/8",
        "FLUX_STATE_DIR": folder,
    }
    return run_api(app=FAKE, **settings | more)


def begin(server, receiver, **values):
    """The id of a request whose end ``receiver`` is told."""
    body = SMALL | {"webhook_url": receiver.url, "webhook_secret": SECRET} | values
    answer = post(server, "/v1/flux-dev", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["webhook_url"] == receiver.url
    return answer.json()["id"]


def kept(folder):
    """The files of what is still to be said."""
    return sorted((folder / "webhooks").glob("*.json"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def server(folder):
    with run(folder) as running:
        yield running.wait_ready()


def test_the_end_is_told_and_signed(server, folder):
    with Receiver().running() as receiver:
        task = begin(server, receiver, seed=7)
        wait_for(lambda: receiver.came and not kept(folder), 20, server)
    [(path, headers, body)] = receiver.came
    assert path == "/hook"
    told = json.loads(body)
    assert (told["id"], told["status"]) == (task, "Ready")
    assert told["result"]["seed"] == 7
    assert told["timestamp"].startswith("20")
    assert requests.get(told["result"]["sample"], timeout=10).ok
    done = subprocess.run(
        SIGN.format(SECRET).split(), input=body, capture_output=True, check=True
    )
    signature = done.stdout.split()[0].decode()
    assert headers["X-BFL-Signature"] == f"sha256={signature}"
    assert signature == hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()


def test_a_failure_is_told_too(server):
    with Receiver().running() as receiver:
        begin(server, receiver, prompt="fail=pipeline")
        wait_for(lambda: receiver.came, 20, server)
    [told] = receiver.bodies()
    assert (told["status"], told["result"]) == ("Error", None)
    assert told["details"]["code"] == "generation_failed"


def test_what_is_refused_is_sent_again(server, folder):
    with Receiver(refused=1).running() as receiver:
        begin(server, receiver)
        wait_for(lambda: len(receiver.came) == 2 and not kept(folder), 30, server)
    assert receiver.came[0][2] == receiver.came[1][2]


def test_a_file_that_cannot_be_read_keeps_no_other_waiting(server, folder):
    # Nobody, not even root, reads a folder like a file.
    strange = folder / "webhooks" / "0.json"
    strange.mkdir(parents=True)
    with Receiver().running() as receiver:
        begin(server, receiver)
        wait_for(lambda: receiver.came and kept(folder) == [strange], 20, server)
    strange.rmdir()
    assert "a webhook's file cannot be read: Is a directory" in server.output


def test_a_restart_in_the_middle_loses_none(tmp_path):
    receiver = Receiver(refused=10**6)
    with receiver.running():
        with run(tmp_path) as server:
            server.wait_ready()
            done = begin(server, receiver)
            wait_for(lambda: receiver.came, 20, server)
            lost = begin(server, receiver, prompt="hold")
            wait_for(lambda: stats(server)["running"] == 1, 10, server)
            [*files] = kept(tmp_path)
            assert len(files) == 2
            assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
            server.stop(signal.SIGKILL)
        receiver.came.clear()
        receiver.refused = 0
        with run(tmp_path) as server:
            wait_for(lambda: len(receiver.came) == 2, 20, server)
            wait_for(lambda: not kept(tmp_path), 10, server)
    told = {told["id"]: told for told in receiver.bodies()}
    assert told[done]["status"] == "Ready"
    # Nobody waits for ever for a picture that no server makes any more.
    assert told[lost]["status"] == "Error"
    assert told[lost]["details"]["code"] == "server_ended"


def test_of_what_never_began_nothing_is_told_and_nothing_kept(server, folder):
    with Receiver().running() as receiver:
        body = SMALL | {"prompt": "unprepared", "webhook_url": receiver.url}
        assert post(server, "/v1/flux-dev", json=body).status_code == 503
        assert kept(folder) == []
        begin(server, receiver)
        wait_for(lambda: receiver.came, 20, server)
        assert len(receiver.came) == 1


def test_a_day_later_and_beyond_a_thousand_nothing_is_kept(tmp_path):
    receiver = Receiver()
    webhooks = tmp_path / "webhooks"
    webhooks.mkdir()
    told = {"url": receiver.url, "secret": None, "body": "{}"}

    def keep(name, until):
        """A file as another process leaves it."""
        (webhooks / f"{name}.json").write_text(json.dumps(told | {"until": until}))

    keep("old", time.time() - 1)
    with receiver.running(), run(tmp_path) as server:
        server.wait_ready()
        wait_for(lambda: not kept(tmp_path), 10, server)
        assert receiver.came == [], "its day is over"
        receiver.refused = 10**6
        for number in range(1000):
            keep(number, time.time() + 3600)
        body = SMALL | {"webhook_url": receiver.url}
        answer = post(server, "/v1/flux-dev", json=body)
        assert answer.status_code == 400
        assert "1000 webhooks wait" in answer.json()["message"]
        assert stats(server)["begun"] == 0


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("http://10.0.0.1/hook", "FLUX_WEBHOOK_HOSTS"),
        ("http://localhost:1/hook", "FLUX_WEBHOOK_HOSTS"),
        ("ftp://127.0.0.1/hook", "webhook_url is not an http or https URL."),
        ("hook", "webhook_url is not an http or https URL."),
        ("http://me:you@127.0.0.1/hook", "password"),
    ],
)
def test_other_hosts_are_refused(server, url, word):
    answer = post(server, "/v1/flux-dev", json=SMALL | {"webhook_url": url})
    assert answer.status_code == 400
    assert word in answer.json()["message"]
    assert answer.json()["code"] == "webhook_refused"


def test_private_addresses_are_refused_at_submission(tmp_path):
    hosts = "127.0.0.1,localhost"
    settings = {"FLUX_WEBHOOK_HOSTS": hosts, "FLUX_ALLOW_PRIVATE_NETS": ""}
    with run(tmp_path, **settings) as server:
        server.wait_ready()
        for host in hosts.split(","):
            url = f"http://{host}:1/hook"
            answer = post(server, "/v1/flux-dev", json=SMALL | {"webhook_url": url})
            assert answer.status_code == 400
            assert "FLUX_ALLOW_PRIVATE_NETS" in answer.json()["message"]
        assert kept(tmp_path) == []
        assert stats(server)["begun"] == 0


def test_a_state_folder_that_cannot_be_used_is_said_at_the_start(tmp_path):
    # Nobody, not even root, makes folders there.
    with run("/proc/nowhere/state") as server, Receiver().running() as receiver:
        server.wait_ready()
        assert "FLUX_STATE_DIR cannot be used" in server.output
        body = SMALL | {"webhook_url": receiver.url}
        answer = post(server, "/v1/flux-dev", json=body)
        assert answer.status_code == 400
        assert "cannot keep webhooks" in answer.json()["message"]
        assert stats(server)["begun"] == 0
