"""The picture that is drawn before the first caller's."""

from __future__ import annotations

import shutil

import pytest
import requests
from safetensors.torch import load_file, save_file

from flux_api.engine.warm_up import warm_up_request
from flux_api.models.catalog import MODEL_INFO
from tests.support.servers import run_api, wait_for


def test_a_model_that_cannot_draw_is_a_failed_load(tmp_path):
    shutil.copytree(MODEL_INFO["tiny"].base_model.path, tmp_path / "broken")
    for weights in (tmp_path / "broken" / "transformer").glob("*.safetensors"):
        whole = load_file(weights)
        save_file({name: t * float("nan") for name, t in whole.items()}, weights)
    toml = f"[broken]\nlike = 'tiny'\nbase_model = '{tmp_path / 'broken'}'\n"
    (tmp_path / "m.toml").write_text(toml)
    settings = {"MODEL_INFO": tmp_path / "m.toml", "FLUX_MODEL": "broken"}
    with run_api(**settings) as server:
        failed = "loading failed: The model made no usable picture."

        def reason():
            return requests.get(f"{server.url}/readyz", timeout=5).json()["reason"]

        wait_for(lambda: reason() == failed, 60, server)
        form = {"prompt": "a cat"}
        answer = requests.post(f"{server.url}/process", data=form, timeout=10)
        assert answer.status_code == 503
        assert failed in answer.json()["error"]


@pytest.mark.parametrize("name", MODEL_INFO)
def test_it_is_one_of_the_first_task_with_all_that_this_needs(name):
    info = MODEL_INFO[name]
    wanted, first = warm_up_request(name, info), next(iter(info.tasks.values()))
    assert info.task(wanted.mode, masked=wanted.mask_image is not None) is first
    first.check(len(wanted.images), wanted.negative_prompt)
    assert all(one.size == info.sizes.default for one in wanted.images)
    # A first step and one that is none.
    assert wanted.num_inference_steps == 2
