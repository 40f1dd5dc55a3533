"""What a page or an app can learn about the server before it asks for a picture."""

from __future__ import annotations

import contextlib
import re
import shutil

import numpy as np
import requests
from safetensors.numpy import save_file

from tests.support.servers import ROOT, run_api, wait_for
from tests.support.wire import begin, release, stats


def get(server, path):
    """The JSON of an address that needs no key."""
    answer = requests.get(server.url + path, timeout=10)
    assert answer.status_code == 200
    return answer.json()


def test_tiny_tells_what_it_can_do(api):
    told = get(api, "/v1/capabilities")
    assert (told["default_model"], told["auth"]) == ("tiny", "none")
    assert told["formats"] == ["png", "jpeg", "webp"]
    assert told["limits"]["max_images"] == 10
    assert told["limits"]["max_upscaled_side"] == 4096
    assert told["limits"]["max_upload_bytes"] == 64 << 20
    [tiny] = told["models"]
    assert tiny["demo"]
    assert tiny["sizes"]["multiple"] == 16
    assert tiny["sizes"]["default"] == [512, 512]
    tasks = {"generate", "edit", "variation", "inpaint", "upscale"}
    assert set(tiny["tasks"]) == tasks
    assert tiny["tasks"]["generate"] == {
        "num_inference_steps": 12,
        "guidance_scale": 3.5,
        "negative_prompt": True,
        "max_input_images": 1,
    }
    assert "a red heart" in tiny["examples"]["en"]
    assert "赤いハート" in tiny["examples"]["ja"]


def test_the_page_about_jobs_tells_every_field(fake):
    page = (ROOT / "docs" / "jobs.md").read_text("utf-8")
    for path in ("/v1/capabilities", "/v1/status"):
        table = page.split(f"| `{path}` has")[1].split("\n\n")[0]
        told = set(re.findall(r"`(\w+)`", table))
        answer = get(fake, path)
        answer.pop("object", None)
        assert answer.keys() <= told
        for model in answer.get("models", []):
            assert model.keys() | model["tasks"].keys() <= told
            assert model["tasks"]["edit"].keys() <= told


def test_what_it_says_of_every_model_is_so(tmp_path):
    weights = {"a.lora_A.weight": np.zeros((4, 8), "float32")}
    save_file(weights, tmp_path / "ink.safetensors")
    settings = {"FLUX_MODELS": "tiny,klein-4b,flux1", "FLUX_LORA_DIR": tmp_path}
    with run_api(app="tests.support.fake_app:app", **settings) as server:
        told = get(server.wait_ready(), "/v1/capabilities")
        tasks = {model["id"]: model["tasks"] for model in told["models"]}
        assert list(tasks) == ["tiny", "klein-4b", "flux1"]
        assert tasks["klein-4b"]["edit"]["max_input_images"] == 10
        distilled = tasks["klein-4b"]["generate"]
        assert distilled["guidance_scale"] is None
        assert not distilled["negative_prompt"]
        asked = {"model": "klein-4b", "prompt": "x", "guidance_scale": 7}
        url = f"{server.url}/v1/images/generations"
        assert requests.post(url, json=asked, timeout=20).status_code == 400
        assert told["loras"] == [
            {"id": "turbo-alpha", "model": "flux1"},
            {"id": "ink", "model": None},
        ]
        owners = [model["owned_by"] for model in get(server, "/v1/models")["data"]]
        assert owners == ["flux-imaging-api", *["black-forest-labs"] * 2]
        listed = get(server, "/v1/loras")["data"]
        assert [lora["id"] for lora in listed] == ["turbo-alpha", "ink"]


def test_both_are_open_and_the_rest_is_not_where_keys_are_on():
    with run_api(
        app="tests.support.fake_app:app", FLUX_API_KEYS="a:sk-key-one"
    ) as server:
        server.wait_ready()
        assert get(server, "/v1/capabilities")["auth"] == "key"
        assert get(server, "/v1/status")["status"] == "ready"
        assert requests.get(f"{server.url}/v1/loras", timeout=10).status_code == 401
        assert requests.get(f"{server.url}/jobs", timeout=10).status_code == 401


def test_status_counts_what_runs_and_waits(fake):
    idle = get(fake, "/v1/status")
    assert idle == {
        **{"status": "ready", "reason": None, "progress": None, "model": "tiny"},
        **{"running": 0, "waiting": 0, "memory": None},
        **{"asleep": False, "weights": "device"},
    }
    held = begin(fake, {"prompt": "hold"})
    wait_for(lambda: stats(fake)["running"] == 1, 10)
    waiting = begin(fake, {"prompt": "x"})
    wait_for(lambda: get(fake, "/v1/status")["waiting"] == 1, 10)
    assert get(fake, "/v1/status")["running"] == 1
    release(fake)
    for connection in (held, waiting):
        with contextlib.closing(connection):
            assert connection.getresponse().read()


def test_status_says_how_far_loading_is(tmp_path):
    (tmp_path / "load").write_text("hold")
    app = "tests.support.fake_app:app"
    with run_api(app=app, FAKE_LOAD=tmp_path / "load") as server:
        wait_for(lambda: get(server, "/v1/status")["progress"], 30, server)
        status = get(server, "/v1/status")
        assert (status["status"], status["reason"]) == ("loading", "loading nothing")
        assert status["progress"] == {"done": 1, "total": 4, "unit": "components"}
        (tmp_path / "load").write_text("go on")
        server.wait_ready()
        assert get(server, "/v1/status")["progress"] is None


def test_an_outage_refuses_what_comes_and_keeps_what_came(tmp_path):
    load = tmp_path / "load"
    load.write_text("go on")
    app = "tests.support.fake_app:app"
    with run_api(app=app, FAKE_LOAD=load) as server:
        server.wait_ready()
        running = begin(server, {"prompt": "hold"})
        wait_for(lambda: stats(server)["running"] == 1, 10)
        load.write_text("outage")
        ready = requests.get(f"{server.url}/readyz", timeout=10)
        assert (ready.status_code, ready.headers["Retry-After"]) == (503, "5")
        assert ready.json()["reason"] == "waiting for a card"
        assert get(server, "/v1/status")["status"] == "loading"
        refused = requests.post(
            f"{server.url}/v1/images/generations", json={"prompt": "a"}, timeout=10
        )
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "model_loading"
        release(server)
        with contextlib.closing(running):
            assert running.getresponse().status == 200
        load.write_text("go on")
        server.wait_ready()


def test_status_says_why_nothing_is_taken(tmp_path):
    shutil.copy(ROOT / "models" / "tiny" / "model_index.json", tmp_path)
    sets = tmp_path / "sets.toml"
    sets.write_text(f'[broken]\nlike = "tiny"\nbase_model = "{tmp_path}"\n')
    settings = {"MODEL_INFO": sets, "FLUX_MODEL": "broken"}
    with run_api(**settings) as server:
        wait_for(lambda: get(server, "/v1/status")["status"] == "failed", 60, server)
        assert "loading failed" in get(server, "/v1/status")["reason"]
        assert get(server, "/v1/capabilities")["default_model"] == "broken"
