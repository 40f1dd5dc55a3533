"""Folders that bitsandbytes quantized before, on a CPU; tests/gpu has them on a GPU."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen3ForCausalLM

from flux_api.loading.quantization import quantize
from flux_api.models.hub import ModelMissing
from tests.gpu.test_quantized_folder import KINDS, write_folder
from tests.loading.test_checkpoints import load
from tests.loading.test_loras import draw
from tests.support import tiny_checkpoints
from tests.support.servers import run_api


def write_encoder(folder, kind, whole):
    """The text encoder in ``whole``, packed as ``kind``."""
    module = Qwen3ForCausalLM.from_pretrained(whole, dtype=torch.bfloat16)
    module.save_pretrained(folder)
    quantize(module, kind, torch.device("cpu"))
    state = {n: t.contiguous().clone() for n, t in module.state_dict().items()}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    config = folder / "config.json"
    packed = {"quantization_config": {"quant_method": "bitsandbytes"}}
    config.write_text(json.dumps(json.loads(config.read_text()) | packed))
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A whole checkpoint."""
    return tiny_checkpoints.build("klein", tmp_path_factory.mktemp("whole") / "klein")


@pytest.fixture(scope="module")
def server(base, tmp_path_factory):
    """A set for each kind over whole weights, which it packs, and one over packed."""
    folder = tmp_path_factory.mktemp("packed")
    lines = []
    for kind in KINDS:
        transformer = write_folder(folder / kind, kind, base / "transformer")
        encoder = write_encoder(folder / f"{kind}-text", kind, base / "text_encoder")
        common = [
            f'like = "klein-4b"\nbase_model = "{base}"',
            f'quantization = "{kind}"',
            # The server's first picture is of that size: a CPU takes long for it.
            "sizes.default = [256, 256]",
        ]
        lines += [f"[whole-{kind}]", *common]
        lines += [f"[packed-{kind}]", *common]
        lines += [f'transformer = "{transformer}"', f'text_encoder = "{encoder}"']
    info = folder / "m.toml"
    info.write_text("\n".join(lines))
    (folder / "loras").mkdir()
    module = tiny_checkpoints.flux2_transformer()
    options = {"rank": 8, "seed": 4, "targets": ["to_q", "to_qkv_mlp_proj"]}
    lora = folder / "loras" / "a.safetensors"
    tiny_checkpoints.build_lora(lora, module, "Flux2KleinPipeline", **options)
    settings = {"MODEL_INFO": info, "FLUX_LORA_DIR": lora.parent}
    settings |= {"FLUX_MODEL": "packed-nf4", "FLUX_MAX_LOADED": 2}
    with run_api(imports={}, **settings) as running:
        yield running.wait_ready()


@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_folder_draws_what_whole_weights_draw(server, kind):
    whole, _ = draw(server, f"whole-{kind}")
    packed, _ = draw(server, f"packed-{kind}")
    assert abs(packed.astype(int) - whole.astype(int)).max() <= 1
    with_lora, _ = draw(server, f"packed-{kind}", "a:2")
    assert (with_lora != packed).any()
    assert (draw(server, f"packed-{kind}")[0] == packed).all()


def lose_a_tensor(tensors):
    del tensors["x_embedder.weight"]
    return "lacks x_embedder.weight"


def lose_a_packed_one(tensors):
    del tensors["norm_out.linear.weight"]
    return "lacks norm_out.linear.weight"


def add_a_layer(tensors):
    layer = "transformer_blocks.0.attn.to_q"
    for name in [n for n in tensors if n.startswith(layer)]:
        tensors[name.replace("blocks.0", "blocks.7")] = tensors[name].clone()
    return "'transformer_blocks.7.attn.to_q' packed, which is no part of it"


def cut_a_layer(tensors):
    name = "transformer_blocks.0.attn.to_q.weight"
    tensors[name] = tensors[name][:8].clone()
    return "32x32"


def add_a_tensor(tensors):
    tensors["a.weight"] = torch.ones(2)
    return "has a.weight, which is no part of it"


def lose_a_scale(tensors):
    """The kernels read as many as they are told that there are."""
    layer = "transformer_blocks.0.attn.to_q"
    if f"{layer}.SCB" in tensors:
        tensors[f"{layer}.SCB"] = tensors[f"{layer}.SCB"][1:].clone()
        return "32 rows are packed with 31 scales"
    absmax = f"{layer}.weight.absmax"
    tensors[absmax] = tensors[absmax][1:].clone()
    return "a matrix of 32x32 is packed in other bytes"


SPOILED = (
    add_a_tensor,
    lose_a_scale,
    lose_a_tensor,
    lose_a_packed_one,
    add_a_layer,
    cut_a_layer,
)


def test_a_server_that_kept_bitsandbytes_out_is_to_be_restarted(
    base, tmp_path, monkeypatch
):
    """It was not packed yet when it started."""
    folder = shutil.copytree(base, tmp_path / "mine")
    shutil.rmtree(folder / "transformer")
    write_folder(folder / "transformer", "nf4", base / "transformer")
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(
        ModelMissing, match="bitsandbytes, which is not loaded: restart"
    ):
        load(folder)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spoil", SPOILED)
def test_what_is_wrong_with_one_is_said(base, tmp_path, spoil, kind):
    folder = shutil.copytree(base, tmp_path / "mine")
    shutil.rmtree(folder / "transformer")
    write_folder(folder / "transformer", kind, base / "transformer")
    [file] = (folder / "transformer").glob("*.safetensors")
    tensors = load_file(file)
    words = spoil(tensors)
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(ModelMissing) as refused:
        load(folder)
    assert words in refused.value.message
