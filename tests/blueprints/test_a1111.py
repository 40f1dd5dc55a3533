"""AUTOMATIC1111's API: the literal requests of Open WebUI, SillyTavern and Krita."""

from __future__ import annotations

import base64
import io
import json
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
import requests
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from flux_api.blueprints.a1111.options import Choices
from flux_api.blueprints.a1111.parameters import ignored
from flux_api.images.codec import png_chunk
from tests.support.pictures import make_png, save
from tests.support.processes import memory_of
from tests.support.servers import run_api, wait_for
from tests.support.wire import begin, data_url, pid, post, release, seen, stats

KEY = "sk-key-of-an-app"
SD = "/sdapi/v1"
SMALL = {"prompt": "a cat", "width": 64, "height": 64, "seed": 7}
PICTURE = base64.b64encode(make_png()).decode()
OPEN_WEBUI = {
    "prompt": "a cat",
    "batch_size": 2,
    "width": 512,
    "height": 512,
    "steps": 3,
    "negative_prompt": "blurry",
}
SILLY_TAVERN = {
    "url": "http://127.0.0.1:8000",
    "auth": "me:a-password",
    "prompt": "a cat",
    "negative_prompt": "low quality",
    "sampler_name": "DPM++ 2M",
    "scheduler": "Karras",
    "steps": 3,
    "cfg_scale": 7,
    "width": 512,
    "height": 512,
    "restore_faces": False,
    "enable_hr": False,
    "hr_upscaler": "Latent",
    "hr_scale": 2,
    "hr_additional_modules": [],
    "denoising_strength": 0.7,
    "hr_second_pass_steps": 0,
    "override_settings": {"CLIP_stop_at_last_layers": 1},
    "override_settings_restore_afterwards": True,
    "clip_skip": 1,
    "save_images": True,
    "send_images": True,
    "do_not_save_grid": False,
    "do_not_save_samples": False,
}
KRITA = {
    "prompt": "a cat",
    "negative_prompt": "",
    "seed": -1,
    "width": 96,
    "height": 64,
    "sampler_name": "Euler",
    "steps": 3,
    "cfg_scale": 7.0,
    "batch_size": 1,
    "n_iter": 1,
    "styles": [],
    "denoising_strength": 0.5,
    "init_images": [f"data:image/png;base64,{PICTURE}"],
    "inpainting_fill": 1,
    "inpaint_full_res": False,
    "override_settings": {"sd_model_checkpoint": "tiny", "sd_vae": "Automatic"},
    "override_settings_restore_afterwards": False,
    "save_images": True,
    "alwayson_scripts": {},
}


def get(server, path, **options):
    """What is told at ``path``."""
    answer = requests.get(server.url + SD + path, timeout=20, **options)
    assert answer.status_code == 200, answer.text
    return answer.json()


def make(server, route, body, **options):
    """The pictures and the info of an answer."""
    answer = post(server, f"{SD}/{route}", json=body, **options)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    pictures = [
        Image.open(io.BytesIO(base64.b64decode(data))) for data in told["images"]
    ]
    return pictures, json.loads(told["info"])


def test_open_webui(fake):
    # It looks at the options, sets its model by sending them all back, then asks.
    options = get(fake, "/options")
    assert options["sd_model_checkpoint"] == "tiny"
    assert post(fake, f"{SD}/options", json=options).json() == {}
    assert [model["title"] for model in get(fake, "/sd-models")] == ["tiny"]
    pictures, info = make(fake, "txt2img", OPEN_WEBUI)
    assert [(p.format, p.size) for p in pictures] == [("PNG", (512, 512))] * 2
    assert info["all_seeds"] == [info["seed"], info["seed"] + 1]
    request = seen(fake)
    assert (request["num_inference_steps"], request["negative_prompt"]) == (3, "blurry")
    # Clients show these lines, and read settings from them.
    told = "a cat\nNegative prompt: blurry\nSteps: 3, Sampler: Euler, Schedule type: "
    told += "Simple, CFG scale: 3.5, Seed: {}, Size: 512x512, Model: tiny, Version: "
    texts = [text.partition("Flux Imaging API ")[0] for text in info["infotexts"]]
    assert texts == [told.format(seed) for seed in info["all_seeds"]]


def test_silly_tavern(fake):
    for path in ("/samplers", "/schedulers", "/upscalers", "/latent-upscale-modes"):
        assert all("name" in one for one in get(fake, path))
    assert get(fake, "/sd-vae") == []
    model = {"sd_model_checkpoint": "tiny"}
    assert post(fake, f"{SD}/options", json=model).status_code == 200
    told = get(fake, "/progress")
    assert (told["progress"], told["state"]["job_count"]) == (0.0, 0)
    [picture], info = make(fake, "txt2img", SILLY_TAVERN)
    assert picture.size == (512, 512)
    alone = "was ignored: Flux models are sampled by Euler alone."
    for name in ("sampler_name", "scheduler"):
        assert f"'{name}' {alone}" in info["warnings"]
    # A scale of Stable Diffusion is none of Flux.
    assert seen(fake)["guidance_scale"] == 3.5
    assert "a-password" not in fake.output


# As the web UI's own description of its API has them.
DEFAULTS = {
    "sampler_name": None,
    "sampler_index": "Euler",
    "scheduler": "Automatic",
    "restore_faces": False,
    "tiling": False,
    "styles": [],
    "subseed_strength": 0,
    "script_name": None,
    "refiner_checkpoint": None,
    "alwayson_scripts": {},
    "mask_blur": 4,
    "inpainting_fill": 0,
    "inpaint_full_res": False,
    "resize_mode": 0,
    "seed_resize_from_h": -1,
    "seed_resize_from_w": -1,
    "s_churn": 0,
    "send_images": True,
}
ASKED = {
    "sampler_name": "DPM++ 2M",
    "sampler_index": "DDIM",
    "scheduler": "Karras",
    "restore_faces": True,
    "tiling": True,
    "styles": ["oil"],
    "subseed_strength": 0.5,
    "script_name": "x/y/z plot",
    "refiner_checkpoint": "sdxl",
    "alwayson_scripts": {"ControlNet": {}},
    "mask_blur": 9,
    "inpainting_fill": 2,
    "inpaint_full_res": True,
    "resize_mode": 1,
    "seed_resize_from_h": 512,
    "seed_resize_from_w": 512,
    "s_churn": 0.5,
    "send_images": False,
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_only_what_asks_for_something_is_told_to_be_ignored(name):
    # Clients send every field, most of them as they found it, or empty.
    for value in (DEFAULTS[name], *([""] if isinstance(ASKED[name], str) else [])):
        assert list(ignored({name: value})) == []
    [told] = ignored(ASKED | DEFAULTS | {name: ASKED[name]})
    sampled = name.startswith(("sampler", "scheduler"))
    why = "sampled by Euler alone" if sampled else "it is not supported"
    assert told.startswith(f"'{name}' was ignored: ") and why in told


def test_options_for_one_request_are_told_to_be_ignored():
    kept = {"sd_model_checkpoint": "tiny", "CLIP_stop_at_last_layers": 1}
    assert list(ignored({"override_settings": kept})) == []
    changed = kept | {"CLIP_stop_at_last_layers": 2, "sd_vae": "other"}
    assert list(ignored({"override_settings": changed})) == [
        "'override_settings.CLIP_stop_at_last_layers' was ignored: it cannot be set.",
        "'override_settings.sd_vae' was ignored: it cannot be set.",
    ]
    many = {f"é{number}": 1 for number in range(1000)}
    told = list(ignored({"override_settings": many}))
    assert len(told) == 20 and all(map(str.isascii, told))


def test_the_newest_thousand_choices_are_remembered():
    choices = Choices()
    for number in range(1000):
        choices.choose(f"caller {number}", "tiny")
    choices.choose("caller 0", "flux1")
    assert choices.of("caller 1") == "tiny"
    choices.choose("one more", "tiny")
    assert choices.of("caller 1") is None
    assert [choices.of(f"caller {n}") for n in (0, 2)] == ["flux1", "tiny"]


def test_krita(fake):
    status = requests.get(f"{fake.url}/queue/status", timeout=10)
    assert status.json()["queue_size"] == 0
    names = ("face-restorers", "prompt-styles", "hypernetworks")
    assert [get(fake, f"/{name}") for name in names] == [[], [], []]
    assert set(get(fake, "/scripts")) == {"txt2img", "img2img"}
    assert get(fake, "/embeddings")["loaded"] == {}
    [picture], info = make(fake, "img2img", KRITA)
    assert picture.size == (96, 64)
    assert (seen(fake)["mode"], info["denoising_strength"]) == ("variation", 0.5)
    assert info["warnings"] == []
    # By this server's own name for it, too, and without either the model's.
    nameless = {k: v for k, v in KRITA.items() if k != "denoising_strength"}
    for more, strength in (({"strength": 0.8}, 0.8), ({}, 0.6)):
        _, info = make(fake, "img2img", nameless | more)
        assert info["denoising_strength"] == strength


def test_a_mask_is_white_where_to_paint_or_the_reverse(fake):
    mask = Image.new("L", (96, 64), 0)
    mask.paste(255, (0, 0, 48, 64))
    body = KRITA | {"mask": base64.b64encode(save(mask)).decode()}
    _, info = make(fake, "img2img", body)
    assert (seen(fake)["mode"], seen(fake)["mask"]) == ("edit", [0, 255])
    assert info["denoising_strength"] == 0.5
    body["mask"] = base64.b64encode(save(Image.new("L", (96, 64), 255))).decode()
    _, info = make(fake, "img2img", body | {"inpainting_mask_invert": 1})
    assert seen(fake)["mask"] == [0, 0]
    opaque = "The mask is opaque: its black area is repainted."
    nothing = "The mask leaves nothing to repaint."
    assert sorted(info["warnings"]) == [opaque, nothing]
    body["mask"] = base64.b64encode(save(Image.new("L", (96, 64), 0))).decode()
    _, info = make(fake, "img2img", body | {"inpainting_mask_invert": 1})
    assert (seen(fake)["mask"], info["warnings"]) == ([255, 255], [opaque])


def test_loras_in_the_prompt(tmp_path):
    (tmp_path / "my style.safetensors").write_bytes(b"not looked at in a dry run")
    settings = {"FLUX_LORA_DIR": tmp_path, "FLUX_MODELS": "tiny,flux1"}
    with run_api(app="tests.support.fake_app:app", **settings) as server:
        server.wait_ready()
        # Another model's own is not one of them.
        assert [lora["name"] for lora in get(server, "/loras")] == ["my style"]
        body = SMALL | {"prompt": "a cat <lora:my style:0.5>", "dry_run": True}
        answer = post(server, f"{SD}/txt2img", json=body)
        assert answer.status_code == 200, answer.text
        request = answer.json()["request"]
        assert request["prompt"] == "a cat"
        assert request["loras"] == [{"name": "my style", "adapter_weight": 0.5}]
        # Beside others, in every form that these may have.
        (tmp_path / "other.safetensors").write_bytes(b"not looked at, too")
        for others in ("other:2", [{"name": "other", "adapter_weight": 2}]):
            answer = post(server, f"{SD}/txt2img", json=body | {"loras": others})
            assert answer.json()["request"]["loras"] == [
                {"name": "other", "adapter_weight": 2},
                {"name": "my style", "adapter_weight": 0.5},
            ]
        for wrong in (7, "[{", ["my style"]):
            answer = post(server, f"{SD}/txt2img", json=body | {"loras": wrong})
            assert answer.status_code == 422, wrong
            assert "'loras'" in answer.json()["errors"]
        body["prompt"] = "a cat <lora:no-such:1>"
        answer = post(server, f"{SD}/txt2img", json=body)
        assert answer.status_code == 422
        assert "no-such" in answer.json()["errors"]


def test_a_callers_model_is_its_own():
    settings = {
        "FLUX_MODELS": "tiny,klein-4b",
        "FLUX_API_KEYS": f"one:{KEY},two:sk-key-two",
    }
    one, two = ("me", KEY), ("me", "sk-key-two")
    with run_api(app="tests.support.fake_app:app", **settings) as server:
        server.wait_ready()
        assert requests.get(f"{server.url}{SD}/options", timeout=10).status_code == 401
        model = {"sd_model_checkpoint": "klein-4b"}
        assert post(server, f"{SD}/options", json=model, auth=one).ok
        _, info = make(server, "txt2img", SILLY_TAVERN, auth=one)
        assert info["sd_model_name"] == "klein-4b"
        # What this model does not take is said, not refused: apps always send it.
        assert "negative prompt" in " ".join(info["warnings"])
        assert get(server, "/options", auth=two)["sd_model_checkpoint"] == "tiny"
        _, info = make(server, "txt2img", SMALL, auth=two)
        assert info["sd_model_name"] == "tiny"
        override = {"override_settings": {"sd_model_checkpoint": "klein-4b"}}
        _, info = make(server, "txt2img", SMALL | override, auth=two)
        assert (info["sd_model_name"], info["warnings"]) == ("klein-4b", [])
        guided = SMALL | {"distilled_cfg_scale": 2.5}
        _, info = make(server, "txt2img", guided | override, auth=two)
        [told] = info["warnings"]
        assert "its guidance was ignored" in told
        _, info = make(server, "txt2img", guided, auth=two)
        assert (info["distilled_cfg_scale"], info["warnings"]) == (2.5, [])
        # Without a strength of its own it edits as the prompt says.
        _, info = make(server, "img2img", KRITA | override, auth=two)
        assert info["denoising_strength"] is None


def test_progress_and_interrupt_are_the_callers_own(fake):
    with closing(begin(fake, SMALL | {"prompt": "hold"}, f"{SD}/txt2img")) as held:
        wait_for(lambda: stats(fake)["running"] == 1, 10)
        with closing(begin(fake, {"prompt": "hold"})) as other:
            wait_for(lambda: stats(fake)["queued"] == 1, 10)
            told = get(fake, "/progress?skip_current_image=false")
            assert told["state"]["job_count"] == 1
            assert told["current_image"] is None
            assert post(fake, f"{SD}/interrupt", json={}).json() == {}
            answer = held.getresponse()
            assert answer.status == 499
            assert json.loads(answer.read())["error"] == "cancelled"
            # What came through another API goes on.
            wait_for(lambda: stats(fake)["running"] == 1, 10)
            release(fake)
            assert other.getresponse().status == 200


def test_steps_are_told_as_progress(fake):
    body = SMALL | {"prompt": "pause=0.2", "steps": 10, "partial_images": 1}
    with closing(begin(fake, body, f"{SD}/txt2img")) as held:
        wait_for(lambda: 0 < get(fake, "/progress")["progress"] < 1, 10)
        told = get(fake, "/progress")
        assert told["state"]["sampling_steps"] == 10
        assert told["eta_relative"] > 0
        wait_for(lambda: get(fake, "/progress")["current_image"], 10)
        assert held.getresponse().status == 200


def test_png_info(fake):
    text = "a cat\nSteps: 3, Sampler: Euler, Seed: 7, 日本語"
    for packed in (False, True):
        info, buffer = PngInfo(), io.BytesIO()
        info.add_itxt("parameters", text, zip=packed)
        info.add_text("Title", "a cat", zip=packed)
        Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=info)
        told = post(fake, f"{SD}/png-info", json={"image": data_url(buffer.getvalue())})
        assert told.json()["info"] == text
        assert told.json()["items"] == {"parameters": text, "Title": "a cat"}
    for kind in ("PNG", "JPEG"):
        Image.new("RGB", (8, 8)).save(plain := io.BytesIO(), kind)
        told = post(fake, f"{SD}/png-info", json={"image": data_url(plain.getvalue())})
        assert (told.json()["info"], told.json()["items"]) == ("", {})
    for data in (b"no picture", buffer.getvalue()[:60]):
        told = post(fake, f"{SD}/png-info", json={"image": data_url(data)})
        assert (told.status_code, told.json()["error"]) == (422, "invalid_image_file")


def test_texts_that_unpack_to_much_more_than_was_sent_are_refused(fake):
    before = memory_of(pid(fake), "VmHWM")
    for size, count in ((1 << 20, 200), (20 << 20, 1), (600_000, 2)):
        zeros = zlib.compress(b"0" * size, 9)
        parts = [(b"zTXt", b"t%d\0\0" % number + zeros) for number in range(count)]
        png = make_png()
        texts = b"".join(png_chunk(*part) for part in parts)
        sent = base64.b64encode(png[:33] + texts + png[33:]).decode()
        told = post(fake, f"{SD}/png-info", json={"image": sent})
        assert told.status_code == 422
    assert "1024 KiB" in told.json()["errors"]
    assert memory_of(pid(fake), "VmHWM") - before < 50


def test_a_picture_that_is_looked_at_has_a_place_in_the_queue(one_place):
    server = one_place
    with ThreadPoolExecutor(2) as pool:
        held = SMALL | {"prompt": "hold"}
        first = pool.submit(post, server, f"{SD}/txt2img", json=held)
        wait_for(lambda: stats(server)["running"] == 1, 10)
        second = pool.submit(post, server, f"{SD}/txt2img", json=held)
        wait_for(lambda: stats(server)["queued"] == 1, 10)
        looked = {"image": data_url(make_png())}
        assert post(server, f"{SD}/png-info", json=looked).status_code == 429
        release(server)
        assert {first.result().status_code, second.result().status_code} == {200}
        assert post(server, f"{SD}/png-info", json=looked).status_code == 200


@pytest.mark.parametrize(
    ("route", "values", "word"),
    [
        ("txt2img", {"prompt": ""}, "'prompt'"),
        ("txt2img", {"width": 63}, "width"),
        ("txt2img", {"enable_hr": True}, "Hires"),
        ("txt2img", {"batch_size": 5, "n_iter": 5}, "n_iter"),
        ("txt2img", {"init_images": [PICTURE]}, "img2img"),
        ("txt2img", {"override_settings": {"sd_model_checkpoint": "sdxl"}}, "'sdxl'"),
        ("txt2img", {"override_settings": 3}, "override_settings"),
        ("img2img", {}, "'init_images'"),
        ("img2img", {"init_images": ["%%"]}, "init_image"),
        ("img2img", {"init_images": [PICTURE], "denoising_strength": 2}, "denoising"),
        ("options", {"sd_model_checkpoint": "sdxl"}, "'sdxl'"),
        ("options", {"sd_vae": "other"}, "'sd_vae'"),
        ("png-info", {}, "'image'"),
        ("png-info", {"image": "%%"}, "image"),
    ],
)
def test_what_is_wrong_is_told_as_fastapi_does(fake, route, values, word):
    body = values if route in ("options", "png-info") else SMALL | values
    answer = post(fake, f"{SD}/{route}", json=body)
    assert answer.status_code == 422
    told = answer.json()
    assert word in told["errors"]
    assert told["detail"][0]["msg"] == told["errors"]
    assert stats(fake)["begun"] == 0


def test_what_is_not_there(fake):
    for path in ("/no-such-list", "/a/b"):
        answer = requests.get(fake.url + SD + path, timeout=10)
        assert answer.status_code == 404
        assert "There is nothing at this address" in answer.json()["detail"]
    answer = post(fake, f"{SD}/txt2img", json=SMALL | {"prompt": "fail=pipeline"})
    assert (answer.status_code, answer.json()["error"]) == (500, "generation_failed")


def test_fifty_times_the_same_key_is_one_run(fake):
    headers = {"Idempotency-Key": "fifty-of-a1111"}

    def again(_):
        return post(fake, f"{SD}/txt2img", json=SMALL, headers=headers).content

    with ThreadPoolExecutor(25) as pool:
        answers = set(pool.map(again, range(50)))
    assert len(answers) == 1
    assert stats(fake)["begun"] == 1


def test_pictures_too_many_are_named_as_they_were_sent(fake, png):
    values = {"prompt": "a cat", "init_images": [data_url(png), data_url(png)]}
    answer = post(fake, f"{SD}/img2img", json=values)
    assert answer.status_code == 422
    [detail] = answer.json()["detail"]
    # One of them, as where its Base64 is wrong; it was "image", which was never sent.
    assert detail["loc"] == ["body", "init_image"]
    assert "at most 1 input image" in detail["msg"]
