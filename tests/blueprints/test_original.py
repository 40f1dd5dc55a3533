"""The original API, as curl and forms use it, against a running server."""

from __future__ import annotations

import base64
import io
import json
import subprocess

import pytest
import requests
from PIL import Image

from tests.support.pictures import make_png
from tests.support.servers import TOKEN

FACTS = {
    "seed",
    "mode",
    "width",
    "height",
    "guidance_scale",
    "num_inference_steps",
    "model",
    "loras",
}


def picture(data):
    """The decoded PNG."""
    image = Image.open(io.BytesIO(data))
    assert image.format == "PNG"
    return image


def process(server, path="/process", *, files=None, **fields):
    """The answer to a form post."""
    return requests.post(server.url + path, data=fields, files=files, timeout=120)


def raw(server, **fields):
    """The PNG bytes of a form post."""
    answer = process(server, "/process/raw", **fields)
    assert answer.status_code == 200, answer.text
    return answer.content


def test_curl_writes_a_png_of_the_asked_size(api, tmp_path):
    out = tmp_path / "result.png"
    subprocess.run(
        ["curl", "-sf", f"{api.url}/process/raw", "-F", "prompt=a red heart"]
        + ["-F", "width=256", "-F", "height=128", "-o", str(out)],
        check=True,
    )
    assert picture(out.read_bytes()).size == (256, 128)


@pytest.mark.parametrize(
    ("fields", "image", "mode"),
    [
        ({"prompt": "a dog"}, False, "generate"),
        ({"prompt": "make it monochrome"}, True, "edit"),
        ({}, True, "variation"),
        ({"prompt": "  "}, True, "variation"),
    ],
    ids=["prompt", "image and prompt", "image", "image and blank prompt"],
)
def test_what_is_present_chooses_the_mode(api, png, fields, image, mode):
    answer = process(api, files={"input_file": png} if image else None, **fields).json()
    assert answer["mode"] == mode
    assert answer.keys() >= FACTS | {"result_image_base64"}
    assert "result_image_url" not in answer
    size = (96, 64) if image else (512, 512)
    assert picture(base64.b64decode(answer["result_image_base64"])).size == size
    assert (answer["width"], answer["height"]) == size
    assert (answer["native_width"], answer["native_height"]) == (64, 64)
    assert 0 <= answer["seed"] < 2**32
    assert answer["model"] == "tiny"


def test_same_seed_gives_the_same_bytes_and_another_seed_others(api):
    first = raw(api, prompt="a cat", seed=7)
    assert raw(api, prompt="a cat", seed=7) == first
    assert raw(api, prompt="a cat", seed=8) != first


def test_steps_and_guidance_are_used_and_said(api):
    answer = process(
        api, prompt="a cat", num_inference_steps=3, guidance_scale=1.5, seed=1
    ).json()
    assert answer["num_inference_steps"] == 3
    assert answer["guidance_scale"] == 1.5
    other = process(
        api, prompt="a cat", num_inference_steps=3, guidance_scale=4, seed=1
    ).json()
    assert other["result_image_base64"] != answer["result_image_base64"]


def test_raw_says_its_facts_in_headers(api):
    answer = process(api, "/process/raw", prompt="a cat", seed=5, width=128, height=64)
    assert answer.headers["Content-Type"] == "image/png"
    said = {
        name: answer.headers[f"X-Flux-{name}"]
        for name in ("Seed", "Mode", "Width", "Height", "Steps", "Guidance-Scale")
    }
    assert said == {
        "Seed": "5",
        "Mode": "generate",
        "Width": "128",
        "Height": "64",
        "Steps": "12",
        "Guidance-Scale": said["Guidance-Scale"],
    }
    assert float(said["Guidance-Scale"]) > 1
    assert answer.headers["X-Flux-Model"] == "tiny"
    assert json.loads(answer.headers["X-Flux-Loras"]) == []


@pytest.mark.parametrize(
    ("seed", "used"),
    [(0, 0), (-1, None), (2**64 - 1, 2**64 - 1), (-(2**63), None), ("", None)],
)
def test_every_legal_seed_is_taken(api, seed, used):
    answer = process(api, prompt="a cat", seed=seed, num_inference_steps=1)
    assert answer.status_code == 200
    told = answer.json()["seed"]
    # What the server chooses can be sent back by JavaScript.
    assert told < 2**32 if used is None else told == used


def test_urlencoded_and_json_bodies_are_taken(api, png):
    fields = {"prompt": "a cat", "seed": "9", "num_inference_steps": "2"}
    form = process(api, **fields)
    as_json = requests.post(
        f"{api.url}/process",
        json={"prompt": "a cat", "seed": 9, "num_inference_steps": 2, "width": None},
        timeout=60,
    )
    assert form.json()["result_image_base64"] == as_json.json()["result_image_base64"]
    data_url = "data:image/png;base64," + base64.b64encode(png).decode()
    edited = requests.post(
        f"{api.url}/process",
        json={"prompt": "mirror it", "input_image_url": data_url},
        timeout=60,
    )
    assert edited.json()["mode"] == "edit"


def test_input_file_wins_over_input_image_url(api, png):
    answer = process(
        api,
        files={"input_file": png},
        input_image_url="http://127.0.0.1:1/never-asked.png",
        num_inference_steps=2,
    )
    assert answer.json()["mode"] == "variation"


def test_odd_input_sizes_are_fitted(api):
    answer = process(
        api, files={"input_file": make_png((101, 37))}, num_inference_steps=2
    ).json()
    assert answer["width"] % 16 == answer["height"] % 16 == 0
    assert answer["width"] > answer["height"] >= 64


@pytest.mark.parametrize(
    ("fields", "files", "names"),
    [
        ({}, None, "prompt"),
        ({"prompt": " "}, None, "prompt"),
        ({"prompt": "x"}, {"input_file": b"not a picture"}, "input_file"),
        ({"prompt": "x"}, {"input_file": make_png()[:200]}, "input_file"),
        ({"prompt": "x", "seed": "seven"}, None, "seed"),
        ({"prompt": "x", "seed": "1.5"}, None, "seed"),
        ({"prompt": "x", "seed": str(2**64)}, None, "seed"),
        ({"prompt": "x", "width": "100"}, None, "multiples of 16 from 64 to 2048"),
        ({"prompt": "x", "height": "4096"}, None, "multiples of 16 from 64 to 2048"),
        ({"prompt": "x", "num_inference_steps": "0"}, None, "num_inference_steps"),
        ({"prompt": "x", "guidance_scale": "nan"}, None, "guidance_scale"),
        ({"prompt": "x" * 32_001}, None, "prompt"),
        ({"prompt": "x", "input_image_url": "ftp://e.org/a"}, None, "input_image_url"),
        ({"input_image_url": "http://127.0.0.1/a.png"}, None, "input_image_url"),
    ],
)
def test_bad_input_gets_400_and_the_next_request_works(api, fields, files, names):
    answer = process(api, files=files, **fields)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert names in answer.json()["error"]
    assert process(api, prompt="a cat", num_inference_steps=1).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", "/process", 405), ("PUT", "/process/raw", 405)],
)
def test_wrong_routes_answer_json(api, method, path, status):
    answer = requests.request(method, api.url + path, timeout=10)
    assert answer.status_code == status
    assert isinstance(answer.json()["error"], str)
    assert answer.headers["X-Request-Id"]


def test_other_bodies_are_415(api):
    answer = requests.post(
        f"{api.url}/process", data=b"hello", headers={"Content-Type": "text/plain"}
    )
    assert answer.status_code == 415


def test_file_server_answers_carry_urls_that_can_be_chained(fake_with_files, files):
    first = process(fake_with_files, prompt="a red heart", seed=3).json()
    assert "result_image_base64" not in first
    url = first["result_image_url"]
    assert url.startswith(f"{files.url}/i/")
    stored = requests.get(url, timeout=10)
    assert picture(stored.content).size == (512, 512)
    edited = process(
        fake_with_files, prompt="make it monochrome", input_image_url=url
    ).json()
    assert edited["mode"] == "edit"
    latest = process(
        fake_with_files,
        input_image_url=f"{files.url}/latest/raw",
        bearer_token=TOKEN,
        num_inference_steps=2,
    ).json()
    assert latest["mode"] == "variation"
    refused = process(fake_with_files, input_image_url=f"{files.url}/latest/raw")
    assert refused.status_code == 400


def test_of_the_file_server_only_pictures_are_open(fake_with_files, files):
    answer = process(fake_with_files, input_image_url=f"{files.url}/healthz")
    assert answer.status_code == 400


def test_steps_and_a_json_list_of_loras_are_read(fake):
    url = f"{fake.url}/process"
    body = {"prompt": "a cat", "width": 64, "height": 64, "steps": 3}
    answer = requests.post(url, json=body, timeout=20).json()
    assert answer["num_inference_steps"] == 3
    for loras in ([{"name": "nobody"}], ["nobody", "no-one"]):
        answer = requests.post(url, json=body | {"loras": loras}, timeout=20)
        assert answer.status_code == 400
        assert answer.json()["error"].startswith("There is no LoRA named 'nobody'.")
