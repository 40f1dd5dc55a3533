"""Checkpoint files in the forms that people have them, out of tiny checkpoints, each
with the weights that it stands for."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import load_file, save_file

from tests.support import tiny_checkpoints
from tests.support.lora_schemes import bfl_names

NORMS = {
    r"transformer_blocks\.(\d+)\.attn\.norm_added_(q|k)": (
        "double_blocks.{}.txt_attn.norm.{}_norm.scale"
    ),
    r"transformer_blocks\.(\d+)\.attn\.norm_(q|k)": (
        "double_blocks.{}.img_attn.norm.{}_norm.scale"
    ),
    r"single_transformer_blocks\.(\d+)\.attn\.norm_(q|k)": (
        "single_blocks.{}.norm.{}_norm.scale"
    ),
}
# Kinds that the package cannot write, with where a block's scales lie and about what
# they are: all other bytes may be anything.
SCALES = {
    "Q2_K": ((80, 2e-3), (82, 1e-3)),
    "Q3_K": ((108, 5e-4),),
    "Q4_K": ((0, 1e-4), (2, 1e-4)),
    "Q5_K": ((0, 1e-4), (2, 1e-4)),
    "Q6_K": ((208, 3e-5),),
    "IQ4_NL": ((0, 1e-3),),
    "IQ4_XS": ((0, 3e-5),),
}
BLOCKS = ("double_blocks.", "single_blocks.")


def weights_file(folder, component):
    """The one file of a component's weights."""
    [file] = (Path(folder) / component).glob("*.safetensors")
    return file


def wide(family):
    """A transformer whose rows hold whole blocks of 256 numbers."""
    from diffusers import Flux2Transformer2DModel, FluxTransformer2DModel

    common = {"num_layers": 1, "num_single_layers": 1}
    common |= {"attention_head_dim": 128, "num_attention_heads": 2}
    torch.manual_seed(7)
    if family == "flux1":
        return FluxTransformer2DModel(
            **common,
            in_channels=64,
            joint_attention_dim=tiny_checkpoints.TEXT,
            pooled_projection_dim=tiny_checkpoints.TEXT,
            guidance_embeds=True,
            axes_dims_rope=(32, 48, 48),
        )
    return Flux2Transformer2DModel(
        **common,
        in_channels=128,
        joint_attention_dim=3 * tiny_checkpoints.QWEN,
        timestep_guidance_channels=256,
        axes_dims_rope=(32, 32, 32, 32),
        guidance_embeds=False,
    )


def build_base(family, folder):
    """A checkpoint in diffusers' layout with a wide transformer."""
    tiny_checkpoints.build("dev" if family == "flux1" else "klein", folder)
    shutil.rmtree(folder / "transformer")
    wide(family).save_pretrained(folder / "transformer")
    return folder


def to_bfl(family, tensors, blocks=2):
    """Diffusers' ``tensors`` of a transformer as Black Forest Labs names them."""
    made = {}
    for name, paths in bfl_names(family, blocks).items():
        for kind in ("weight", "bias"):
            parts = [tensors.get(f"{path}.{kind}") for path in paths]
            if parts[0] is None:
                continue
            whole = torch.cat(parts)
            if "adaLN_modulation" in name:
                scale, shift = whole.chunk(2)
                whole = torch.cat([shift, scale])
            made[f"{name}.{kind}"] = whole
    for name, tensor in tensors.items():
        for pattern, theirs in NORMS.items():
            if found := re.fullmatch(pattern + r"\.weight", name):
                word = {"q": "query", "k": "key"}[found[2]]
                made[theirs.format(found[1], word)] = tensor
    return made


def from_bfl(family, made, tensors):
    """The reverse, over a copy of ``tensors``."""
    tensors = dict(tensors)
    for name, paths in bfl_names(family).items():
        for kind in ("weight", "bias"):
            if f"{name}.{kind}" not in made:
                continue
            whole = made[f"{name}.{kind}"].float()
            if "adaLN_modulation" in name:
                shift, scale = whole.chunk(2)
                whole = torch.cat([scale, shift])
            sizes = [tensors[f"{path}.{kind}"].shape[0] for path in paths]
            parts = whole.split(sizes)
            for path, part in zip(paths, parts, strict=True):
                tensors[f"{path}.{kind}"] = part.clone()
    return tensors


def is_packed(name, tensor):
    """Whether tools pack it: the matrices of the blocks."""
    name = name.removeprefix("model.diffusion_model.")
    return name.startswith(BLOCKS) and name.endswith(".weight") and tensor.dim() == 2


# What ComfyUI writes beside a layer's scale: before, and since it mixes formats.
BESIDE = {
    ".scale_weight": {".scale_input": torch.ones(1)},
    ".weight_scale": {
        ".input_scale": torch.ones(()),
        ".comfy_quant": torch.tensor(list(b'{"format": "float8_e4m3fn"}')).byte(),
    },
}


def to_fp8(made, scaled=False, ending=".scale_weight"):
    """(the file's tensors, what they stand for)."""
    written, meant = {}, {}
    for name, tensor in made.items():
        if not is_packed(name, tensor):
            written[name] = meant[name] = tensor
            continue
        scale = tensor.abs().max() / 448 if scaled else torch.tensor(1.0)
        packed = (tensor / scale).to(torch.float8_e4m3fn)
        written[name] = packed
        meant[name] = packed.float() * scale
        if scaled:
            layer = name.removesuffix(".weight")
            written[layer + ending] = scale
            written |= prefixed(layer, BESIDE[ending])
    if scaled and ending == ".scale_weight":
        written["scaled_fp8"] = torch.empty(2).to(torch.float8_e4m3fn)
    return written, meant


def quantize_rows(kind, matrix, random):
    """(packed bytes, what they stand for) of ``matrix``, or of one as large."""
    quant = gguf.GGMLQuantizationType[kind]
    if kind not in SCALES:
        packed = gguf.quants.quantize(matrix.numpy(), quant)
    else:
        block, width = gguf.GGML_QUANT_SIZES[quant]
        count = matrix.numel() // block
        packed = random.integers(0, 256, (count, width), dtype=np.uint8)
        for offset, size in SCALES[kind]:
            scale = (size * random.uniform(0.5, 1.5, count)).astype(np.float16)
            packed[:, offset : offset + 2] = scale.view(np.uint8).reshape(count, 2)
        packed = packed.reshape(matrix.shape[0], -1)
    meant = gguf.quants.dequantize(packed, quant)
    return packed, torch.from_numpy(meant.copy()).reshape(matrix.shape)


def write_gguf(path, made, kind, name="", architecture="flux"):
    """Write ``made`` as GGUF, its matrices as ``kind``; gives what they stand for."""
    random = np.random.default_rng(5)
    writer = gguf.GGUFWriter(path, architecture)
    if name:
        writer.add_name(name)
    meant = {}
    for key, tensor in made.items():
        if is_packed(key, tensor):
            packed, meant[key] = quantize_rows(kind, tensor, random)
            quant = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(key, packed, raw_dtype=quant)
        else:
            meant[key] = tensor.half().float() if "in_layer" in key else tensor
            number = np.float16 if "in_layer" in key else np.float32
            writer.add_tensor(key, tensor.numpy().astype(number))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return meant


def to_ldm_vae(tensors):
    """Diffusers' VAE as the original code names it."""
    rules = (
        (r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2"),
        (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
        (r"up_blocks\.(\d)\.resnets\.(\d)", r"up.~\1.block.\2"),
        (r"up_blocks\.(\d)\.upsamplers\.0", r"up.~\1.upsample"),
        (r"mid_block\.resnets\.0", "mid.block_1"),
        (r"mid_block\.resnets\.1", "mid.block_2"),
        (r"conv_norm_out", "norm_out"),
        (r"conv_shortcut", "nin_shortcut"),
        (r"^quant_conv", "encoder.quant_conv"),
        (r"^post_quant_conv", "decoder.post_quant_conv"),
    )
    made = {}
    for name, tensor in tensors.items():
        for pattern, theirs in rules:
            name = re.sub(pattern, theirs, name)
        made[re.sub(r"~(\d)", lambda found: str(3 - int(found[1])), name)] = tensor
    return made


def prefixed(prefix, tensors):
    """With ``prefix`` in front of each name."""
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def with_component(base, folder, component, tensors):
    """A copy of ``base`` with other weights in one component."""
    folder.mkdir()
    for part in base.iterdir():
        if part.name == component:
            shutil.copytree(part, folder / part.name)
        else:
            (folder / part.name).symlink_to(part)
    contiguous = {name: t.float().contiguous() for name, t in tensors.items()}
    save_file(contiguous, weights_file(folder, component), {"format": "pt"})
    return folder


def read(folder, component):
    """A component's tensors."""
    return load_file(weights_file(folder, component))


def save(path, tensors, metadata=None):
    """Write a file of ``tensors``."""
    save_file({n: t.contiguous().clone() for n, t in tensors.items()}, path, metadata)
    return path
