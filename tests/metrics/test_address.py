"""Where /metrics is: beside the API behind its keys, or at an address of its own."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import requests

from tests.support.scrape import scrape
from tests.support.servers import ROOT, free_port, run_api, run_files, wait_for
from tests.support.wire import pid

FAKE = "tests.support.fake_app:app"
KEYS = {"FLUX_API_KEYS": "alice:sk-key-of-alice"}


@pytest.fixture
def own():
    """An address that is free."""
    return f"127.0.0.1:{free_port()}"


def status(url, path="/metrics", **options):
    return requests.get(url + path, timeout=10, **options).status_code


def test_it_needs_a_key_where_keys_are_set():
    with run_api(app=FAKE, **KEYS) as server:
        assert status(server.url) == 401
        assert status(server.url, headers={"api-key": "sk-key-of-alice"}) == 200
        assert status(server.url, headers={"api-key": "sk-key-of-bob"}) == 401


def test_at_its_own_address_there_is_nothing_else_and_no_key(own):
    with run_api(app=FAKE, FLUX_METRICS_BIND=own, **KEYS) as server:
        alone = f"http://{own}"
        # Whatever the scraper calls this machine.
        assert status(alone, headers={"Host": "gpu-17.lan:9100"}) == 200
        auth = {"Authorization": "Bearer sk-key-of-alice"}
        assert status(server.url, headers=auth) == 404
        for path in ("/", "/healthz", "/v1/models", "/process", "/metrics/"):
            assert status(alone, path, headers=auth) == 404
        assert requests.post(f"{alone}/metrics", timeout=5).status_code == 404
        assert status(server.url, "/healthz") == 200


def test_names_are_still_judged_by_where_the_api_listens():
    own = f"0.0.0.0:{free_port()}"
    with run_api(app=FAKE, FLUX_METRICS_BIND=own) as server:
        assert status(server.url, "/v1/models") == 200
        assert status(server.url, "/v1/models", headers={"Host": "evil.example"}) == 403
        assert "anybody who reaches this port" not in server.output


def test_an_address_in_use_stops_the_start():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [
            *(sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py"),
            *("-b", f"127.0.0.1:{free_port()}", FAKE),
        ]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={"FLUX_METRICS_BIND": address, "PATH": ""},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert "Connection in use" in done.stderr and address.split(":")[1] in done.stderr


def test_it_survives_hup(own, load):
    gone = []
    with run_api(app=FAKE, FLUX_METRICS_BIND=own, FAKE_LOAD=load) as server:
        server.wait_ready()
        stop = threading.Event()

        def watch():
            while not stop.is_set():
                try:
                    numbers = scrape(f"http://{own}")
                    if numbers["flux_model_ready"] != 1:
                        gone.append("not ready")
                except (requests.RequestException, AssertionError) as error:
                    gone.append(repr(error))
                time.sleep(0.02)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            for _ in range(2):
                before = pid(server)
                server.process.send_signal(signal.SIGHUP)
                wait_for(lambda before=before: pid(server) != before, 30, server)
        finally:
            stop.set()
            thread.join()
        assert gone == []
        assert scrape(f"http://{own}")["flux_images_total"] == 0


def test_while_it_loads_it_says_so(load, own):
    load.write_text("hold")
    with run_api(app=FAKE, FLUX_METRICS_BIND=own, FAKE_LOAD=load) as server:
        assert scrape(f"http://{own}")["flux_model_ready"] == 0
        load.write_text("")
        server.wait_ready()
        assert scrape(f"http://{own}")["flux_model_ready"] == 1


def test_a_devices_memory_is_told_by_kind():
    with run_api(app=FAKE, FAKE_MEMORY="6,24") as server:
        numbers = scrape(server.wait_ready().url)
        assert numbers['flux_gpu_memory_bytes{kind="used"}'] == 6 << 30
        assert numbers['flux_gpu_memory_bytes{kind="total"}'] == 24 << 30


def test_the_file_server_may_have_the_same_environment(tmp_path, own):
    """As under ``make serve``: gunicorn reads the same configuration there."""
    with (
        run_files(tmp_path, FLUX_METRICS_BIND=own) as files,
        run_api(app=FAKE, FLUX_METRICS_BIND=own),
    ):
        assert status(files.url, "/healthz") == 200
        assert status(f"http://{own}") == 200


def test_scrapes_are_no_lines_of_the_log(fake):
    for _ in range(3):
        scrape(fake.url)
    assert '"route": "/metrics"' not in fake.output
