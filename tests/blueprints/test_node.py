"""The official Node SDK against a real server: the version that npm gives to Node 20,
and the newest."""

from __future__ import annotations

import base64
import io
import re
import subprocess

import pytest
from PIL import Image

from tests.support.node_client import FOLDER, NodeClient, install
from tests.support.servers import ROOT, free_port, run_api, wait_for
from tests.support.wire import begin, make_mask, stats

SMALL = {"model": "gpt-image-2", "prompt": "x", "size": "64x64"}
KEY = "sk-of-the-node-test"


@pytest.fixture(scope="module", params=["openai", "openai7"])
def client(request):
    """A Node process with one version of the SDK."""
    client = NodeClient(request.param)
    yield client
    client.close()


@pytest.fixture(scope="module")
def keyed():
    """The fake server behind a key."""
    with run_api(
        app="tests.support.fake_app:app", FLUX_API_KEYS=f"node:{KEY}"
    ) as server:
        yield server.wait_ready()


@pytest.fixture
def node(client, tmp_path, png):
    """Makes one call: ``node(server, call, ...)``; gives what it gave."""
    image, mask = tmp_path / "in.png", tmp_path / "mask.png"
    image.write_bytes(png)
    mask.write_bytes(make_mask((96, 64), (0, 0, 20, 20)))

    def run(server, call, *, masked=False, **task):
        url = server if isinstance(server, str) else server.url
        task = {"url": url if task.get("azure") else f"{url}/v1"} | task
        task |= {"call": call, "image": str(image)}
        if masked:
            task["mask"] = str(mask)
        return client.call(task)

    return run


def picture(item):
    """The picture of an item or an event."""
    return Image.open(io.BytesIO(base64.b64decode(item["b64_json"])))


def test_the_documents_script_runs(fake, tmp_path):
    install()
    page = (ROOT / "docs" / "openai-compatibility.md").read_text("utf-8")
    [script] = re.findall(r"```js\n(.*?)```", page, re.S)
    file = tmp_path / "script.mjs"
    file.write_text(script.replace("http://localhost:8000", fake.url))
    (tmp_path / "node_modules").symlink_to(FOLDER / "node_modules")
    done = subprocess.run(
        ["node", file.name], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "image_generation.completed"
    assert stats(fake)["requests"][0]["seed"] == 7
    for name in ("heart.png", "monochrome.png"):
        with Image.open(tmp_path / name) as made:
            assert made.size == (512, 512)


def test_generate(api, node):
    params = SMALL | {"n": 2, "seed": 7, "num_inference_steps": 2, "quality": "high"}
    params |= {"output_format": "webp", "output_compression": 50, "user": None}
    done = node(api, "generate", params=params)
    assert done["requestId"].startswith("req_")
    answer = done["result"]
    assert [item["seed"] for item in answer["data"]] == [7, 8]
    assert picture(answer["data"][0]).format == "WEBP"
    assert (answer["size"], answer["quality"]) == ("64x64", "high")


@pytest.mark.parametrize("given", ["file", "toFile", "stream", "list"])
def test_edit_one_image_however_it_is_given(fake, node, given):
    done = node(fake, "edit", given=given, params=SMALL)
    assert done["result"]["size"] == "64x64"
    assert stats(fake)["requests"][-1]["images"] == [[96, 64]]


def test_edit_a_list_with_a_mask(fake_multi, node):
    done = node(fake_multi, "edit", given="two", masked=True, params=SMALL)
    assert done["result"]["data"]
    facts = stats(fake_multi)["requests"][-1]
    assert (facts["images"], facts["mask"]) == ([[96, 64]] * 2, [0, 255])


def test_edit_with_a_mask_keeps_what_is_opaque(api, node, png):
    params = {"prompt": "a duck", "steps": 2, "seed": 1}
    done = node(api, "edit", given="file", masked=True, params=params)
    made, source = picture(done["result"]["data"][0]), Image.open(io.BytesIO(png))
    kept = (24, 0, 96, 64)
    assert made.crop(kept).tobytes() == source.crop(kept).tobytes()
    assert made.tobytes() != source.tobytes()


def test_variation(fake, node):
    params = {"n": 2, "size": "64x64"}
    done = node(fake, "variation", given="file", params=params)
    assert len(done["result"]["data"]) == 2


def test_streams_with_partial_images(api, node):
    params = SMALL | {"stream": True, "partial_images": 2, "num_inference_steps": 6}
    events = node(api, "events", method="generate", params=params)["result"]
    assert [event["type"] for event in events] == [
        *["image_generation.partial_image"] * 2,
        "image_generation.completed",
    ]
    assert [event.get("partial_image_index") for event in events] == [0, 1, None]
    assert picture(events[-1]).size == (64, 64)


def test_edits_stream(fake, node):
    params = SMALL | {"stream": True, "partial_images": 1}
    events = node(fake, "events", method="edit", given="toFile", params=params)
    assert [event["type"] for event in events["result"]] == [
        *("image_edit.partial_image", "image_edit.completed"),
    ]


def test_models_and_azure(fake, node):
    assert node(fake, "models")["result"] == ["tiny"]
    error = node(fake, "retrieve", model="bfl/FLUX.1 dev?")["error"]
    assert (error["name"], error["code"]) == ("NotFoundError", "model_not_found")
    assert node(fake, "generate", azure=True, params=SMALL)["result"]["data"]


ERRORS = [
    ({"prompt": "x", "size": "63x64"}, "BadRequestError", 400, "invalid_value", 1),
    ({"prompt": "x fail=pipeline"}, "InternalServerError", 500, "generation_failed", 1),
    ({"prompt": "x fail=busy"}, "InternalServerError", 503, "server_is_overloaded", 3),
    (
        {"prompt": "x fail=memory"},
        "InternalServerError",
        507,
        "insufficient_storage",
        1,
    ),
]


@pytest.mark.parametrize(("params", "name", "status", "code", "tries"), ERRORS)
def test_errors_have_their_class_and_are_tried_as_often_as_it_helps(
    fake, node, params, name, status, code, tries
):
    error = node(fake, "generate", params=SMALL | params, retries=2)["error"]
    assert (error["name"], error["status"], error["code"]) == (name, status, code)
    assert error["requestID"].startswith("req_")
    assert code not in error["message"]
    assert len(stats(fake)["arrived"]) == tries


def test_errors_in_a_stream_are_raised(fake, node):
    params = SMALL | {"stream": True, "prompt": "x fail=memory at=2"}
    error = node(fake, "events", method="generate", params=params)["error"]
    assert error["name"] == "APIError"
    assert "too large for the memory" in error["message"]
    error = node(fake, "events", method="generate", params=params | {"n": 11})["error"]
    assert (error["name"], error["param"]) == ("BadRequestError", "n")


def test_keys_open_and_refuse(keyed, node):
    for azure in (False, True):
        error = node(keyed, "generate", azure=azure, params=SMALL)["error"]
        assert error["name"] == "AuthenticationError"
        assert error["code"] == "invalid_api_key"
        done = node(keyed, "generate", azure=azure, key=KEY, params=SMALL)
        assert done["result"]["data"]


def test_other_classes(fake, node):
    held = begin(fake, {"prompt": "x hold", "job_id": "node-job-1"})
    wait_for(lambda: stats(fake)["running"] == 1, 10)
    params = SMALL | {"job_id": "node-job-1"}
    error = node(fake, "generate", params=params, retries=2)["error"]
    assert error["name"] == "ConflictError"
    held.close()
    url = f"http://127.0.0.1:{free_port()}"
    error = node(url, "generate", params=SMALL)["error"]
    assert error["name"] == "APIConnectionError"


def test_a_full_queue_is_a_rate_limit_error(full_queue, node):
    error = node(full_queue, "generate", params=SMALL)["error"]
    assert (error["name"], error["status"]) == ("RateLimitError", 429)
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")


def test_too_large_an_upload_is_413(fake, node, tmp_path):
    (tmp_path / "in.png").write_bytes(b"x" * (65 << 20))
    error = node(fake, "edit", given="file", params=SMALL)["error"]
    assert (error["name"], error["status"]) == ("APIError", 413)


@pytest.mark.parametrize("given", ["file", "stream"])
def test_an_upload_is_read_before_it_is_refused(keyed, node, tmp_path, given):
    """Otherwise Node sees a broken pipe instead of the answer."""
    (tmp_path / "in.png").write_bytes(b"x" * (8 << 20))
    error = node(keyed, "edit", given=given, params=SMALL)["error"]
    assert error["name"] == "AuthenticationError", error


@pytest.mark.parametrize("call", ["leave", "abort", "timeout"])
def test_leaving_stops_the_run(fake, node, call):
    if call == "leave":
        params = SMALL | {"stream": True, "partial_images": 1, "prompt": "x pause=0.1"}
        done = node(fake, "leave", method="generate", params=params)
        assert done["result"] == "image_generation.partial_image"
    elif call == "abort":
        error = node(fake, "abort", params=SMALL | {"prompt": "x hold"})["error"]
        assert error["name"] == "APIUserAbortError"
    else:
        params = SMALL | {"prompt": "x hold"}
        error = node(fake, "generate", params=params, timeout=400)["error"]
        assert error["name"] == "APIConnectionTimeoutError"
    wait_for(lambda: stats(fake)["running"] == 0, 10)
    assert stats(fake)["finished"] == 0
