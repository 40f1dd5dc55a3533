"""Names of layers in LoRA files to layers of a component."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from flux_api.models.lora_keys import flat

# Black Forest Labs' name -> diffusers' names; a fused matrix has several, in the order
# of its rows. "{}" is the block.
_COMMON = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
    "double_blocks.{}.img_attn.qkv": (
        "transformer_blocks.{}.attn.to_q transformer_blocks.{}.attn.to_k "
        "transformer_blocks.{}.attn.to_v"
    ),
    "double_blocks.{}.txt_attn.qkv": (
        "transformer_blocks.{}.attn.add_q_proj transformer_blocks.{}.attn.add_k_proj "
        "transformer_blocks.{}.attn.add_v_proj"
    ),
    "double_blocks.{}.img_attn.proj": "transformer_blocks.{}.attn.to_out.0",
    "double_blocks.{}.txt_attn.proj": "transformer_blocks.{}.attn.to_add_out",
}
_SINGLE_QKV = (
    "single_transformer_blocks.{}.attn.to_q single_transformer_blocks.{}.attn.to_k "
    "single_transformer_blocks.{}.attn.to_v"
)
_FLUX1 = _COMMON | {
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "double_blocks.{}.img_mod.lin": "transformer_blocks.{}.norm1.linear",
    "double_blocks.{}.txt_mod.lin": "transformer_blocks.{}.norm1_context.linear",
    "double_blocks.{}.img_mlp.0": "transformer_blocks.{}.ff.net.0.proj",
    "double_blocks.{}.img_mlp.2": "transformer_blocks.{}.ff.net.2",
    "double_blocks.{}.txt_mlp.0": "transformer_blocks.{}.ff_context.net.0.proj",
    "double_blocks.{}.txt_mlp.2": "transformer_blocks.{}.ff_context.net.2",
    "single_blocks.{}.modulation.lin": "single_transformer_blocks.{}.norm.linear",
    "single_blocks.{}.linear1": (
        f"{_SINGLE_QKV} single_transformer_blocks.{{}}.proj_mlp"
    ),
    "single_blocks.{}.linear2": "single_transformer_blocks.{}.proj_out",
    # OneTrainer's own name.
    "img_in.proj": "x_embedder",
    # XLabs' attention processors, also as ComfyUI's merges have them.
    "double_blocks.{}.processor.qkv_lora1": _COMMON["double_blocks.{}.img_attn.qkv"],
    "double_blocks.{}.processor.qkv_lora2": _COMMON["double_blocks.{}.txt_attn.qkv"],
    "double_blocks.{}.processor.proj_lora1": _COMMON["double_blocks.{}.img_attn.proj"],
    "double_blocks.{}.processor.proj_lora2": _COMMON["double_blocks.{}.txt_attn.proj"],
    "single_blocks.{}.processor.qkv": _SINGLE_QKV,
    "single_blocks.{}.linear1_qkv": _SINGLE_QKV,
    "single_blocks.{}.processor.proj": "single_transformer_blocks.{}.proj_out",
    "single_transformer_blocks.{}.attn.to_qkv": _SINGLE_QKV,
}
# DiffSynth-Studio's names: "a" is the picture's side, "b" the text's.
_DIFFSYNTH = {
    "blocks.{}.norm1_a.linear": _FLUX1["double_blocks.{}.img_mod.lin"],
    "blocks.{}.norm1_b.linear": _FLUX1["double_blocks.{}.txt_mod.lin"],
    "blocks.{}.attn.a_to_qkv": _FLUX1["double_blocks.{}.img_attn.qkv"],
    "blocks.{}.attn.b_to_qkv": _FLUX1["double_blocks.{}.txt_attn.qkv"],
    "blocks.{}.attn.a_to_out": _FLUX1["double_blocks.{}.img_attn.proj"],
    "blocks.{}.attn.b_to_out": _FLUX1["double_blocks.{}.txt_attn.proj"],
    "blocks.{}.ff_a.0": _FLUX1["double_blocks.{}.img_mlp.0"],
    "blocks.{}.ff_a.2": _FLUX1["double_blocks.{}.img_mlp.2"],
    "blocks.{}.ff_b.0": _FLUX1["double_blocks.{}.txt_mlp.0"],
    "blocks.{}.ff_b.2": _FLUX1["double_blocks.{}.txt_mlp.2"],
    "single_blocks.{}.norm.linear": _FLUX1["single_blocks.{}.modulation.lin"],
    "single_blocks.{}.to_qkv_mlp": _FLUX1["single_blocks.{}.linear1"],
    "single_blocks.{}.proj_out": _FLUX1["single_blocks.{}.linear2"],
}
_FLUX2 = _COMMON | {
    "time_in.in_layer": "time_guidance_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_guidance_embed.timestep_embedder.linear_2",
    "guidance_in.in_layer": "time_guidance_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_guidance_embed.guidance_embedder.linear_2",
    "double_stream_modulation_img.lin": "double_stream_modulation_img.linear",
    "double_stream_modulation_txt.lin": "double_stream_modulation_txt.linear",
    "single_stream_modulation.lin": "single_stream_modulation.linear",
    "double_blocks.{}.img_mlp.0": "transformer_blocks.{}.ff.linear_in",
    "double_blocks.{}.img_mlp.2": "transformer_blocks.{}.ff.linear_out",
    "double_blocks.{}.txt_mlp.0": "transformer_blocks.{}.ff_context.linear_in",
    "double_blocks.{}.txt_mlp.2": "transformer_blocks.{}.ff_context.linear_out",
    "single_blocks.{}.linear1": "single_transformer_blocks.{}.attn.to_qkv_mlp_proj",
    "single_blocks.{}.linear2": "single_transformer_blocks.{}.attn.to_out",
}
_FLUX3_LAYERS = {
    "q_proj": "attn.to_q",
    "k_proj": "attn.to_k",
    "v_proj": "attn.to_v",
    "attn_out": "attn.to_out.0",
    "mlp_in": "ff.linear_in",
    "mlp_out": "ff.linear_out",
}
_FLUX3_BLOCKS = {
    "content_mode_blocks": "mode_blocks",
    "txt_mode_blocks": "txt_mode_blocks",
    "single_blocks": "single_transformer_blocks",
}
_FLUX3 = {
    "txt_in": "context_embedder",
    "emb_in.{}": "x_embedders.{}",
    "time_in.in_layer": "timestep_embedder.linear_1",
    "time_in.out_layer": "timestep_embedder.linear_2",
    "ref_time_in.in_layer": "target_timestep_embedder.linear_1",
    "ref_time_in.out_layer": "target_timestep_embedder.linear_2",
    "final_layer.image.linear": "proj_out",
    "final_layer.image.adaLN_modulation.1": "norm_out.linear",
    **{
        f"{block}.{{}}.{layer}": f"{our_block}.{{}}.{our_layer}"
        for block, our_block in _FLUX3_BLOCKS.items()
        for layer, our_layer in _FLUX3_LAYERS.items()
    },
}
# Projections of attention that some trainers fuse in diffusers' layout, too.
_FUSED = {
    "transformer_blocks.{}.attn.to_qkv": _COMMON["double_blocks.{}.img_attn.qkv"],
    "transformer_blocks.{}.attn.to_added_qkv": _COMMON["double_blocks.{}.txt_attn.qkv"],
}
_FAMILIES = {
    "FluxTransformer2DModel": _FLUX1 | _DIFFSYNTH | _FUSED,
    "Flux2Transformer2DModel": _FLUX2 | _FUSED,
    "Flux3Transformer2DModel": _FLUX3,
    "CLIPTextModel": {
        f"encoder.layers.{{}}.self_attn.{old}": f"encoder.layers.{{}}.self_attn.{new}"
        for old, new in {
            "to_q": "q_proj",
            "to_k": "k_proj",
            "to_v": "v_proj",
            "to_out": "out_proj",
        }.items()
    },
}
_SWAPPED = "norm_out.linear"
# Norms of queries and keys, which have a weight and no matrix.
_NORMS = {
    f"{written}.{word}_norm": f"{ours}{word[0]}"
    for written, ours in (
        ("double_blocks.{}.img_attn.norm", "transformer_blocks.{}.attn.norm_"),
        ("double_blocks.{}.txt_attn.norm", "transformer_blocks.{}.attn.norm_added_"),
        ("single_blocks.{}.norm", "single_transformer_blocks.{}.attn.norm_"),
    )
    for word in ("query", "key")
}

Rows = tuple[slice, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """The layer at ``path`` takes the ``rows`` of a file's matrix, one after the other;
    no rows are all of them."""

    path: str
    rows: Rows = ()


def known_layers(component: torch.nn.Module) -> dict[str, tuple[Target, ...]]:
    """Every name, written flat, that a linear layer of ``component`` has in one of the
    layouts, with the layers that it stands for."""
    sizes = {
        path: layer.out_features
        for path, layer in component.named_modules()
        if isinstance(layer, torch.nn.Linear)
    }
    names: dict[str, tuple[Target, ...]] = {}
    names.update({flat(path): (Target(path),) for path in sizes})
    for path in sizes:
        # As ComfyUI and PEFT have it, which see the encoder without its head.
        bare = path.removeprefix("model.").removeprefix("language_model.")
        names.setdefault(flat(bare), (Target(path),))
        names.setdefault(
            flat(path.replace(".attn.", ".attn.processor.")), (Target(path),)
        )
        if path.startswith("transformer_blocks."):
            # As some exports cut it; diffusers knows it for FLUX.2, too.
            names.setdefault(flat(path.removeprefix("tran")), (Target(path),))
    for written, ours in _FAMILIES.get(type(component).__name__, {}).items():
        for name, paths in _expand(written, ours.split(), sizes):
            names[flat(name)] = tuple(_targets(name, paths, sizes))
            # OneTrainer trains the parts of a fused matrix by themselves.
            parts = paths if len(paths) > 1 else []
            names |= {flat(f"{name}.{n}"): (Target(p),) for n, p in enumerate(parts)}
    return names


def known_norms(component: torch.nn.Module) -> dict[str, str]:
    """The same for the norms of a transformer: each name to the norm's path."""
    paths = [
        path
        for path, norm in component.named_modules()
        if isinstance(norm, torch.nn.RMSNorm) and norm.elementwise_affine
    ]
    names = {flat(path): path for path in paths}
    for written, ours in _NORMS.items():
        for name, (path,) in _expand(written, [ours], paths):
            # ComfyUI names the weight, too, where it is called otherwise.
            names |= {flat(name): path, flat(f"{name}.scale"): path}
    return names


def _expand(
    written: str, ours: list[str], paths: Iterable[str]
) -> Iterator[tuple[str, list[str]]]:
    """The names for each block that there is."""
    pattern = re.compile(re.escape(ours[0]).replace(r"\{\}", "(.+)"))
    for path in paths:
        if found := pattern.fullmatch(path):
            block = found.groups()
            yield written.format(*block), [one.format(*block) for one in ours]


def _targets(name: str, paths: list[str], sizes: dict[str, int]) -> Iterator[Target]:
    if paths == [_SWAPPED]:
        # Shift and scale come the other way round in diffusers.
        half = sizes[_SWAPPED] // 2
        yield Target(_SWAPPED, (slice(half, 2 * half), slice(half)))
    elif len(paths) == 1:
        yield Target(paths[0])
    else:
        start = 0
        for path in paths:
            yield Target(path, (slice(start, start + sizes[path]),))
            start += sizes[path]
