"""OpenAI's Images API on the wire: what requests may say, and what answers hold."""

from __future__ import annotations

import base64
import io
import time

import pytest
import requests
from PIL import Image

from tests.support.servers import free_port, run_api
from tests.support.wire import generate, post, seen


def picture(item):
    """The picture of an item of ``data``."""
    return Image.open(io.BytesIO(base64.b64decode(item["b64_json"])))


def test_the_user_is_echoed_where_no_safety_identifier_came(fake):
    assert generate(fake, user="bob").json()["safety_identifier"] == "bob"
    both = generate(fake, user="bob", safety_identifier="abc").json()
    assert both["safety_identifier"] == "abc"


def test_answer_has_openai_shape(fake):
    answer = generate(fake, seed=7, n=2, safety_identifier="abc")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json()
    assert list(body)[:7] == [
        *("created", "background", "data", "output_format", "quality", "size"),
        "model",
    ]
    assert isinstance(body["created"], int)
    assert abs(body["created"] - time.time()) < 60
    assert body["background"] == "opaque"
    assert body["output_format"] == "png"
    assert body["quality"] == "medium"
    assert body["size"] == "64x64"
    assert body["safety_identifier"] == "abc"
    assert [item["seed"] for item in body["data"]] == [7, 8]
    assert [set(item) for item in body["data"]] == [{"seed", "b64_json"}] * 2
    assert picture(body["data"][0]).getpixel((0, 0)) == (7, 0, 99)


def test_usage_is_complete_and_integer(fake, png):
    answer = post(
        fake,
        "/v1/images/edits",
        files={"image": ("a.png", png)},
        data={
            # Of 13 bytes, and of 9.
            **{"prompt": "abcdefghijé+", "negative_prompt": "abcdefghi"},
            **{"n": "2", "size": "64x128"},
        },
    )
    assert answer.json()["usage"] == {
        "input_tokens": 4 + 3 + 24,
        "output_tokens": 2 * 32,
        "total_tokens": 7 + 24 + 64,
        "input_tokens_details": {"text_tokens": 7, "image_tokens": 24},
        "output_tokens_details": {"text_tokens": 0, "image_tokens": 64},
    }


NULLS = (
    *("model", "n", "size", "quality", "background", "output_format", "seed", "steps"),
    *("output_compression", "moderation", "response_format", "style", "user"),
    *("safety_identifier", "stream", "partial_images", "input_fidelity", "markup"),
    *("complexity", "frame_count", "frame_duration_ms", "svg", "mask", "image"),
    *("images", "negative_prompt", "guidance_scale", "num_inference_steps", "loras"),
)


def test_null_means_absent(fake):
    answer = generate(fake, **dict.fromkeys(NULLS) | {"size": "64x64"})
    assert answer.status_code == 200, answer.text
    assert seen(fake)["n"] == 1


def test_empty_text_means_absent(fake):
    form = dict.fromkeys(NULLS, "") | {"prompt": "a duck", "size": "64x64"}
    parts = {name: (None, text) for name, text in form.items()}
    assert post(fake, files=parts).status_code == 200
    assert post(fake, data=form).status_code == 200


def test_form_text_is_coerced(fake):
    form = {
        **{"prompt": "a duck", "n": "2", "size": "64x80", "seed": "5"},
        **{"steps": "3", "guidance_scale": "1.5", "stream": "false"},
    }
    answer = post(fake, data=form)
    assert len(answer.json()["data"]) == 2
    facts = seen(fake)
    assert (facts["seed"], facts["size"]) == (6, [64, 80])
    assert (facts["num_inference_steps"], facts["guidance_scale"]) == (3, 1.5)


def test_extensions_reach_the_model_and_unknown_keys_nothing(fake):
    answer = generate(
        fake,
        **{"seed": 3, "num_inference_steps": 4, "guidance_scale": 3},
        **{"negative_prompt": "a cat", "extra_headers": {"a": "b"}, "foo": [1]},
    )
    assert answer.status_code == 200
    facts = seen(fake)
    assert (facts["seed"], facts["num_inference_steps"]) == (3, 4)
    assert (facts["guidance_scale"], facts["negative_prompt"]) == (3.0, "a cat")


@pytest.mark.parametrize(
    ("quality", "steps", "echoed"),
    [
        *(("low", 6, "low"), ("medium", 12, "medium"), ("auto", 12, "medium")),
        *(("standard", 12, "medium"), ("high", 18, "high"), ("hd", 18, "high")),
        *(("xhigh", 24, "xhigh"), ("max", 36, "max")),
    ],
)
def test_quality_sets_the_steps_and_is_echoed_in_three_words(
    fake, quality, steps, echoed
):
    answer = generate(fake, quality=quality)
    assert answer.json()["quality"] == echoed
    assert seen(fake)["num_inference_steps"] == steps


def test_steps_win_over_quality(fake):
    generate(fake, quality="max", steps=2)
    assert seen(fake)["num_inference_steps"] == 2


@pytest.mark.parametrize(
    ("output_format", "start"),
    [("png", b"\x89PNG"), ("jpeg", b"\xff\xd8"), ("webp", b"RIFF")],
)
def test_output_format_is_that_of_the_bytes(fake, output_format, start):
    body = generate(fake, output_format=output_format).json()
    assert body["output_format"] == output_format
    assert base64.b64decode(body["data"][0]["b64_json"]).startswith(start)


def test_output_compression_makes_files_smaller(api):
    sizes = [
        len(
            generate(
                api,
                **{"seed": 1, "steps": 1, "size": "256x256"},
                **{"output_format": "jpeg", "output_compression": quality},
            ).json()["data"][0]["b64_json"]
        )
        for quality in (10, 100)
    ]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize("size", ["auto", None, "", "512x512", "1792X1024", "256x256"])
def test_size_is_resolved_in_the_answer(fake, size):
    body = generate(fake, size=size, steps=1).json()
    width, height = picture(body["data"][0]).size
    assert body["size"] == f"{width}x{height}"


@pytest.mark.parametrize(
    "values",
    [
        {"background": "auto"},
        {"background": "opaque"},
        {"moderation": "low"},
        {"style": "vivid"},
        {"style": "natural"},
        {"user": "somebody"},
        {"input_fidelity": "high"},
        {"partial_images": 2},
        {"output_compression": 100},
        {"stream": False},
        {"response_format": "b64_json"},
    ],
    ids=lambda values: "=".join(map(str, *values.items())),
)
def test_values_that_change_nothing_are_taken(fake, values):
    assert generate(fake, **values).json()["background"] == "opaque"


MODELS = (
    None,
    "",
    "gpt-image-1",
    "gpt-image-2.6-flare",
    "chatgpt-image-latest",
    "tiny",
)


@pytest.mark.parametrize("model", MODELS)
def test_names_that_clients_hard_code_mean_the_default_model(fake, model):
    body = generate(fake, model=model).json()
    assert body["model"] == "tiny"
    assert "b64_json" in body["data"][0]


@pytest.mark.parametrize(
    ("response_format", "model", "with_files", "without"),
    [
        ("b64_json", "dall-e-3", "b64_json", "b64_json"),
        ("url", "gpt-image-1", "http", "data"),
        (None, "gpt-image-1", "b64_json", "b64_json"),
        (None, "chatgpt-image-latest", "b64_json", "b64_json"),
        (None, "azure/openai/GPT-Image-1", "b64_json", "b64_json"),
        (None, "openai/dall-e-2", "http", "data"),
        (None, "dall-e-3", "http", "data"),
        (None, "tiny", "http", "b64_json"),
        (None, None, "http", "b64_json"),
    ],
)
def test_url_or_base64(
    fake, fake_with_files, files, response_format, model, with_files, without
):
    for server, expected in ((fake_with_files, with_files), (fake, without)):
        answer = generate(server, response_format=response_format, model=model, seed=1)
        item = answer.json()["data"][0]
        assert set(item) == {"seed", "b64_json" if expected == "b64_json" else "url"}
        if expected == "http":
            assert item["url"].startswith(f"{files.url}/i/")
            stored = requests.get(item["url"], timeout=5)
            assert stored.headers["Content-Type"] == "image/png"
        if expected == "data":
            assert item["url"].startswith("data:image/png;base64,iVBOR")


def test_pictures_that_cannot_be_stored_are_delivered_all_the_same():
    gone = f"http://127.0.0.1:{free_port()}"
    with run_api(app="tests.support.fake_app:app", FILE_SERVER=gone) as server:
        answer = generate(server.wait_ready(), n=2, output_format="webp")
    assert answer.headers["X-Flux-Delivery"] == "fallback"
    urls = [item["url"] for item in answer.json()["data"]]
    assert all(url.startswith("data:image/webp;base64,") for url in urls)
    assert len(urls) == 2


def test_azure_deployment_names_the_model(fake_with_files):
    for deployment, key in (("gpt-image-1", "b64_json"), ("flux", "url")):
        path = f"/openai/deployments/{deployment}/images/generations"
        answer = post(fake_with_files, path, json={"prompt": "x", "size": "64x64"})
        assert key in answer.json()["data"][0]
