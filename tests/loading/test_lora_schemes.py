"""The key schemes in which people's LoRAs come: each against a base into which the same
matrices were added by hand. The table of the schemes is FORMS."""

from __future__ import annotations

import io
import shutil
from functools import lru_cache

import numpy as np
import pytest
import requests
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.support import tiny_checkpoints
from tests.support.lora_schemes import (
    WEIGHT,
    Writer,
    Written,
    cut,
    flat,
    metadata_of,
)
from tests.support.servers import run_api

DOWN_UP = {"down": "lora_down", "up": "lora_up"}
CLIP = "text_model.encoder.layers.0."


def under(prefix, *, less="", **options):
    """Layers with ``prefix`` in front, in place of ``less``."""
    return lambda w: w.write(lambda n: f"{prefix}{n.removeprefix(less)}", **options)


def kohya(prefix="lora_unet_", layout="bfl", **options):
    """Kohya's way: one word, and alphas."""
    options = {"alpha": 1.0} | DOWN_UP | options
    return lambda w: w.write(lambda name: prefix + flat(name), layout=layout, **options)


def bfl(prefix="", **options):
    return under(prefix, layout="bfl", **options)


def clip(prefix, joint=".", **options):
    """CLIP's layers as checkpoints name them."""

    def write(writer):
        names = lambda name: prefix + f"text_model.{name}".replace(".", joint)  # noqa: E731
        return writer.write(names, **options)

    return write


def with_metadata(**config):
    def write(writer):
        made = writer.write(lambda name: f"transformer.{name}", rank=4)
        made.metadata = metadata_of(**config)
        scale = config["lora_alpha"] / (2.0 if config.get("use_rslora") else 4.0)
        made.added = {path: matrix * scale for path, matrix in made.added.items()}
        return made

    return write


def with_bias(ending, prefix="transformer.", layout="diffusers"):
    """A difference of the bias beside the matrix, unscaled."""

    def write(writer):
        spell = (
            (lambda n: f"{prefix}{n}")
            if "." in prefix
            else (lambda n: prefix + flat(n))
        )
        only = ("attn.to_q", "proj_mlp", "x_embedder")
        made = writer.write(spell, only=only)
        for path in made.added:
            bias = writer.rand(writer.layers[path].out_features)
            made.tensors[f"{spell(path)}.{ending}"] = bias
            made.biases[path] = bias
        return made

    return write


def dora(ending, spell, *, by_column=False, layout="diffusers", only=(), **options):
    """Rows (or columns) brought to lengths that were learnt."""

    def write(writer):
        own = {} if "magnitude" in ending else {"alpha": 1.0, **DOWN_UP}
        made = writer.write(spell, layout=layout, only=only, **own, **options)
        for name, paths in writer.groups(layout, only).items():
            old = torch.cat([writer.base[f"{path}.weight"] for path in paths])
            added = torch.cat([made.added[path] for path in paths])
            if "adaLN_modulation" in name:
                # In the file's order, as what is learnt is.
                old, added = (torch.cat(one.chunk(2)[::-1]) for one in (old, added))
            new = old + added
            axis = 0 if by_column else 1
            lengths = new.norm(dim=axis, keepdim=True)
            learnt = lengths * (1 + 0.3 * torch.rand(lengths.shape))
            new = new * (learnt / lengths)
            shape = learnt.shape if by_column or "magnitude" not in ending else (-1,)
            made.tensors[f"{spell(name)}.{ending}"] = learnt.reshape(shape)
            sizes = [made.added[path].shape[0] for path in paths]
            made.added |= zip(paths, cut(name, new - old, sizes), strict=True)
        return made

    return write


def mixed(writer):
    first = under("transformer.", only=("transformer_blocks.0",))(writer)
    return first.join(kohya(only=("blocks.1.img", "blocks.1.linear"))(writer))


def xlabs(writer):
    """XLabs' attention processors, both kinds of block."""
    names = {
        "double_blocks.0.img_attn.qkv": "double_blocks.0.processor.qkv_lora1",
        "double_blocks.0.txt_attn.qkv": "double_blocks.0.processor.qkv_lora2",
        "double_blocks.0.img_attn.proj": "double_blocks.0.processor.proj_lora1",
        "double_blocks.0.txt_attn.proj": "double_blocks.0.processor.proj_lora2",
        "single_blocks.0.linear2": "single_blocks.0.processor.proj_lora",
    }
    return writer.write(
        names.__getitem__, layout="bfl", only=tuple(names), down="down", up="up"
    )


def diffsynth(writer):
    """DiffSynth-Studio's layers, as it saves them."""
    parts = {
        "img_mod.lin": "norm1_a.linear",
        "txt_mod.lin": "norm1_b.linear",
        "img_attn.qkv": "attn.a_to_qkv",
        "txt_attn.qkv": "attn.b_to_qkv",
        "img_attn.proj": "attn.a_to_out",
        "txt_attn.proj": "attn.b_to_out",
        "img_mlp": "ff_a",
        "txt_mlp": "ff_b",
        "double_blocks": "blocks",
        "modulation.lin": "norm.linear",
        "linear1": "to_qkv_mlp",
        "linear2": "proj_out",
    }

    def spell(name):
        for theirs, own in parts.items():
            name = name.replace(theirs, own)
        return name

    options = {"layout": "bfl", "only": ("blocks",), "end": ".default.weight"}
    return writer.write(spell, **options)


def omi(writer):
    """OneTrainer's other format: parts of a fused matrix by themselves."""
    names = {}
    for name, paths in writer.groups("bfl").items():
        parts = [name] if len(paths) == 1 else [f"{name}.{n}" for n in range(4)]
        names |= dict(zip(paths, parts, strict=False))
    names["x_embedder"] = "img_in.proj"
    spell = lambda path: f"transformer.{names[path]}"  # noqa: E731
    made = writer.write(spell, alpha=1.0, **DOWN_UP)
    halves = made.added["norm_out.linear"].chunk(2)
    made.added["norm_out.linear"] = torch.cat([halves[1], halves[0]])
    return made


def linear1_qkv(writer):
    """XLabs' single blocks as ComfyUI's merges have them."""
    made = Written()
    for number in range(2):
        block = f"single_transformer_blocks.{number}.attn"
        paths = [f"{block}.{name}" for name in ("to_q", "to_k", "to_v")]
        rows = [writer.layers[path].out_features for path in paths]
        shape = sum(rows), writer.layers[paths[0]].in_features
        key = f"diffusion_model.single_blocks.{number}.linear1_qkv"
        tensors, matrix = writer._lora(key, shape, number)
        made.tensors |= tensors
        made.added |= dict(zip(paths, matrix.split(rows), strict=True))
    return made


def extracted(writer):
    """ComfyUI's difference of two models: halves, biases and norms beside matrices."""
    options = {"dtype": torch.float16, "only": ("blocks",)} | DOWN_UP
    made = bfl("diffusion_model.", **options)(writer)
    for name, paths in writer.groups("bfl", ("blocks",)).items():
        layers = [writer.layers[path] for path in paths]
        if layers[0].bias is not None:
            sizes = [layer.out_features for layer in layers]
            bias = writer.rand(sum(sizes)).half()
            made.tensors[f"diffusion_model.{name}.diff_b"] = bias
            parts = zip(paths, bias.float().split(sizes), strict=True)
            made.biases |= dict(parts)
    for path, diff in writer.norms().items():
        made.added[path] = diff.half().float()
        name = bfl_norm(path)
        made.tensors[f"diffusion_model.{name}.diff"] = diff.half()
    return made


def bfl_norm(path):
    """A norm's name in Black Forest Labs' files."""
    block, number, _, norm = path.split(".")
    word = {"q": "query_norm", "k": "key_norm"}[norm[-1]]
    if block == "single_transformer_blocks":
        return f"single_blocks.{number}.norm.{word}"
    side = "txt" if "added" in norm else "img"
    return f"double_blocks.{number}.{side}_attn.norm.{word}"


def trained_norms(writer):
    """LyCORIS with ``train_norm``."""
    made = lycoris("full")(writer)
    for path, diff in writer.norms().items():
        made.added[path] = diff
        made.tensors[f"{lycoris_spell(path)}.w_norm"] = diff
    return made


def lycoris_spell(name):
    return f"lycoris_{flat(name)}"


def fused_spell(name):
    """Diffusers' fused projections."""
    block, side = name.split(".")[1:3]
    fused = {"img_attn": "to_qkv", "txt_attn": "to_added_qkv"}[side]
    return f"lycoris_transformer_blocks_{block}_attn_{fused}"


def lycoris(kind, spell=lycoris_spell, **options):
    """LyCORIS over diffusers' layers, as SimpleTuner has it, or over others."""
    return lambda w: w.write(spell, kind=kind, **options)


def with_whole_alphas(write):
    """Alphas as whole numbers, as diffusers' own script for kohya's names has them."""

    def whole(writer):
        made = write(writer)
        for key in (k for k in made.tensors if k.endswith(".alpha")):
            made.tensors[key] = made.tensors[key].long()
        return made

    return whole


def with_scalar(write):
    """LyCORIS' number for the whole product of each layer, beside its alpha."""

    def scaled(writer):
        made = write(writer)
        layers = [k for k in made.tensors if k.endswith(".alpha")]
        for key in layers:
            made.tensors[key.removesuffix("alpha") + "scalar"] = torch.tensor([-0.5])
        made.added = {path: -0.5 * matrix for path, matrix in made.added.items()}
        assert layers
        return made

    return scaled


def lokr_of_peft(writer):
    """Whole factors, which PEFT scales too."""
    made = writer.write(lambda name: f"base_model.model.{name}", kind="lokr")
    made.metadata = metadata_of(peft_type="LOKR", r=2, alpha=3, rank_pattern={})
    made.added = {path: 1.5 * matrix for path, matrix in made.added.items()}
    return made


def magnitude_spell(name):
    return f"transformer.{name}"


def kohya_spell(name):
    return f"lora_unet_{flat(name)}"


# Scheme -> (how it is written, its component). For both families unless it says so.
FORMS = {
    "peft": under("transformer."),
    "peft-alpha-keys": under("transformer.", alpha=3.0),
    "peft-metadata": with_metadata(r=4, lora_alpha=8, rank_pattern={}),
    "peft-rslora": with_metadata(r=4, lora_alpha=3, use_rslora=True),
    "peft-varying-ranks": under("transformer.", varying=True),
    "peft-bias": with_bias("lora_B.bias"),
    "peft-dora": dora("lora_magnitude_vector", magnitude_spell),
    "peft-dora-adapter": dora(
        "lora_magnitude_vector.my_style.weight", magnitude_spell, end=".my_style.weight"
    ),
    "peft-bf16": under("transformer.", dtype=torch.bfloat16),
    "peft-fp16": under("transformer.", dtype=torch.float16),
    "peft-fp8": under("transformer.", dtype=torch.float8_e4m3fn),
    "no-prefix": under(""),
    "base-model": under("base_model.model."),
    "base-model-bfl": bfl("base_model.model.", alpha=2.0),
    "diffusion-model": under("diffusion_model."),
    "unet": under("unet."),
    "module": under("module.transformer."),
    "down-up": under("transformer.", **DOWN_UP),
    "default": under("transformer.", end=".default.weight"),
    "adapter": under("base_model.model.", end=".my_style.weight"),
    "bfl": bfl(),
    "bfl-alpha": bfl(alpha=3.0),
    "bfl-down-up": bfl(**DOWN_UP),
    "bfl-diffusion-model": bfl("diffusion_model."),
    "bfl-diffusion-model-down-up": bfl("diffusion_model.", alpha=1.0, **DOWN_UP),
    "kohya": kohya(only=("blocks",)),
    "kohya-all": kohya(),
    "kohya-whole-alphas": with_whole_alphas(kohya(only=("blocks.0",), alpha=3.0)),
    "kohya-old-names": kohya(layout="diffusers"),
    "kohya-bias": with_bias("diff_b", "lora_unet_"),
    "kohya-dora": dora("dora_scale", kohya_spell, layout="bfl"),
    "kohya-dora-columns": dora(
        "dora_scale", kohya_spell, layout="bfl", only=("blocks",), by_column=True
    ),
    "onetrainer": kohya("lora_transformer_", "diffusers"),
    "onetrainer-attention": kohya("lora_transformer_", "diffusers", only=("attn",)),
    "lokr": bfl("diffusion_model.", kind="lokr", only=("blocks",)),
    "lokr-alpha-of-none": bfl("diffusion_model.", kind="lokr", alpha=1e10),
    "lokr-low-rank": lycoris(
        "lokr", spell=kohya_spell, layout="bfl", low_rank=True, alpha=1
    ),
    "lokr-simpletuner": lycoris("lokr"),
    "lokr-peft": lokr_of_peft,
    "lokr-fused": lycoris(
        "lokr", fused_spell, layout="bfl", only=("img_attn.qkv", "txt_attn.qkv")
    ),
    "loha": bfl("diffusion_model.", kind="loha"),
    "loha-lycoris": lycoris("loha"),
    "kohya-scalar": with_scalar(kohya(only=("blocks",))),
    "lokr-scalar": with_scalar(bfl("lora_unet_", kind="lokr", low_rank=True, alpha=1)),
    "loha-scalar": with_scalar(lycoris("loha")),
    "full": bfl("lora_unet_", kind="full", only=("blocks",)),
    "full-norms": trained_norms,
    "comfyui-extract": extracted,
    "compiled": under("_orig_mod."),
    "compiled-kohya": kohya("lora_unet__orig_mod_"),
    "sformer": under("diffusion_model.", only=("transformer_blocks",), less="tran"),
    "mixed": mixed,
}
FLUX1_ONLY = {
    "xlabs": xlabs,
    "xlabs-comfyui": linear1_qkv,
    "diffsynth": diffsynth,
    "onetrainer-omi": omi,
}
TEXT_FORMS = {
    ("flux1", "text_encoder"): {
        "clip-diffusers": clip("text_encoder."),
        "clip-kohya": clip("lora_te1_", "_", alpha=1.0, **DOWN_UP),
        "clip-kohya-te": clip("lora_te_", "_", alpha=1.0, **DOWN_UP),
        "clip-omi": clip("clip_l.", alpha=1.0, **DOWN_UP),
        "clip-comfyui": clip("text_encoders.clip_l.transformer.", **DOWN_UP),
    },
    ("flux1", "text_encoder_2"): {
        "t5-diffusers": under("text_encoder_2."),
        "t5-kohya": kohya("lora_te3_", "diffusers"),
        "t5-onetrainer": kohya("lora_te2_", "diffusers"),
        "t5-omi": under("t5.", alpha=1.0, **DOWN_UP),
        "t5-comfyui": under("text_encoders.t5xxl.transformer.", **DOWN_UP),
    },
    ("klein", "text_encoder"): {
        "qwen-diffusers": under("text_encoder."),
        "qwen-comfyui": under("text_encoders.qwen3_4b.transformer."),
        "qwen-kohya": kohya("lora_te_", "diffusers"),
    },
}


def cases():
    """(family, component, scheme) -> how it is written."""
    found = {}
    for family in ("flux1", "klein"):
        for scheme, write in FORMS.items():
            # FLUX.2's layers have no bias to add to.
            if family == "flux1" or not scheme.endswith("-bias"):
                found[family, "transformer", scheme] = write
    for scheme, write in FLUX1_ONLY.items():
        found["flux1", "transformer", scheme] = write
    for (family, component), forms in TEXT_FORMS.items():
        for scheme, write in forms.items():
            found[family, component, scheme] = write
    return found


CASES = cases()
SETS = {
    "flux1": (
        'base_model = "{folder}"\ntasks.generate = {{ pipeline = "FluxPipeline", '
        'num_inference_steps = 2, guidance_parameter = "guidance_scale", '
        "guidance_scale = 3.5 }}\n"
    ),
    "klein": 'like = "klein-4b"\nbase_model = "{folder}"\n',
}


def weights_file(folder, component):
    [file] = (folder / component).glob("*.safetensors")
    return file


def merge(base, folder, made):
    """A copy of ``base`` into which what ``made`` adds is added."""
    folder.mkdir()
    for part in base.iterdir():
        if part.name == made.component:
            shutil.copytree(part, folder / part.name)
        else:
            (folder / part.name).symlink_to(part)
    file = weights_file(folder, made.component)
    tensors = load_file(file)
    for kind, added in (("weight", made.added), ("bias", made.biases)):
        for path, matrix in added.items():
            key = f"{path}.{kind}"
            key = key if key in tensors else f"text_model.{key}"
            tensors[key] = tensors[key] + WEIGHT * matrix
    save_file(tensors, file, {"format": "pt"})


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with a set for each merged base, and the LoRAs; ``merged`` is the set of
    each case. Files that add the same matrices under other names share one."""
    folder = tmp_path_factory.mktemp("schemes")
    (folder / "loras").mkdir()
    lines = []
    bases = {
        "flux1": tiny_checkpoints.build("dev", folder / "flux1"),
        "klein": tiny_checkpoints.build("klein", folder / "klein"),
    }
    for family, base in bases.items():
        lines.append(f"[{family}-base]\n" + SETS[family].format(folder=base))
    merged = {}
    for (family, component, scheme), write in CASES.items():
        writer = Writer(family, component)
        writer.base = load_file(weights_file(bases[family], component))
        made = write(writer)
        made.save(folder / "loras" / f"{family}.{scheme}.safetensors")
        name = f"{family}-{made.digest}"
        if name not in merged.values():
            merge(bases[family], folder / name, made)
            lines.append(f"[{name}]\n" + SETS[family].format(folder=folder / name))
        merged[family, scheme] = name
    info = folder / "models.toml"
    info.write_text("\n".join(lines))
    settings = {"MODEL_INFO": info, "FLUX_LORA_DIR": folder / "loras"}
    with run_api(FLUX_MODEL="klein-base", FLUX_MAX_LOADED=3, **settings) as running:
        running.loras, running.merged = folder / "loras", merged
        yield running.wait_ready()


def draw(server, model, loras=None):
    """A small picture as numbers."""
    form = {"prompt": "a red heart", "width": 64, "height": 64, "seed": 3}
    form |= {"num_inference_steps": 2, "model": model}
    if loras:
        form["loras"] = loras
    answer = requests.post(f"{server.url}/process/raw", data=form, timeout=60)
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content))).astype(int)


@pytest.fixture(scope="module")
def plain(server):
    """The pictures of the bases."""
    return {family: draw(server, f"{family}-base") for family in SETS}


@pytest.fixture(scope="module")
def of_merged(server):
    """The picture of a merged base, drawn once."""
    return lru_cache(None)(lambda name: draw(server, name))


@pytest.mark.parametrize(("family", "component", "scheme"), CASES)
def test_a_scheme_draws_what_the_merged_base_draws(
    server, plain, of_merged, family, component, scheme
):
    base, name = f"{family}-base", f"{family}.{scheme}"
    with_lora = draw(server, base, f"{name}:{WEIGHT}")
    assert (draw(server, base, f"{name}:0") == plain[family]).all()
    assert (draw(server, base) == plain[family]).all()
    merged = of_merged(server.merged[family, scheme])
    assert np.abs(with_lora - merged).max() <= 1
    # More than rounding may be.
    assert np.abs(with_lora - plain[family]).max() > 2


def test_what_was_on_is_not_read_again(server):
    told = "LoRA flux1.peft: "
    first = draw(server, "flux1-base", "flux1.peft")
    before = server.output.count(told)
    assert before
    for _ in range(2):
        draw(server, "flux1-base")
        assert (draw(server, "flux1-base", "flux1.peft") == first).all()
    assert server.output.count(told) == before


def test_several_at_once_do_not_depend_on_their_order(server):
    """A DoRA scales the layer's own weight, not what another LoRA adds to it."""
    names = [f"flux1.{scheme}:{WEIGHT}" for scheme in ("peft", "peft-dora", "lokr")]
    one = draw(server, "flux1-base", ",".join(names))
    other = draw(server, "flux1-base", ",".join(reversed(names)))
    assert np.abs(one - other).max() <= 1
