"""Folders that bitsandbytes quantized before: each draws what the server makes of the
whole weights, and a LoRA counts on top."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import BitsAndBytesConfig, Flux2Transformer2DModel
from safetensors.torch import save_file

from flux_api.loading.quantization import quantize
from tests.engine.test_families import draw
from tests.gpu.card_server import run_on
from tests.support import tiny_checkpoints

KINDS = ("nf4", "int8")
KEPT = ["x_embedder", "context_embedder", "proj_out"]


def write_folder(folder, kind, whole):
    """The klein transformer in ``whole``, in diffusers' layout, packed as ``kind``."""
    module = Flux2Transformer2DModel.from_pretrained(whole, dtype=torch.bfloat16)
    module.save_pretrained(folder)
    [file] = folder.glob("*.safetensors")
    quantize(module, kind, torch.device("cpu"))
    state = {name: t.contiguous() for name, t in module.state_dict().items()}
    save_file(state, file, {"format": "pt"})
    options = {"load_in_8bit": True}
    if kind == "nf4":
        options = {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_compute_dtype": torch.bfloat16,
        }
    packed = BitsAndBytesConfig(llm_int8_skip_modules=KEPT, **options).to_dict()
    config = folder / "config.json"
    known = json.loads(config.read_text())
    config.write_text(json.dumps(known | {"quantization_config": packed}))
    return folder


@pytest.fixture(scope="module")
def server(card, tmp_path_factory):
    """A set for each kind over whole weights, and one over packed ones."""
    folder = tmp_path_factory.mktemp("packed")
    base = tiny_checkpoints.build("klein", folder / "klein")
    lines = []
    for kind in KINDS:
        packed = write_folder(folder / kind, kind, base / "transformer")
        common = [
            f'like = "klein-4b"\nbase_model = "{base}"',
            f'quantization = "{kind}"',
            # The server's first picture is of that size.
            "sizes.default = [256, 256]",
        ]
        lines += [f"[whole-{kind}]", *common]
        lines += [f"[packed-{kind}]", *common, f'transformer = "{packed}"']
    info = folder / "m.toml"
    info.write_text("\n".join(lines))
    lora = folder / "loras" / "a.safetensors"
    lora.parent.mkdir()
    module = tiny_checkpoints.flux2_transformer()
    options = {"rank": 8, "seed": 4, "targets": ["to_q", "to_qkv_mlp_proj"]}
    tiny_checkpoints.build_lora(lora, module, "Flux2KleinPipeline", **options)
    settings = {"MODEL_INFO": info, "FLUX_LORA_DIR": lora.parent}
    with run_on(card, FLUX_MODEL="packed-nf4", **settings) as running:
        yield running.wait_ready()


@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_folder_draws_what_whole_weights_draw(server, kind):
    whole = draw(server, f"whole-{kind}", "generate")[1]
    packed = draw(server, f"packed-{kind}", "generate")[1]
    assert abs(packed.astype(int) - whole.astype(int)).max() <= 1
    with_lora = draw(server, f"packed-{kind}", "generate", loras="a:2")[1]
    assert (with_lora != packed).any()
    assert (draw(server, f"packed-{kind}", "generate")[1] == packed).all()
