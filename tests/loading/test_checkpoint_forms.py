"""The forms of checkpoint files: each draws what the weights that it stands for draw in
a folder of diffusers' layout. The table of the forms is FORMS."""

from __future__ import annotations

import base64
import hashlib
import io
from functools import cache

import numpy as np
import pytest
import requests
import torch
from PIL import Image

from flux_api.models.headers import GGUF_KINDS
from tests.support.checkpoint_forms import (
    SCALES,
    build_base,
    from_bfl,
    is_packed,
    prefixed,
    read,
    save,
    to_bfl,
    to_fp8,
    to_ldm_vae,
    wide,
    with_component,
    write_gguf,
)
from tests.support.lora_schemes import WEIGHT, Writer
from tests.support.pictures import make_png
from tests.support.servers import run_api
from tests.support.tiny_checkpoints import build_lora

# The server's first picture is of the default size: a CPU takes long for it.
SETS = {
    "flux1": (
        "sizes.default = [256, 256]\n"
        'tasks.generate = {{ pipeline = "FluxPipeline", num_inference_steps = 2, '
        'guidance_parameter = "guidance_scale", guidance_scale = 3.5, '
        "max_sequence_length = 64 }}\n"
    ),
    "klein": (
        'like = "klein-4b"\nsizes.default = [256, 256]\n'
        "tasks.generate.max_sequence_length = 64\n"
        "tasks.edit.max_sequence_length = 64\n"
    ),
}


def safetensors(change=lambda made: (made, made), prefix=""):
    """Black Forest Labs' names; ``change`` gives what is written and what is meant."""

    def write(path, family, base):
        made = to_bfl(family, read(base, "transformer"))
        written, meant = change(made)
        save(path.with_suffix(".safetensors"), prefixed(prefix, written))
        return path.with_suffix(".safetensors"), meant

    return write


def as_number(dtype):
    """All weights in another number format."""

    def change(made):
        written = {name: tensor.to(dtype) for name, tensor in made.items()}
        return written, {name: tensor.float() for name, tensor in written.items()}

    return change


def as_gguf(kind, prefix=""):
    def write(path, family, base):
        made = prefixed(prefix, to_bfl(family, read(base, "transformer")))
        path = path.with_suffix(".gguf")
        meant = write_gguf(path, made, kind)
        return path, {n.removeprefix(prefix): t for n, t in meant.items()}

    return write


def diffusers_layout(path, family, base):
    tensors = read(base, "transformer")
    return save(path.with_suffix(".safetensors"), tensors), {}


def all_in_one(path, family, base):
    """ComfyUI's: every component in one file, with what it writes beside them."""
    tensors = prefixed(
        "model.diffusion_model.", to_bfl(family, read(base, "transformer"))
    )
    tensors |= prefixed("vae.", to_ldm_vae(read(base, "vae")))
    first = read(base, "text_encoder")
    if family == "flux1":
        clip = "text_encoders.clip_l."
        first = {
            n if "text_model" in n else f"text_model.{n}": t for n, t in first.items()
        }
        tensors |= prefixed(f"{clip}transformer.", first)
        tensors[f"{clip}logit_scale"] = torch.ones(())
        tensors[f"{clip}transformer.text_projection.weight"] = torch.ones(2, 2)
        second = read(base, "text_encoder_2")
        tensors |= prefixed("text_encoders.t5xxl.transformer.", second)
    else:
        tensors |= prefixed("text_encoders.qwen3_4b.transformer.", first)
    return save(path.with_suffix(".safetensors"), tensors), {}


FORMS = {
    "bfl": safetensors(),
    "bfl-prefix": safetensors(prefix="model.diffusion_model."),
    "diffusers": diffusers_layout,
    "all-in-one": all_in_one,
    "fp16": safetensors(as_number(torch.float16)),
    "bf16": safetensors(as_number(torch.bfloat16)),
    "fp8": safetensors(to_fp8),
    "fp8-all": safetensors(as_number(torch.float8_e4m3fn)),
    "fp8-e5m2": safetensors(as_number(torch.float8_e5m2)),
    "fp8-scaled": safetensors(lambda made: to_fp8(made, scaled=True)),
    "fp8-scaled-prefix": safetensors(
        lambda made: to_fp8(made, scaled=True, ending=".weight_scale"),
        "model.diffusion_model.",
    ),
    **{f"gguf-{kind}": as_gguf(kind) for kind in (*GGUF_KINDS, "BF16")},
    "gguf-prefix": as_gguf("Q8_0", "model.diffusion_model."),
}
FORMS_OF = [(family, form) for family in SETS for form in FORMS]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A set for each form, and ones over folders of the same weights; ``same`` is the
    latter of each form. Forms that stand for the same weights share one."""
    folder = tmp_path_factory.mktemp("forms")
    (folder / "loras").mkdir()
    lines, same = [], {}
    for family, table in SETS.items():
        base = build_base(family, folder / family)
        for form in (form for own, form in FORMS_OF if own == family):
            write = FORMS[form]
            path, meant = write(folder / f"{family}-{form}", family, base)
            lines += [f"[{family}-{form}]", table.format()]
            lines += [f'base_model = "{base}"', f'transformer = "{path}"']
            tensors = read(base, "transformer")
            tensors = from_bfl(family, meant, tensors) if meant else tensors
            other = f"same-{family}-{digest_of(tensors)}"
            if other not in same.values():
                with_component(base, folder / other, "transformer", tensors)
                lines += [f"[{other}]", table.format()]
                lines += [f'base_model = "{folder / other}"']
            same[f"{family}-{form}"] = other
        write_wide_lora(folder / "loras" / f"{family}.safetensors", family)
    for kind in ("lokr", "loha"):
        writer = Writer("klein", seed=4, module=wide("klein"))
        made = writer.write(lambda n: f"transformer.{n}", only=("to_q",), kind=kind)
        made.save(folder / "loras" / f"{kind}.safetensors")
    info = folder / "models.toml"
    info.write_text("\n".join(lines))
    settings = {"MODEL_INFO": info, "FLUX_LORA_DIR": folder / "loras"}
    with run_api(FLUX_MODEL="klein-bfl", FLUX_MAX_LOADED=2, **settings) as running:
        running.folder, running.same = folder, same
        yield running.wait_ready()


def digest_of(tensors):
    """A name for these weights."""
    made = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        made.update(f"{name} {tuple(tensor.shape)}".encode())
        made.update(tensor.float().contiguous().numpy().data)
    return made.hexdigest()[:16]


def write_wide_lora(path, family):
    pipeline = {"flux1": "FluxPipeline", "klein": "Flux2KleinPipeline"}[family]
    targets = ["to_q", "to_v", "to_out.0", "to_qkv_mlp_proj", "x_embedder", "proj_out"]
    build_lora(path, wide(family), pipeline, rank=8, seed=4, targets=targets)


def draw(server, model, image=None, **values):
    """Two pictures as numbers."""
    form = {"prompt": "a red heart", "size": "64x64", "seed": 3, "n": 2, "model": model}
    form |= {"num_inference_steps": 2, "output_format": "png"} | values
    sent = {"json": form}
    if image:
        sent = {"data": form, "files": {"image": ("a.png", image, "image/png")}}
    where = "edits" if image else "generations"
    answer = requests.post(f"{server.url}/v1/images/{where}", timeout=120, **sent)
    assert answer.status_code == 200, answer.text
    contents = [base64.b64decode(one["b64_json"]) for one in answer.json()["data"]]
    pictures = [Image.open(io.BytesIO(content)).convert("RGB") for content in contents]
    return np.stack([np.asarray(picture).astype(int) for picture in pictures])


@pytest.fixture(scope="module")
def of_same(server):
    """The pictures of the same weights in a folder, without and with a LoRA, drawn
    once."""

    @cache
    def of_same(name, lora=None):
        return draw(server, name, **(one_lora(lora) if lora else {}))

    return of_same


def one_lora(name):
    """What asks for one picture with a LoRA."""
    return {"loras": [{"name": name, "adapter_weight": WEIGHT}], "n": 1}


@pytest.mark.parametrize(("family", "form"), FORMS_OF)
def test_a_form_draws_what_its_weights_draw(server, of_same, family, form):
    name = f"{family}-{form}"
    plain, with_lora = draw(server, name), draw(server, name, **one_lora(family))
    same = server.same[name]
    assert np.abs(plain - of_same(same)).max() <= 1
    assert np.abs(with_lora - of_same(same, family)).max() <= 1
    assert np.abs(with_lora - plain[:1]).max() > 4


@pytest.mark.parametrize("kind", ["lokr", "loha"])
@pytest.mark.parametrize("form", ["fp8-scaled", "gguf-Q8_0", "gguf-Q4_K"])
def test_factors_of_other_kinds_change_packed_weights_too(server, of_same, form, kind):
    name = f"klein-{form}"
    changed = draw(server, name, **one_lora(kind))
    assert np.abs(changed - of_same(server.same[name], kind)).max() <= 1
    assert np.abs(changed - draw(server, name, n=1)).max() > 4


@pytest.mark.parametrize("form", ["bfl", "fp8-scaled", "gguf-Q8_0"])
def test_a_form_edits_too(server, form):
    image = make_png((64, 64))
    one, other = (
        draw(server, name, image)
        for name in (f"klein-{form}", server.same[f"klein-{form}"])
    )
    assert np.abs(one - other).max() <= 1


def test_a_file_is_quantized_as_a_folder_is_and_takes_a_lora(server):
    """A GGUF takes one too, where the other components are quantized."""
    wanted = ["klein-bfl", server.same["klein-bfl"], "klein-gguf-Q8_0"]
    settings = {
        "MODEL_INFO": server.folder / "models.toml",
        "FLUX_LORA_DIR": server.folder / "loras",
        "FLUX_MODELS": ",".join(wanted),
        "FLUX_QUANTIZATION": "nf4",
        "FLUX_MAX_LOADED": 2,
    }
    lora = one_lora("klein")
    with run_api(imports={}, **settings) as quantized:
        quantized.wait_ready()
        file, folder, packed = (draw(quantized, name, **lora) for name in wanted)
        bare = draw(quantized, "klein-gguf-Q8_0", n=1)
    assert np.abs(file - folder).max() <= 1
    assert np.abs(packed - bare).max() > 4


def test_what_the_package_cannot_write_is_what_it_reads():
    """The kinds of diffusers' table, and the bytes that stand for them here."""
    from diffusers.quantizers.gguf.utils import SUPPORTED_GGUF_QUANT_TYPES

    ours = {*GGUF_KINDS, "BF16"}
    assert {kind.name for kind in SUPPORTED_GGUF_QUANT_TYPES} == ours
    assert SCALES.keys() < ours
    assert is_packed("double_blocks.0.img_attn.qkv.weight", torch.ones(2, 2))
