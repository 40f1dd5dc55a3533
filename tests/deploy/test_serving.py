"""The running server as an operator meets it: health, loading, stopping."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import threading

import pytest
import requests
from PIL import Image

from tests.support.servers import ROOT, free_port, run, run_api, wait_for


def test_port_answers_while_the_model_loads_and_post_is_refused():
    with run_api(imports={}) as server:
        ready = requests.get(f"{server.url}/readyz", timeout=5)
        assert ready.status_code == 503
        assert ready.json()["reason"]
        refused = requests.post(
            f"{server.url}/process", data={"prompt": "a cat"}, timeout=5
        )
        assert refused.status_code == 503
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        in_openai = requests.post(
            f"{server.url}/v1/images/generations", json={"prompt": "a cat"}, timeout=5
        )
        assert in_openai.status_code == 503
        assert in_openai.json()["error"]["type"] == "service_unavailable_error"
        # No request was needed for it to begin.
        server.wait_ready()
        # TERM lets a running picture finish.
        answers = []
        thread = threading.Thread(
            target=lambda: answers.append(
                requests.post(
                    f"{server.url}/process/raw",
                    data={"prompt": "a cat", "num_inference_steps": 60},
                    headers={"X-Job-Id": "a-long-run"},
                    timeout=60,
                )
            )
        )
        thread.start()
        job = f"{server.url}/jobs/a-long-run"
        wait_for(lambda: "step" in requests.get(job, timeout=5).json(), 30, server)
        assert server.stop() == 0
        thread.join()
        assert answers[0].status_code == 200
        assert Image.open(io.BytesIO(answers[0].content)).size == (512, 512)


def test_failed_load_leaves_the_process_alive_and_says_why(tmp_path):
    broken = tmp_path / "checkout"
    shutil.copytree(
        ROOT,
        broken,
        ignore=shutil.ignore_patterns(
            *(".*", "var", "tests", "training", "docs", "*.safetensors")
        ),
    )
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py"]
    with run(
        [*command, "-b", f"127.0.0.1:{port}", "wsgi:app"],
        url=f"http://127.0.0.1:{port}",
        settings={"PYTHONPATH": str(broken)},
        cwd=broken,
    ) as server:
        wait_for(
            lambda: "failed" in requests.get(f"{server.url}/readyz").json()["reason"],
            60,
            server,
        )
        reason = requests.get(f"{server.url}/readyz").json()["reason"]
        assert "there is no .safetensors file of the " in reason
        assert str(broken) not in reason
        assert requests.get(f"{server.url}/healthz").status_code == 200
        post = requests.post(f"{server.url}/process", data={"prompt": "x"})
        assert post.status_code == 503


def test_a_wrong_setting_stops_any_server_with_its_name_and_value():
    done = subprocess.run(
        [sys.executable, "-c", "import wsgi"],
        cwd=ROOT,
        env=os.environ | {"FLUX_TRUSTED_PROXIES": "-1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "FLUX_TRUSTED_PROXIES='-1'" in done.stderr


def gunicorn_settings(**settings):
    """What gunicorn itself says that it will do, by name."""
    command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py"]
    done = subprocess.run(
        [*command, "--print-config", "tests.support.fake_app:app"],
        cwd=ROOT,
        env=os.environ | {name: str(value) for name, value in settings.items()},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.partition("=") for line in done.stdout.splitlines()]
    return {name.strip(): value.strip() for name, _, value in lines}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # A thread for each that waits or watches, 16 that run, 8 for the rest.
        ({}, {"threads": 32 + 16 + 32 + 8, "graceful_timeout": 280 + 30}),
        (
            {
                "FLUX_MAX_QUEUE": 1000,
                "FLUX_MAX_WATCHERS": 0,
                "FLUX_REQUEST_TIMEOUT": "10.5",
                "FLUX_LOG_LEVEL": "warning",
            },
            {"threads": 1024, "graceful_timeout": 40, "loglevel": "warning"},
        ),
    ],
    ids=["defaults", "set"],
)
def test_gunicorn_has_room_and_time_for_what_is_promised(settings, expected):
    found = gunicorn_settings(**settings)
    expected = {name: str(value) for name, value in expected.items()}
    assert expected.items() <= found.items()
    # More connections than threads: who is one too many is told so.
    assert int(found["worker_connections"]) == int(expected["threads"]) + 1000
    assert {
        "bind": "['127.0.0.1:8000']",
        "workers": "1",
        "preload_app": "False",
        # Nothing restarts a worker that holds a queue and a model.
        "max_requests": "0",
        "timeout": "120",
        # Longer than a proxy keeps its own: nginx's 60 s.
        "keepalive": "75",
        "control_socket_disable": "True",
        "accesslog": "None",
    }.items() <= found.items()
    assert "SturdyWorker" in found["worker_class"]
    tokens = set(re.findall(r"%\((\w+)\)s", found["access_log_format"]))
    assert tokens == set("hmUHsBD")


def test_make_serve_runs_both_and_ctrl_c_stops_both(tmp_path):
    if subprocess.run(["make", "--question", "install"], cwd=ROOT).returncode:
        message = "this checkout has no environment of its own: 'make install' first"
        assert not os.environ.get("CI"), message
        pytest.skip(message)
    api, files = free_port(), free_port()
    options = f"--bind 127.0.0.1:{api} --files-bind 127.0.0.1:{files}"
    key = "the-key-of-ada-123"
    settings = {"SERVE_OPTIONS": options, "STORAGE_URL": f"file://{tmp_path}"}
    settings["FLUX_API_KEYS"] = f"ada:{key}"
    with run(["make", "serve"], url=f"http://127.0.0.1:{api}", settings=settings) as it:
        wait_for(lambda: "Try it:" in it.output, 120, it)
        line = next(x for x in it.output.splitlines() if x.strip().startswith("curl"))
        env = os.environ | {"FLUX_KEY": key}
        subprocess.run(["bash", "-ec", line], cwd=tmp_path, env=env, check=True)
        with Image.open(tmp_path / "heart.png") as heart:
            assert heart.size == (512, 512)
        answer = requests.post(
            f"{it.url}/process",
            data={"prompt": "a cat"},
            headers={"Authorization": f"Bearer {key}"},
            timeout=60,
        ).json()
        assert answer["result_image_url"].startswith(f"http://127.0.0.1:{files}/i/")
        os.killpg(it.process.pid, signal.SIGINT)
        it.process.wait(60)
        for port in (api, files):
            with pytest.raises(requests.ConnectionError):
                requests.get(f"http://127.0.0.1:{port}/healthz", timeout=2)
        assert "Traceback" not in it.output


def test_busy_port_is_one_clear_line(api):
    taken = api.url.removeprefix("http://")
    done = subprocess.run(
        [sys.executable, "-m", "flux_api", "serve", "--bind", taken],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert taken in done.stderr
