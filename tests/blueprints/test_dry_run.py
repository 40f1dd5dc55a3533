"""``dry_run``: the request as it would run, on every route, and nothing runs."""

from __future__ import annotations

from contextlib import closing

import pytest
import requests

from tests.support.servers import wait_for
from tests.support.wire import begin, data_url, make_mask, post, release, stats

SMALL = {"prompt": "a cat", "size": "96x64", "dry_run": True}
ROUTES = [
    "/process",
    "/process/raw",
    "/v1/images/generations",
]


def plan(server, path="/v1/images/generations", **values):
    """The plan of a request."""
    answer = post(server, path, json=SMALL | values)
    assert answer.status_code == 200, answer.text
    assert answer.json()["dry_run"] is True
    return answer.json()


@pytest.mark.parametrize("path", ROUTES)
def test_the_whole_request_is_told_and_nothing_runs(fake, path):
    told = plan(fake, path, seed=7, num_inference_steps=3)
    request = told["request"]
    assert (request["width"], request["height"], request["seed"]) == (96, 64, 7)
    assert (request["mode"], request["model"], request["n"]) == ("generate", "tiny", 1)
    assert request["num_inference_steps"] == 3
    assert request["guidance_scale"] == 3.5
    assert request["output_format"] == "png"
    assert (told["position"], stats(fake)["begun"]) == (0, 0)
    assert stats(fake)["queued"] == 0


@pytest.mark.parametrize("path", ROUTES)
def test_nothing_of_it_is_left_and_nothing_is_lost(fake, path):
    named = {"job_id": f"dry{path.replace('/', '-')}"}
    job = f"{fake.url}/jobs/{named['job_id']}"
    assert post(fake, path, json=SMALL | named | {"dry_run": False}).ok
    made = requests.get(f"{job}/result", timeout=10).content
    before = requests.get(f"{fake.url}/jobs", timeout=10).json()
    plan(fake, path, **named)
    assert requests.get(f"{fake.url}/jobs", timeout=10).json() == before
    assert requests.get(f"{job}/result", timeout=10).content == made


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/images/edits", "/v1/images/variations", "/v1/images/upscale"),
        *("/v1/flux-kontext-pro", "/sdapi/v1/img2img", "/sdapi/v1/txt2img"),
    ],
)
def test_every_other_route_tells_it_too(fake, png, path):
    body = {"prompt": "make it blue", "seed": 7, "dry_run": True}
    if not path.endswith("txt2img"):
        name = "init_images" if path.startswith("/sdapi") else "image"
        body[name] = [data_url(png)]
    if path.endswith("variations"):
        del body["prompt"]
    told = post(fake, path, json=body)
    assert told.status_code == 200, told.text
    assert (told.json()["dry_run"], told.json()["request"]["seed"]) == (True, 7)
    assert (stats(fake)["begun"], stats(fake)["queued"]) == (0, 0)


def test_a_plan_has_every_default(fake, png):
    request = plan(fake, seed=7)["request"]
    assert request == {
        "mode": "generate",
        "model": "tiny",
        "prompt": "a cat",
        "negative_prompt": None,
        "width": 96,
        "height": 64,
        "native_size": 64,
        "num_inference_steps": 12,
        "guidance_scale": 3.5,
        "strength": None,
        "seed": 7,
        "n": 1,
        "loras": [],
        "partial_images": 0,
        "output_format": "png",
        "input_images": [],
        "masked": False,
    }
    mask = data_url(make_mask((96, 64), (0, 0, 9, 9)))
    body = {"image": data_url(png), "mask": mask, "partial_images": 2}
    other = plan(fake, "/v1/images/edits", negative_prompt="a dog", **body)["request"]
    assert (other["input_images"], other["masked"]) == ([[96, 64]], True)
    assert (other["negative_prompt"], other["partial_images"]) == ("a dog", 2)
    # Of the task that paints within a mask.
    assert other["strength"] == 1.0


def test_what_is_told_is_what_is_made(fake, png):
    body = SMALL | {"image": data_url(png), "n": 2}
    del body["size"]
    request = post(fake, "/v1/images/edits", json=body).json()["request"]
    assert request["input_images"] == [[96, 64]]
    body |= {"dry_run": False, "seed": request["seed"]}
    made = post(fake, "/v1/images/edits", json=body)
    assert made.json()["size"] == f"{request['width']}x{request['height']}"
    assert [item["seed"] for item in made.json()["data"]] == [
        request["seed"],
        request["seed"] + 1,
    ]
    [first, _] = stats(fake)["requests"]
    for name in ("mode", "num_inference_steps", "guidance_scale", "prompt"):
        assert first[name] == request[name]


def test_the_queue_and_the_pace_are_told(fake):
    assert post(fake, json={"prompt": "pause=0.05", "size": "64x64"}).ok
    alone = plan(fake)["expected_seconds"]
    # Nobody plans by thousandths.
    assert alone == round(alone, 2) > 0
    with closing(begin(fake, {"prompt": "hold"})) as held:
        wait_for(lambda: stats(fake)["running"] == 1, 10)
        with closing(begin(fake, {"prompt": "a dog", "n": 4})) as waiting:
            wait_for(lambda: stats(fake)["queued"] == 1, 10)
            told = plan(fake)
            release(fake)
            assert held.getresponse().status == waiting.getresponse().status == 200
    assert told["position"] == 1
    assert told["expected_seconds"] > alone


def test_a_wrong_request_is_refused_as_always(fake):
    answer = post(fake, json=SMALL | {"size": "63x64"})
    assert answer.status_code == 400
    answer = post(fake, json=SMALL | {"stream": True})
    assert answer.json()["error"]["param"] == "stream"
    answer = post(fake, json=SMALL | {"dry_run": "perhaps"})
    assert answer.json()["error"]["param"] == "dry_run"


def test_a_key_for_the_dry_run_is_free_for_the_request(fake):
    headers = {"Idempotency-Key": "dry-then-real"}
    answer = post(fake, json=SMALL, headers=headers)
    assert answer.json()["dry_run"] is True
    body = SMALL | {"dry_run": False}
    answer = post(fake, json=body, headers=headers)
    assert answer.status_code == 200
    assert "dry_run" not in answer.json()


@pytest.mark.parametrize(
    ("text", "asked"),
    [("on", True), ("Yes", True), ("1", True), ("off", False), ("no", False)],
)
def test_a_forms_yes_and_no_are_read_as_forms_say_them(fake, text, asked):
    answer = post(fake, "/process", data=SMALL | {"dry_run": text})
    assert answer.json().get("dry_run", False) is asked
    refused = post(fake, "/process", data=SMALL | {"dry_run": "perhaps"})
    assert "expected a boolean" in refused.json()["error"]
