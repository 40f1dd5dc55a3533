"""The keys of LoRA files, as the many trainers write them: which tensor of which layer.

A key is ``prefix`` + ``layer`` + ``ending``: the prefix says which component, the
ending which of the layer's tensors it is. Layers are compared with ``_`` for each
``.``, as kohya's trainers write them.
"""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass

# Ending of a key -> which tensor of the layer; the longest that fits counts.
_ENDINGS = {
    **dict.fromkeys(
        (
            *(".lora_A.weight", ".lora_down.weight", ".lora.down.weight", ".lora_A"),
            *("_lora.down.weight", ".lora_linear_layer.down.weight", ".down.weight"),
        ),
        "down",
    ),
    **dict.fromkeys(
        (
            *(".lora_B.weight", ".lora_up.weight", ".lora.up.weight", ".lora_B"),
            *("_lora.up.weight", ".lora_linear_layer.up.weight", ".up.weight"),
        ),
        "up",
    ),
    ".lora_B.bias": "up_bias",
    ".alpha": "alpha",
    ".scalar": "scalar",
    **dict.fromkeys(
        (".dora_scale", ".lora_magnitude_vector", ".lora_magnitude_vector.weight"),
        "magnitude",
    ),
    **dict.fromkeys((".diff", ".w_norm"), "diff"),
    ".diff_b": "diff_b",
    **{
        f".{name}": name
        for name in (
            *("lokr_w1", "lokr_w1_a", "lokr_w1_b"),
            *("lokr_w2", "lokr_w2_a", "lokr_w2_b"),
            *("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
        )
    },
}
# What is known and not taken, by what stands in the key.
_FORMATS = {
    "oft_": "OFT",
    "boft": "OFT",
    "lokr_t2": "LoKr of convolutions",
    "hada_t": "LoHa of convolutions",
    "lora_mid": "LoRA of convolutions",
    "on_input": "IA3",
    "query_norm": "control LoRA, which replaces norms",
    "key_norm": "control LoRA, which replaces norms",
    "b_norm": "LyCORIS of norms with a bias",
    "lora_embedding": "LoRA of embeddings",
    ".a1.": "GLoRA",
    ".b1.": "GLoRA",
}
# Embeddings of textual inversion, which trainers put beside a LoRA.
_EMBEDDINGS = ("bundle_emb", "emb_params", "string_to_param", "text_encoders_0")
_EMBEDDED = ("clip_l", "clip_g", "t5", "t5xxl")
# A prefix with which a key belongs to a text encoder, "." written as "_".
_TEXT_ENCODERS = {
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lora_te3_": "text_encoder_2",
    "lora_te_": "text_encoder",
    "text_encoder_2_": "text_encoder_2",
    "text_encoder_": "text_encoder",
    "text_encoders_t5xxl_": "text_encoder_2",
    "text_encoders_": "text_encoder",
    # OneTrainer's, in the format of the Open Model Initiative.
    "clip_l_": "text_encoder",
    "t5_": "text_encoder_2",
    "t5xxl_": "text_encoder_2",
    "lycoris_te1_": "text_encoder",
    "lycoris_te2_": "text_encoder_2",
}
# What may stand in front of a layer's name, in any order.
_WRAPPERS = (
    *("base_model_model_", "module_", "model_diffusion_model_", "diffusion_model_"),
    *("lora_transformer_", "lora_unet_", "lycoris_", "unet_", "transformer_", "model_"),
    *("text_model_", "clip_l_", "t5xxl_", "qwen3_4b_", "qwen3_8b_", "mistral3_24b_"),
)
# More than any tool writes; without a bound a name of wrappers alone takes days.
_LONGEST_KEY, _MOST_WRAPPERS = 500, 8
# As PEFT calls an adapter in the names of its tensors.
_ADAPTER = re.compile(
    r"(?:(?<=\.lora_[AB])|(?<=\.lora_magnitude_vector))\.\w+(?=\.(?:weight|bias)$)"
)
# Left by training a compiled model.
_COMPILED = re.compile(r"_orig_mod[._]")


class KeyRefused(ValueError):
    """A key that cannot be used; the message completes "The LoRA 'x' ..."."""


@dataclass(frozen=True, slots=True)
class LoraKey:
    """Tensor ``part`` of the layer written ``layer`` in ``component``."""

    component: str
    layer: str
    part: str


def parse_key(key: str) -> LoraKey | None:
    """What the tensor ``key`` is; None for an embedding of a textual inversion.
    KeyRefused names a format that is not taken."""
    if len(key) > _LONGEST_KEY:
        raise KeyRefused(f"holds {key[:50]!r}..., a name of {len(key)} characters")
    plain = _ADAPTER.sub("", key).replace(".default.", ".").removesuffix(".default")
    plain = _COMPILED.sub("", plain)
    ending = max(filter(plain.endswith, _ENDINGS), key=len, default=None)
    if ending is None:
        if plain.startswith(_EMBEDDINGS) or plain in _EMBEDDED:
            return None
        for mark, name in _FORMATS.items():
            if mark in plain:
                raise KeyRefused(f"is of the format {name}, which is not supported")
        raise KeyRefused(f"holds {key[:200]!r}, which is not a weight of a LoRA")
    layer = flat(plain.removesuffix(ending))
    # OneTrainer and PEFT wrap text encoders, too.
    for prefix, component in _TEXT_ENCODERS.items():
        if layer.removeprefix("base_model_model_").startswith(prefix):
            bare = layer.removeprefix("base_model_model_").removeprefix(prefix)
            return LoraKey(component, bare, _ENDINGS[ending])
    # Old attention processors, less XLabs' own, which it names by their LoRA.
    return LoraKey("transformer", layer, _ENDINGS[ending])


def find_layer(written: str, known: Container[str]) -> str | None:
    """The name among ``known`` that ``written`` means, less what trainers put in front
    of it; None where there is no such layer."""
    name = written
    for _ in range(_MOST_WRAPPERS):
        if name in known:
            return name
        stripped = (name.removeprefix(w) for w in _WRAPPERS if name.startswith(w))
        name = next(stripped, "")
    return None


def flat(path: str) -> str:
    """A module's ``path`` as kohya's trainers write it."""
    return path.replace(".", "_")
