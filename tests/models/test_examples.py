"""The three examples of docs/models.md with files of people's own, as they stand there,
over tiny checkpoints of the same form."""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import requests
import torch
from PIL import Image
from safetensors.torch import load_file

from flux_api.models.checkpoints import identify_file
from flux_api.models.file_sets import set_of_path
from tests.commands.test_doctor import run
from tests.support.checkpoint_forms import (
    build_base,
    read,
    save,
    to_bfl,
    to_fp8,
    wide,
    write_gguf,
)
from tests.support.fake_hub import Hub, run_hub
from tests.support.servers import ROOT, run_api
from tests.support.tiny_checkpoints import build_lora

PAGE = (ROOT / "docs" / "models.md").read_text()
ONLINE = {"HF_HUB_OFFLINE": 0, "HF_HUB_DISABLE_XET": 1}


def example(word):
    """The block of the page that has ``word`` in it."""
    blocks = re.findall(r"```\w+\n(.*?)```", PAGE, re.S)
    [block] = [one for one in blocks if word in one]
    return block


def run_row(beginning, folder):
    """Run in ``folder`` the command in the row of a table that begins so."""
    [command] = re.findall(rf"^\| {beginning}.*`(.+?)` \|$", PAGE, re.M)
    words = [sys.executable, *shlex.split(command)[1:]]
    subprocess.run(words, cwd=folder, check=True, timeout=120)


@pytest.mark.parametrize("key", [None, "state_dict"])
def test_a_pickle_is_converted(dev, tmp_path, key):
    """With two tensors in one memory, and one turned over, as trainers leave them."""
    made = to_bfl("flux1", read(dev, "transformer"))
    name = "double_blocks.0.img_attn.proj.weight"
    made[name] = made[name].T.contiguous().T
    one = torch.zeros(2, *made["img_in.bias"].shape)
    made |= {"img_in.bias": one[0], "txt_in.bias": one[1]}
    torch.save({key: made, "epoch": 3} if key else made, tmp_path / "a.ckpt")
    run_row("a pickle", tmp_path)
    converted = load_file(tmp_path / "a.safetensors")
    assert all(torch.equal(converted[n], t) for n, t in made.items())
    assert identify_file(tmp_path / "a.safetensors").variant == "dev"


def test_a_dduf_is_unpacked(dev, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.dduf", "w") as archive:
        for path in dev.rglob("*.*"):
            archive.write(path, path.relative_to(dev))
    run_row("DDUF", tmp_path)
    _, info = set_of_path(str(tmp_path / "folder"), None, None)
    assert "generate" in info.tasks


def ask(server, **fields):
    """A small picture as numbers."""
    form = {"prompt": "a castle", "width": 64, "height": 64, "seed": 3}
    form |= {"num_inference_steps": 2} | fields
    answer = requests.post(f"{server.url}/process/raw", data=form, timeout=120)
    assert answer.status_code == 200, answer.headers
    return np.asarray(Image.open(io.BytesIO(answer.content))).astype(int)


@pytest.fixture(scope="module")
def dev(tmp_path_factory):
    """FLUX.1 dev in diffusers' layout."""
    return build_base("flux1", tmp_path_factory.mktemp("dev") / "dev")


@pytest.fixture(scope="module")
def fetched(dev, tmp_path_factory):
    """A GGUF and a LoRA, and a cache with what the example's ``fetch`` brings."""
    lines = example("FLUX_LORA_DIR=/models/loras")
    name = re.search(r"FLUX_MODEL=/models/(\S+)", lines)[1]
    folder = tmp_path_factory.mktemp("models")
    write_gguf(folder / name, to_bfl("flux1", read(dev, "transformer")), "Q4_K")
    (folder / "loras").mkdir()
    lora = folder / "loras" / "ink.safetensors"
    options = {"rank": 8, "seed": 4, "targets": ["to_q", "to_out.0", "proj_out"]}
    build_lora(lora, wide("flux1"), "FluxPipeline", **options)
    settings = {"FLUX_MODEL": folder / name, "HF_HOME": folder / "cache"}
    command = re.search(r"-m flux_api (fetch .*)", lines)[1]
    hub = Hub({"black-forest-labs/FLUX.1-dev": dev})
    with run_hub(hub) as url:
        done = run(*shlex.split(command), HF_ENDPOINT=url, **ONLINE, **settings)
    assert done.returncode == 0, done.stderr
    assert not any("/transformer/" in p for p in hub.served if "safetensors" in p)
    return folder, settings


def test_a_gguf_with_a_lora(fetched):
    folder, settings = fetched
    loras = re.search(r'-F "loras=([^"]+)"', example("FLUX_LORA_DIR=/models/loras"))[1]
    with run_api(FLUX_LORA_DIR=folder / "loras", **settings) as server:
        server.wait_ready()
        assert np.abs(ask(server, loras=loras) - ask(server)).max() > 4


def test_a_fine_tune_beside_other_sets(fetched, dev, tmp_path):
    """The example without its offloading, which is for a GPU."""
    _, settings = fetched
    block = example("[toon]")
    assert 'offload = "model"\n' in block
    text = block.replace('offload = "model"\n', "").replace("/models", str(tmp_path))
    (tmp_path / "m.toml").write_text(text)
    packed, _ = to_fp8(to_bfl("flux1", read(dev, "transformer")))
    encoder = read(dev, "text_encoder_2")
    encoder = {name: t.to(torch.float8_e4m3fn) for name, t in encoder.items()}
    files = re.findall(r'= "/models/(.+?)"', block)
    for name, tensors in zip(files, (packed, encoder), strict=True):
        save(tmp_path / name, tensors)
    sets = {"MODEL_INFO": tmp_path / "m.toml", "FLUX_MODELS": "tiny,toon"}
    with run_api(HF_HOME=settings["HF_HOME"], FLUX_MODEL="tiny", **sets) as server:
        server.wait_ready()
        assert ask(server, model="toon").std() > 1


def test_a_folder_without_a_network(tmp_path):
    base = build_base("klein", tmp_path / "klein")
    download, serve = example("--local-dir").replace("\\\n", " ").splitlines()
    words = shlex.split(download.replace("/models", str(tmp_path / "taken")))
    [repository] = [word for word in words if word.startswith("black-forest-labs/")]
    command = [str(Path(sys.executable).with_name("hf")), *words[1:]]
    with run_hub(Hub({repository: base})) as url:
        online = {"HF_ENDPOINT": url, "HF_HOME": tmp_path / "cache"} | ONLINE
        environment = {name: str(value) for name, value in online.items()}
        subprocess.run(command, env=environment, check=True, timeout=120)
    made = to_bfl("klein", read(base, "transformer"))
    settings = dict(re.findall(r"(\w+)=(\S+)", serve))
    settings = {
        name: value.replace("/models", str(tmp_path / "taken"))
        for name, value in settings.items()
    }
    write_gguf(Path(settings["FLUX_MODEL"]), made, "Q8_0")
    folder = Path(settings["FLUX_COMPONENTS"])
    assert not list((folder / "transformer").glob("*.safetensors"))
    with run_api(HF_HOME=tmp_path / "none", **settings) as server:
        server.wait_ready()
        assert ask(server).std() > 1
