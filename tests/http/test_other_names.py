"""One parameter by the names that several tools have for it: each is honoured where it
means the same, and two that contradict each other are refused."""

from __future__ import annotations

import json

import pytest

from tests.support.wire import EDITS, data_url, message_of, post, seen, stats

GENERATIONS = "/v1/images/generations"
PROMPT = {"prompt": "a cat", "steps": 1}
# Words for the size that is taken anyway; the second is Replicate's.
OWN = (("auto", None), ("match_input_image", None))
BOTH = pytest.mark.parametrize("path", [GENERATIONS, "/process"])


def planned(server, path, **values):
    """The request that would run."""
    body = PROMPT | {"dry_run": True} | values
    answer = post(server, path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["request"]


@BOTH
@pytest.mark.parametrize("name", ["guidance_scale", "guidance", "cfg_scale"])
def test_guidance_by_every_name(fake, path, name):
    assert planned(fake, path, **{name: 2.5})["guidance_scale"] == 2.5
    answer = post(fake, path, data=PROMPT | {name: "101"})
    assert answer.status_code == 400
    assert f"Invalid '{name}': expected a number from 0 to 100" in message_of(answer)


@pytest.mark.parametrize(
    "name", ["n", "num_images", "num_images_per_prompt", "batch_size"]
)
def test_the_number_of_pictures_by_every_name(fake, name):
    assert len(post(fake, json=PROMPT | {name: 2}).json()["data"]) == 2
    answer = post(fake, json=PROMPT | {name: 11})
    assert answer.json()["error"]["param"] == name
    refused = post(fake, "/process", json=PROMPT | {name: 2})
    assert refused.status_code == 400
    assert "/v1/images/generations" in message_of(refused)
    assert refused.reason == f"Unsupported {name}"
    assert post(fake, "/process", json=PROMPT | {name: 1}).status_code == 200
    hosted = post(fake, "/v1/flux-dev", json=PROMPT | {name: 2})
    assert hosted.status_code == 422
    assert f"'{name}'" in hosted.json()["message"]


def test_numbers_that_are_the_same_agree(fake):
    for values in (
        {"n": 1, "batch_size": 1.0},
        {"guidance": 3.5, "cfg_scale": "3.50"},
        {"n": "1.0"},
    ):
        answer = post(fake, json=PROMPT | values)
        assert answer.status_code == 200, answer.text


@BOTH
def test_a_shape_is_a_size_on_the_models_grid(fake, png, path):
    for ratio, size in (("16:9", (688, 384)), (" 1:1 ", (512, 512)), *OWN):
        told = planned(fake, path, aspect_ratio=ratio)
        assert (told["width"], told["height"]) == (size or (512, 512))
    told = planned(fake, path, aspect_ratio="9:16", size="auto", image=data_url(png))
    assert (told["mode"], told["width"], told["height"]) == ("edit", 384, 688)
    answer = post(fake, path, json=PROMPT | {"aspect_ratio": "wide"})
    assert answer.status_code == 400
    assert "'aspect_ratio': expected WIDTH:HEIGHT, like 16:9" in message_of(answer)


@pytest.mark.parametrize(
    ("path", "size", "winner"),
    [
        (GENERATIONS, {"size": "64x64"}, "size"),
        ("/process", {"width": 64, "height": 64}, "width"),
        ("/process", {"height": 64}, "height"),
    ],
)
def test_a_size_beside_another_shape_wins_and_says_so(fake, path, size, winner):
    answer = post(fake, path, json=PROMPT | size | {"aspect_ratio": "16:9"})
    assert answer.status_code == 200, answer.text
    note = f"'aspect_ratio' was ignored: '{winner}' wins."
    assert note in answer.json()["warning"]
    same = {"width": 112, "height": 64, "aspect_ratio": "16:9"}
    assert "warning" not in post(fake, path, json=PROMPT | same).json()


@pytest.mark.parametrize("path", ["/v1/images/upscale", "/process"])
def test_a_larger_picture_takes_no_shape(fake, png, path):
    body = {"image": data_url(png), "scale": 2, "aspect_ratio": "16:9"}
    answer = post(fake, path, json=body)
    assert answer.status_code == 400
    assert "follows from its 'scale'" in message_of(answer)


PAIRS = [
    ({"steps": 2, "num_inference_steps": 3}, "steps"),
    ({"guidance_scale": 2, "cfg_scale": 7}, "cfg_scale"),
    ({"guidance": 2, "cfg_scale": 7}, "cfg_scale"),
]


@BOTH
@pytest.mark.parametrize(("values", "named"), PAIRS, ids=str)
def test_two_names_that_say_different_things_are_refused(fake, path, values, named):
    body = {"prompt": "a cat"} | values
    for sent in ({"json": body}, {"data": body}):
        answer = post(fake, path, **sent)
        assert answer.status_code == 400, answer.text
        assert f"'{named}' say different things" in message_of(answer)
    same = dict.fromkeys(values, 2)
    assert post(fake, path, json={"prompt": "a cat"} | same).status_code == 200


@pytest.mark.parametrize(
    ("path", "values", "status"),
    [
        (GENERATIONS, {"n": 1, "num_images": 2}, 400),
        ("/v1/flux-dev", {"guidance": 2, "guidance_scale": 3}, 422),
        (
            "/sdapi/v1/txt2img",
            {"distilled_cfg_scale": 2, "guidance_scale": 3, "width": 64, "height": 64},
            422,
        ),
        ("/sdapi/v1/txt2img", {"strength": 0.2, "denoising_strength": 0.7}, 422),
        *(
            (
                "/sdapi/v1/txt2img",
                {"model": one, "override_settings": {"sd_model_checkpoint": other}},
                422,
            )
            for one, other in (("tiny", "klein-4b"), ("klein-4b", "tiny"))
        ),
    ],
    ids=str,
)
def test_so_they_are_in_every_dialect(fake, path, values, status):
    answer = post(fake, path, json=PROMPT | values)
    assert answer.status_code == status
    assert "say different things" in answer.text


def test_a_bound_is_told_by_whichever_name_came(fake):
    answer = post(fake, "/v1/flux-dev", json=PROMPT | {"guidance_scale": 101})
    assert answer.status_code == 422, answer.text
    assert "'guidance_scale': expected a number from 0 to 100" in answer.text


@BOTH
@pytest.mark.parametrize("sent", ["json", "data"])
def test_the_sdks_extra_body_is_told_where_its_fields_belong(fake, path, sent):
    extra = {"seed": 7}
    wrapped = extra if sent == "json" else json.dumps(extra)
    answer = post(fake, path, **{sent: PROMPT | {"extra_body": wrapped}})
    assert answer.status_code == 400
    assert "send its fields beside the others" in message_of(answer)
    assert stats(fake)["begun"] == 0
    empty = {} if sent == "json" else "{}"
    answer = post(fake, path, **{sent: PROMPT | {"extra_body": empty}})
    assert answer.status_code == 200, answer.text


def test_of_a_file_and_an_address_the_file_wins_and_the_answer_says_so(fake, png):
    form = PROMPT | {"input_image_url": "http://127.0.0.1:1/never-asked.png"}
    for path, name in (("/process", "input_file"), (EDITS, "image")):
        answer = post(fake, path, data=form, files={name: ("a.png", png)})
        assert answer.status_code == 200, answer.text
        note = f"'input_image_url' was ignored: '{name}' wins."
        assert note in answer.json()["warning"]
        assert seen(fake)["images"] == [[96, 64]]


def test_two_pictures_at_process_are_told_the_route_for_several(fake, png):
    files = [("image", ("a.png", png)), ("image", ("b.png", png))]
    answer = post(fake, "/process", data=PROMPT, files=files)
    assert answer.status_code == 400
    assert "several go to /v1/images/edits" in message_of(answer)
    refused = post(fake, EDITS, data=PROMPT, files=files)
    assert refused.status_code == 400
    assert "/v1/images/edits" not in message_of(refused)


def test_a_misspelt_name_is_told_in_every_dialect(fake):
    body = {"prompt": "a cat", "stepps": 1, "width": 64, "height": 64}
    note = "'stepps' was ignored; did you mean 'steps'?"
    told = post(fake, "/sdapi/v1/txt2img", json=body).json()
    assert note in json.loads(told["info"])["warnings"]
    call = {"name": "generate_image", "arguments": body | {"mood": "calm"}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
    result = post(fake, "/mcp", json=message).json()["result"]
    [facts] = result["structuredContent"]["pictures"]
    assert note in facts["warning"]
    assert note in result["content"][-1]["text"]
    # An agent knows all arguments from the list of tools.
    assert "'mood' was ignored: there is no such argument." in facts["warning"]


@BOTH
def test_a_webhook_where_none_is_sent_is_told_who_takes_it(fake, path):
    body = PROMPT | {"webhook_url": "https://example.org/hook"}
    answer = post(fake, path, json=body)
    assert answer.status_code == 200, answer.text
    assert "'webhook_url' was ignored: POST /v1/flux-dev" in answer.json()["warning"]


@pytest.mark.parametrize(
    ("path", "name", "value", "taker"),
    [
        ("/v1/images/generations", "scale", 2, "/v1/images/upscale and /process"),
        ("/v1/flux-dev", "scale", 2, "/v1/images/upscale and /process"),
        ("/sdapi/v1/txt2img", "scale", 2, "/v1/images/upscale and /process"),
        ("/sdapi/v1/txt2img", "recipe_of", "0123456789abcdef", "/process"),
    ],
)
def test_what_only_another_route_takes_is_told(fake, path, name, value, taker):
    body = {"prompt": "a cat", name: value, "dry_run": True}
    answer = post(fake, path, json=body)
    assert answer.status_code == 200, answer.text
    [warning] = answer.json()["warnings"]
    assert warning.startswith(f"'{name}' was ignored: POST {taker} take")
