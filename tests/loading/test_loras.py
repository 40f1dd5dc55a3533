"""LoRAs over HTTP: by registered name, and gone without a trace after the request."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import requests
from PIL import Image
from safetensors.numpy import save_file

from tests.support.tiny_sets import BAD_LORAS, write_lora

FAMILIES = {"flux1": "flux1", "klein-4b": "klein", "flux3-klein-direct": "flux3"}


def draw(server, model, loras=None, **values):
    """One small picture, and the LoRAs that the answer names."""
    form = {"prompt": "a red heart", "width": 64, "height": 64, "seed": 3}
    form |= {"num_inference_steps": 2, "model": model} | values
    if loras is not None:
        form["loras"] = loras
    answer = requests.post(f"{server.url}/process/raw", data=form, timeout=60)
    assert answer.status_code == 200, answer.text
    picture = np.asarray(Image.open(io.BytesIO(answer.content)))
    return picture, json.loads(answer.headers["X-Flux-Loras"])


def weights(loras):
    """Names to weights."""
    return {lora["name"]: lora["adapter_weight"] for lora in loras}


@pytest.mark.parametrize("model", FAMILIES)
def test_a_then_b_then_none_leaves_no_trace(families, model):
    family = FAMILIES[model]
    before, _ = draw(families, model)
    with_a, applied = draw(families, model, f"{family}.a:0.8")
    assert weights(applied)[f"{family}.a"] == 0.8
    with_b, _ = draw(families, model, json.dumps([{"name": f"{family}.b"}]))
    both, applied = draw(families, model, f"{family}.a:0.8,{family}.b:1")
    after, _ = draw(families, model)
    assert (before == after).all()
    different = [before, with_a, with_b, both]
    for index, one in enumerate(different):
        for other in different[index + 1 :]:
            assert (one != other).any()
    again, _ = draw(families, model, f"{family}.a:0.8")
    assert (again == with_a).all()
    assert "it/s]" not in families.output, "a progress bar"


@pytest.mark.parametrize("model", FAMILIES)
def test_at_once_each_picture_has_its_own_loras(sharing, model):
    """Some share forwards with their like, those with other LoRAs wait for them."""
    family = FAMILIES[model]
    asked = [None, f"{family}.a:0.8", f"{family}.b", None, f"{family}.a:0.8"]

    def one(loras):
        return draw(sharing, model, loras)[0].astype(int)

    alone = {loras: one(loras) for loras in asked}
    assert np.abs(alone[asked[1]] - alone[asked[2]]).max() > 1
    assert np.abs(alone[asked[1]] - alone[None]).max() > 1
    with ThreadPoolExecutor(len(asked)) as pool:
        together = list(pool.map(one, asked))
    for loras, picture in zip(asked, together, strict=True):
        assert np.abs(picture - alone[loras]).max() <= 1


def test_weights_count_and_zero_is_none(families):
    none, _ = draw(families, "klein-4b")
    assert (draw(families, "klein-4b", "klein.a:0")[0] == none).all()
    weak, strong = (draw(families, "klein-4b", f"klein.a:{w}")[0] for w in (0.5, 2))
    assert (weak != strong).any()


def test_the_sets_own_lora_is_applied_and_can_be_weighed(families):
    own, applied = draw(families, "flux1")
    assert weights(applied) == {"turbo-alpha": 1.0}
    off, applied = draw(families, "flux1", "turbo-alpha:0")
    assert weights(applied) == {"turbo-alpha": 0.0}
    assert (own != off).any()
    more, applied = draw(families, "flux1", "flux1.a")
    assert weights(applied) == {"turbo-alpha": 1.0, "flux1.a": 1.0}
    assert (draw(families, "flux1")[0] == own).all()


def test_the_other_api_takes_loras_too(families):
    url = f"{families.url}/v1/images/generations"
    values = {"prompt": "a duck", "size": "64x64", "model": "klein-4b", "seed": 1}
    values["loras"] = [{"name": "klein.a", "adapter_weight": 0.8}]
    body = requests.post(url, json=values, timeout=60).json()
    assert body["loras"] == values["loras"]


def test_wrong_files_are_refused_and_leave_nothing_behind(families):
    before, _ = draw(families, "flux1")
    form = {"prompt": "a duck", "width": 64, "height": 64, "model": "flux1"}
    form["num_inference_steps"] = 2
    for name in BAD_LORAS:
        answer = requests.post(
            f"{families.url}/process",
            data=form | {"loras": f"{name},flux1.a"},
            timeout=60,
        )
        assert answer.status_code == 400, name
        assert name in answer.json()["error"]
        assert (draw(families, "flux1")[0] == before).all(), name
    assert not (families.lora_folder / "TRACES").exists(), "a pickle was run"


@pytest.mark.parametrize(
    "name", ["beside", "beside.bin", "link", "nobody", "../loras/flux1.a", "klein.a/"]
)
def test_only_registered_names_are_known(families, name):
    form = {"prompt": "a duck", "model": "flux1", "loras": name}
    answer = requests.post(f"{families.url}/process", data=form, timeout=60)
    assert answer.status_code == 400


def test_a_lora_of_another_family_is_refused(families):
    before, _ = draw(families, "klein-4b")
    form = {"prompt": "a duck", "width": 64, "height": 64, "num_inference_steps": 2}
    for model, name in (("klein-4b", "flux1.a"), ("flux1", "klein.a")):
        answer = requests.post(
            f"{families.url}/process",
            data=form | {"model": model, "loras": name},
            timeout=60,
        )
        assert answer.status_code == 400, answer.text
        assert "does not fit" in answer.json()["error"]
    assert (draw(families, "klein-4b")[0] == before).all()


@pytest.mark.parametrize("alpha", [-1.0, 0.0, float("nan"), float("inf")])
def test_an_alpha_that_is_not_above_zero_is_refused(families, alpha):
    """With a negative one diffusers' converters never come back."""
    layer = "lora_unet_double_blocks_0_img_attn_proj"
    shape = np.zeros((2, 16), np.float32)
    tensors = {
        f"{layer}.lora_down.weight": shape,
        f"{layer}.lora_up.weight": shape.T.copy(),
        f"{layer}.alpha": np.array(alpha, np.float32),
    }
    save_file(tensors, families.lora_folder / "alpha.safetensors")
    form = {"prompt": "a duck", "width": 64, "height": 64, "model": "flux1"}
    answer = requests.post(
        f"{families.url}/process", data=form | {"loras": "alpha"}, timeout=20
    )
    assert answer.status_code == 400
    assert "alpha" in answer.json()["error"]
    assert draw(families, "flux1")[0].any()


@pytest.mark.parametrize("file", ["絵/水彩 [v1].safetensors", "LOUD.SAFETENSORS"])
def test_a_file_counts_whatever_its_name(families, file):
    path = families.lora_folder / file
    path.parent.mkdir(exist_ok=True)
    plain, _ = draw(families, "klein-4b")
    write_lora(path, family="klein", seed=21)
    name = file.rpartition(".")[0]
    picture, applied = draw(families, "klein-4b", name)
    assert weights(applied) == {name: 1.0}
    assert (picture != plain).any()
    path.unlink()


def test_files_can_be_added_while_it_runs(families):
    write_lora(families.lora_folder / "late.safetensors", family="klein", seed=20)
    assert weights(draw(families, "klein-4b", "late")[1]) == {"late": 1.0}
