"""Names of tensors in files of weights to those of the libraries' models."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch

from flux_api.loading.lora_layers import Rows, known_layers, known_norms
from flux_api.models.checkpoints import CheckpointFacts
from flux_api.models.lora_keys import flat

Places = list[tuple[str, Rows]]
"""Parameters of a model, each with the rows that it takes; none: nothing uses it."""

# llama.cpp's names of text encoders' layers.
_T5_GGUF = {
    "token_embd": "shared",
    "enc.output_norm": "encoder.final_layer_norm",
    "attn_q": "layer.0.SelfAttention.q",
    "attn_k": "layer.0.SelfAttention.k",
    "attn_v": "layer.0.SelfAttention.v",
    "attn_o": "layer.0.SelfAttention.o",
    "attn_rel_b": "layer.0.SelfAttention.relative_attention_bias",
    "attn_norm": "layer.0.layer_norm",
    "ffn_norm": "layer.1.layer_norm",
    "ffn_gate": "layer.1.DenseReluDense.wi_0",
    "ffn_up": "layer.1.DenseReluDense.wi_1",
    "ffn_down": "layer.1.DenseReluDense.wo",
}
_QWEN_GGUF = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GGUF_BLOCK = re.compile(r"(?:enc\.)?blk\.(\d+)\.(\w+)")
# Written beside the weights, and of no use for pictures.
_UNUSED = re.compile(
    r"(.*\.)?(scaled_fp8|comfy_quant|input_scale|scale_input|logit_scale|spiece_model"
    r"|position_ids|text_projection(\.weight)?|tekken_model)|rope_freqs\.weight"
    # CLIP with its other half.
    r"|vision_model\..*|visual_projection\.weight"
)


def unused_names(facts: CheckpointFacts) -> list[str]:
    """The tensors of an all-in-one file that are of none of its components, less what
    no picture needs: an encoder that is not known here, say."""
    prefixes = tuple(facts.components.values())
    return [
        name
        for name in facts.header.tensors
        if not name.startswith(prefixes) and not is_unused(name)
    ]


def is_unused(name: str) -> bool:
    """Whether no picture depends on the tensor ``name``, which files have."""
    return _UNUSED.fullmatch(name) is not None


def places_of(module: torch.nn.Module) -> Callable[[str], Places | None]:
    """A function that says where a tensor of a file belongs in ``module``; None: there
    is no place for it."""
    known = set(module.state_dict())
    layers, norms = known_layers(module), known_norms(module)
    kind = type(module).__name__

    def find(name: str) -> Places | None:
        if name in known:
            return [(name, ())]
        if is_unused(name):
            return []
        layer, _, ending = name.rpartition(".")
        if "Transformer2D" in kind:
            if flat(layer) in layers:
                return [(f"{t.path}.{ending}", t.rows) for t in layers[flat(layer)]]
            layer = norms.get(flat(layer), layer)
            ending = "weight"
        elif ".blk." in f".{layer}" or layer in _T5_GGUF or layer in _QWEN_GGUF:
            layer = _from_gguf(layer, kind)
        else:
            layer = layer.removeprefix("text_model.")
            if layer == "encoder.embed_tokens":
                layer = "shared"
        found = f"{layer}.{ending}"
        return [(found, ())] if found in known else None

    return find


def _from_gguf(layer: str, kind: str) -> str:
    is_t5 = kind.startswith("T5")
    names: Mapping[str, str] = _T5_GGUF if is_t5 else _QWEN_GGUF
    if found := _GGUF_BLOCK.fullmatch(layer):
        block = "encoder.block" if is_t5 else "model.layers"
        return f"{block}.{found[1]}.{names.get(found[2], '')}"
    return names.get(layer, "")


def vae_tensors(
    tensors: dict[str, torch.Tensor], config: Mapping[str, object]
) -> dict[str, torch.Tensor]:
    """A VAE's ``tensors`` with diffusers' names."""
    if not any(".down.0.block." in name for name in tensors):
        return tensors
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    converted: dict[str, torch.Tensor] = convert_ldm_vae_checkpoint(tensors, config)
    for name, tensor in tensors.items():
        # FLUX.2's has these inside of its halves, and statistics of its latents.
        ours = re.sub(r"^(encoder|decoder)\.(?=(post_)?quant_conv)", "", name)
        if ours.startswith(("quant_conv", "post_quant_conv", "bn.")):
            converted[ours] = tensor
    return converted
