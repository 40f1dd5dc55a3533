"""``fetch`` for a set with files: what is not in them, and the set then draws; and for
one of several checkpoints."""

from __future__ import annotations

import json

import requests

from tests.commands.test_doctor import run
from tests.support.checkpoint_forms import prefixed, read, save, to_bfl, write_gguf
from tests.support.fake_hub import Hub, hub_settings, run_hub
from tests.support.servers import run_api
from tests.support.tiny_checkpoints import build

SETS = """
[mine]
like = "klein-4b"
base_model = "maker/base"
transformer = "maker/files/sub/klein-Q8_0.gguf"

[whole]
like = "klein-4b"
base_model = "maker/base"
transformer = "maker/files/whole.fp16.safetensors"
"""


def test_what_is_in_files_is_not_fetched_twice(tmp_path):
    base, files = build("klein", tmp_path / "base"), tmp_path / "files"
    (files / "sub").mkdir(parents=True)
    made = to_bfl("klein", read(base, "transformer"))
    write_gguf(files / "sub" / "klein-Q8_0.gguf", made, "Q8_0")
    whole = prefixed("model.diffusion_model.", made)
    encoder = read(base, "text_encoder")
    whole |= prefixed("text_encoders.qwen3_4b.transformer.", encoder)
    save(files / "whole.fp16.safetensors", whole)
    (files / "other.safetensors").write_bytes(b"never asked for")
    (tmp_path / "models.toml").write_text(SETS)
    for name, kept in (
        ("mine", {"text_encoder", "vae"}),
        ("whole", {"vae"}),
    ):
        hub = Hub({"maker/base": base, "maker/files": files})
        with run_hub(hub) as url:
            done = run(
                *("fetch", name),
                MODEL_INFO=tmp_path / "models.toml",
                **hub_settings(url, tmp_path / name),
            )
        assert done.returncode == 0, done.stderr
        weights = {p.split("/")[2] for p in hub.served if p.endswith("safetensors")}
        assert weights - {"whole.fp16.safetensors"} == kept
        assert "maker/base/transformer/config.json" in hub.served
        assert "maker/files/other.safetensors" not in hub.served
    settings = {"HF_HOME": tmp_path / "mine", "MODEL_INFO": tmp_path / "models.toml"}
    with run_api(FLUX_MODEL="mine", FLUX_MODELS="mine", **settings) as server:
        server.wait_ready()
        values = {"prompt": "a", "size": "64x64", "num_inference_steps": 1}
        url = f"{server.url}/v1/images/generations"
        answer = requests.post(url, json=values, timeout=120)
    assert answer.status_code == 200, answer.text


def checkpoint(folder, *components):
    """One that has ``components``, and something beside them."""
    index = {name: ["library", "Class"] for name in components} | {"absent": [None] * 2}
    for name in (*components, "absent", "other"):
        (folder / name).mkdir(parents=True)
        # Each another: what is the same comes once.
        (folder / name / "config.json").write_text(json.dumps({"of": name}))
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def test_each_checkpoint_gives_what_the_others_do_not(tmp_path):
    parts = ("transformer", "text_encoder", "tokenizer", "text_encoder_2")
    parts = (*parts, "tokenizer_2", "vae", "scheduler")
    names = ("FLUX.1-dev", "FLUX.1-Kontext-dev", "FLUX.1-Fill-dev")
    folders = {
        f"black-forest-labs/{name}": checkpoint(tmp_path / name, *parts)
        for name in names
    }
    redux, turbo = "black-forest-labs/FLUX.1-Redux-dev", "alimama-creative/"
    turbo += "FLUX.1-Turbo-Alpha"
    folders[redux] = checkpoint(tmp_path / "redux", "image_encoder", "image_embedder")
    folders[turbo] = tmp_path / "turbo"
    folders[turbo].mkdir()
    for name in ("diffusion_pytorch_model.safetensors", "other.safetensors"):
        (folders[turbo] / name).write_bytes(b"weights")
    hub = Hub(folders)
    with run_hub(hub) as url:
        done = run(
            *("fetch", "flux1"),
            **hub_settings(url, tmp_path / "home"),
        )
    assert done.returncode == 0, done.stderr
    first, *others = (f"black-forest-labs/{name}" for name in names)
    # Text encoders and the VAE are the same in all three.
    wanted = {f"{first}/{part}/config.json" for part in parts}
    for name in others:
        wanted |= {
            f"{name}/{part}/config.json" for part in ("transformer", "scheduler")
        }
    wanted |= {f"{redux}/image_{part}/config.json" for part in ("encoder", "embedder")}
    wanted |= {f"{turbo}/diffusion_pytorch_model.safetensors"}
    index = {f"{name}/model_index.json" for name in (first, *others, redux)}
    assert set(hub.served) == wanted | index
