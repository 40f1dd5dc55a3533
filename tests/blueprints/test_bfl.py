"""Black Forest Labs' API: literal requests, and its two clients."""

from __future__ import annotations

import base64
import io
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from PIL import Image

from flux_api.blueprints.bfl.answers import STATUSES
from flux_api.models.catalog import MODEL_INFO
from flux_api.models.hosted import HOSTED, find_hosted
from tests.support.node_client import FOLDER, install
from tests.support.pictures import make_png, save
from tests.support.servers import run_api, wait_for
from tests.support.wire import data_url, post, release, seen, stats

KEY = "sk-key-of-alice"
SMALL = {"prompt": "a cat", "width": 96, "height": 64, "seed": 7}
# What the hosted API's own client sends with each request.
ALWAYS = {"safety_tolerance": 2, "prompt_upsampling": False, "output_format": "jpeg"}


@pytest.fixture(scope="module")
def keyed():
    """The scripted backend behind a key."""
    settings = {"FLUX_API_KEYS": f"alice:{KEY},bob:sk-key-of-bob"}
    with run_api(app="tests.support.fake_app:app", **settings) as server:
        yield server.wait_ready()


def ready(server, task, **options):
    """The result of ``task``, which is asked for until it is there."""
    answers = []

    def is_over():
        answer = requests.get(task["polling_url"], timeout=10, **options).json()
        assert answer["status"] in STATUSES
        answers.append(answer)
        return answer["status"] != "Pending"

    wait_for(is_over, 20, server)
    return answers[-1]


def plain(color, mode="RGB"):
    """A picture of one colour in Base64."""
    return base64.b64encode(save(Image.new(mode, (96, 64), color))).decode()


def opened(url, **options):
    """The picture behind a sample's address."""
    return Image.open(io.BytesIO(requests.get(url, timeout=10, **options).content))


def test_a_picture_by_its_polling_url(fake):
    answer = post(fake, "/v1/flux-2-pro", json=SMALL | ALWAYS)
    assert answer.status_code == 200
    task = answer.json()
    assert task["model"] == "tiny"
    assert task["polling_url"] == f"{fake.url}/v1/get_result?id={task['id']}"
    told = ready(fake, task)
    assert told["status"] == "Ready"
    result = told["result"]
    assert (result["seed"], result["prompt"]) == (7, "a cat")
    assert result["end_time"] - result["start_time"] == pytest.approx(
        result["duration"], abs=0.002
    )
    for name in ("start_time", "end_time", "duration"):
        assert result[name] == round(result[name], 3)
    picture = opened(result["sample"])
    assert (picture.format, picture.size) == ("JPEG", (96, 64))


def test_a_models_name_that_is_nearly_one_is_warned_of(fake):
    answer = post(fake, "/v1/flux-2-pro", json=SMALL | {"model": "tinny"})
    told = ready(fake, answer.json())
    assert "so 'tiny' was taken" in told["result"]["warning"]


def test_a_running_request_is_pending_with_its_progress(fake):
    task = post(fake, "/v1/flux-dev", json=SMALL | {"prompt": "hold"}).json()
    wait_for(lambda: stats(fake)["running"] == 1, 10)
    told = requests.get(task["polling_url"], timeout=10).json()
    assert (told["status"], told["result"]) == ("Pending", None)
    sample = requests.get(f"{fake.url}/v1/samples/{task['id']}", timeout=10)
    assert sample.status_code == 409
    release(fake)
    assert ready(fake, task)["progress"] == 1.0


def test_a_request_that_fails_is_an_error_with_its_reason(fake):
    task = post(fake, "/v1/flux-dev", json=SMALL | {"prompt": "fail=pipeline"}).json()
    told = ready(fake, task)
    assert (told["status"], told["result"]) == ("Error", None)
    assert told["details"]["code"] == "generation_failed"


def test_pictures_come_by_every_name(fake_multi):
    red, lime, blue, mask = map(plain, ("red", "lime", "blue", "white"))

    def made(name, **values):
        task = post(fake_multi, f"/v1/{name}", json={"prompt": "x"} | values).json()
        assert ready(fake_multi, task)["status"] == "Ready", task
        return seen(fake_multi)

    # By their numbers, in whatever order they came; Base64, data URL.
    request = made(
        "flux-2-flex",
        input_image_3=blue,
        input_image=red,
        input_image_2=f"data:image/png;base64,{lime}",
    )
    assert request["mode"] == "edit"
    assert request["corners"] == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    assert made("flux-pro-1.1", image_prompt=red)["mode"] == "variation"
    # Beside a picture that is to be changed it is one more of those.
    both = made("flux-pro-1.1", image_prompt=red, input_image=lime)
    assert (both["mode"], len(both["images"])) == ("edit", 2)
    assert made("flux-pro-1.0-fill", image=red, mask=mask)["mask"] == [255, 255]
    # A mask that a canvas saved has an alpha channel that says nothing.
    mask = plain("white", mode="RGBA")
    assert made("flux-pro-1.0-fill", image=red, mask=mask)["mask"] == [255, 255]


@pytest.mark.parametrize(
    "values",
    [{"n": 1}, {"num_images": "1"}, {"stream": False}, {"stream": "false"}, {"n": ""}],
    ids=str,
)
def test_words_of_other_apis_that_ask_for_nothing_are_taken(fake, values):
    body = {"prompt": "x", "dry_run": True} | values
    assert post(fake, "/v1/flux-dev", json=body).status_code == 200


@pytest.mark.parametrize(
    ("name", "value"), [("n", 2), ("stream", True), ("stream", "1"), ("job_id", "mine")]
)
def test_words_of_other_apis_that_ask_for_more_are_refused(fake, name, value):
    body = {"prompt": "x", "dry_run": True, name: value}
    answer = post(fake, "/v1/flux-dev", json=body)
    assert answer.status_code == 422
    assert f"does not support '{name}' with this value: use /v1" in answer.text


@pytest.mark.parametrize(
    ("values", "size"),
    [
        ({"width": 0, "height": 0}, [512, 512]),
        ({"aspect_ratio": "16:9"}, [688, 384]),
        ({"aspect_ratio": "9:16", "width": 0, "height": 0}, [384, 688]),
        ({"aspect_ratio": "16:9", "width": 96, "height": 64}, [96, 64]),
        ({"width": 96}, [96, 512]),
    ],
)
def test_sizes(fake, values, size):
    answer = post(fake, "/v1/flux-dev", json={"prompt": "x", "dry_run": True} | values)
    request = answer.json()["request"]
    assert [request["width"], request["height"]] == size
    assert request["output_format"] == "jpeg"
    assert stats(fake)["begun"] == 0


@pytest.mark.parametrize(
    ("path", "values", "status", "word"),
    [
        ("/v1/flux-dev", {}, 422, "prompt"),
        ("/v1/flux-dev", {"prompt": "x", "width": 63}, 422, "width"),
        ("/v1/flux-dev", {"prompt": "x", "width": True}, 422, "width"),
        ("/v1/flux-dev", {"prompt": "x", "safety_tolerance": 9}, 422, "tolerance"),
        ("/v1/flux-dev", {"prompt": "x", "aspect_ratio": "wide"}, 422, "16:9"),
        ("/v1/flux-dev", {"prompt": "x", "input_image": "%%%"}, 422, "input_image"),
        ("/v1/flux-dev", {"prompt": "x", "job_id": "my-job-0001"}, 422, "job_id"),
        ("/v1/flux-dev", {"prompt": "x", "n": 2}, 422, "'n'"),
        ("/v1/flux-dev", {"prompt": "x", "webhook_secret": "s"}, 422, "webhook_url"),
        (
            "/v1/flux-dev",
            {"prompt": "x", "webhook_url": "https://example.org/"},
            400,
            "FLUX_WEBHOOK_HOSTS",
        ),
        ("/v1/flux-dev", {"prompt": "x", "mask": data_url(b"x")}, 422, "mask"),
        ("/v1/flux-video", {"prompt": "x"}, 404, "flux-2-pro"),
    ],
)
def test_what_is_wrong_is_said_before_there_is_an_id(fake, path, values, status, word):
    answer = post(fake, path, json=values)
    assert answer.status_code == status
    told = answer.json()
    assert word in told["message"]
    assert "id" not in told
    if status == 422:
        [detail] = told["detail"]
        assert detail["msg"] == told["message"]
        assert detail["loc"][0] == "body"
    else:
        assert told["detail"] == told["message"]
    assert stats(fake)["begun"] == 0


def test_what_is_not_there_is_said_in_the_words_of_the_hosted_api(fake):
    answer = requests.get(f"{fake.url}/v1/get_result?id=no-such", timeout=10)
    assert answer.status_code == 404
    told = answer.json()
    assert (told["id"], told["status"]) == ("no-such", "Task not found")
    assert told["result"] is None
    assert requests.get(f"{fake.url}/v1/get_result", timeout=10).status_code == 404
    # Another API's job may have an id that can be guessed.
    form = {"prompt": "x", "size": "64x64", "job_id": "guess-me-0001"}
    assert post(fake, "/process", json=form).ok
    for path in ("/v1/get_result?id=guess-me-0001", "/v1/samples/guess-me-0001"):
        assert requests.get(fake.url + path, timeout=10).status_code == 404


def test_other_addresses_below_v1_are_as_they_were(fake):
    for path in ("/v1/models", "/v1/no-such-model"):
        answer = post(fake, path, json=SMALL)
        assert answer.status_code in (404, 405)
        assert answer.json()["error"]["code"] in ("not_found", "method_not_allowed")


def test_guidance_that_plays_no_part_is_ignored():
    # The hosted API's client always sends one; FLUX.2 klein takes none.
    settings = {"FLUX_MODELS": "tiny,klein-4b", "FLUX_BFL_MODELS": "flux-dev=klein-4b"}
    with run_api(app="tests.support.fake_app:app", **settings) as server:
        server.wait_ready()
        body = {"prompt": "x", "guidance": 3.0, "dry_run": True}
        told = post(server, "/v1/flux-dev", json=body).json()
        assert told["request"]["model"] == "klein-4b"
        assert "guidance" in told["warnings"][0]
        told = post(server, "/v1/flux-2-pro", json=body).json()
        assert told["request"]["model"] == "klein-4b"
        told = post(server, "/v1/flux-pro-1.1", json=body).json()
        assert (told["request"]["model"], told["request"]["guidance_scale"]) == (
            "tiny",
            3.0,
        )


def test_a_key_guards_the_request_and_not_the_picture(keyed):
    headers = {"x-key": KEY}
    answer = post(keyed, "/v1/flux-dev", json=SMALL)
    assert answer.status_code == 401
    assert answer.json()["detail"] == answer.json()["message"]
    task = post(keyed, "/v1/flux-dev", json=SMALL, headers=headers).json()
    assert requests.get(task["polling_url"], timeout=10).status_code == 401
    other = {"x-key": "sk-key-of-bob"}
    assert requests.get(task["polling_url"], headers=other, timeout=10).json()[
        "status"
    ] == ("Task not found")
    result = ready(keyed, task, headers=headers)["result"]
    assert opened(result["sample"]).size == (96, 64)


def test_fifty_times_the_same_key_is_one_run(fake):
    headers = {"Idempotency-Key": "fifty-of-bfl"}
    with ThreadPoolExecutor(25) as pool:
        answers = list(
            pool.map(
                lambda _: post(
                    fake, "/v1/flux-dev", json=SMALL, headers=headers
                ).json(),
                range(50),
            )
        )
    assert len({answer["id"] for answer in answers}) == 1
    ready(fake, answers[0])
    assert stats(fake)["begun"] == 1


def test_each_hosted_name_means_the_nearest_set():
    def find(name, *offered, own=()):
        models = {offer: MODEL_INFO[offer] for offer in offered}
        return find_hosted(name, models, offered[0], dict(own))

    assert find("flux-2-klein-4b", "tiny", "flux2-dev", "klein-4b") == "klein-4b"
    assert find("flux-2-pro", "tiny", "klein-9b", "flux2-dev") == "flux2-dev"
    assert find("flux-kontext-pro", "klein-4b", "flux1") == "flux1"
    assert find("flux-pro-1.0-fill", "tiny") == "tiny"
    assert find("flux-dev", "tiny", "klein-4b") == "tiny"
    assert find("flux-dev", "tiny", own=[("flux-dev", "schnell")]) == "schnell"
    for name in HOSTED:
        assert find(name, "tiny") == "tiny"


def test_without_kept_pictures_it_says_so(fake_without_results):
    answer = post(fake_without_results, "/v1/flux-dev", json=SMALL)
    assert answer.status_code == 422
    assert "FLUX_RESULTS_MB" in answer.json()["message"]


def test_the_ai_sdks_provider(keyed, tmp_path):
    install()
    image, mask = tmp_path / "in.png", tmp_path / "mask.png"
    image.write_bytes(make_png((256, 256)))
    mask.write_bytes(make_png((256, 256), "white"))
    command = ["node", "bfl.mjs", f"{keyed.url}/v1", KEY, str(image), str(mask)]
    done = subprocess.run(
        command, cwd=FOLDER, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    generated = results["generate"]
    [data] = generated["data"]
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (256, 320)
    assert (generated["types"], generated["seeds"]) == (["image/png"], [7])
    assert results["ratio"]["types"] == ["image/jpeg"] * 2
    assert results["edit"]["types"] == results["fill"]["types"] == ["image/jpeg"]
    assert "multiples of 16" in results["refused"]["message"]
    assert results["failed"]["message"] == "Black Forest Labs generation failed."
    told = requests.get(f"{keyed.url}/fake/stats", headers={"x-key": KEY}, timeout=5)
    modes = [made["mode"] for made in told.json()["requests"]]
    assert modes.count("edit") == 2


def test_the_python_client(keyed):
    blackforest = pytest.importorskip("blackforest")
    from blackforest.types.general.client_config import ClientConfig

    client = blackforest.BFLClient(api_key=KEY, base_url=keyed.url)
    config = ClientConfig(sync=True, timeout=20, polling_interval=0.1)
    inputs = {"prompt": "a cat", "width": 256, "height": 320, "seed": 7}
    made = client.generate("flux-dev", inputs, config)
    assert opened(made.result["sample"]).size == (256, 320)
    assert made.result["seed"] == 7
    picture = base64.b64encode(make_png((256, 256))).decode()
    inputs = {"prompt": "make it blue", "input_image": picture}
    assert client.generate("flux-kontext-pro", inputs, config).result["sample"]
    inputs = {"prompt": "a cat", "image_prompt": base64.b64encode(b"text").decode()}
    with pytest.raises(blackforest.BFLError, match="image_prompt"):
        client.generate("flux-dev", inputs)
