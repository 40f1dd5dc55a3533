"""How many bytes making a picture takes beside the weights.

The numbers were measured on torch's meta device, where tensors have shapes and no
memory: ``tests/loading/test_plan_peaks.py`` measures them again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flux_api.models.info import ModelInfo

TEXT_PARTS = ("prompt_upsampler", "text_encoder", "text_encoder_2")
# Tensors of its widest full-size feature map that a VAE's decoder holds at once.
_VAE_TENSORS = 3
# What a transformer holds, in units of its width a token.
_WIDTHS = {"Flux2Transformer2DModel": 22, "Flux3Transformer2DModel": 27}
_FLUX1_WIDTHS = 18
_TEXT_TOKENS = 512
# More references than these are a rare request's, not the plan's.
_MOST_REFERENCES = 4
_APPENDING = ("FluxKontext", "Flux2", "Flux3")
# By the names of either family of text encoders; the largest shipped ones' where a
# configuration leaves them to its class.
_SIZES = (
    ("hidden_size", "d_model", 4096),
    ("num_hidden_layers", "num_layers", 36),
    ("intermediate_size", "d_ff", 12288),
    ("vocab_size", "vocab_size", 250_000),
)


@dataclass(frozen=True, slots=True)
class Working:
    """The bytes that one picture of the default size takes beside weights, by stage,
    and one of the largest size while it is decoded. Kontext edits with one reference,
    FLUX.2 and FLUX 3 with four."""

    encode: int
    denoise: int
    decode: int
    largest_decode: int
    with_one: int = 0
    """``denoise`` with one reference at most."""


def working_of(
    configs: Mapping[str, tuple[str, Mapping[str, Any]]], info: ModelInfo
) -> Working:
    """What making a picture takes, bfloat16, by the components' classes and
    configurations."""
    width, height = info.sizes.default
    most = info.sizes.max_pixels
    if info.native_size:
        width = height = info.native_size
        most = width * height
    kind, config = configs.get("transformer", ("", {}))
    heads = int(config.get("num_attention_heads", 24))
    inner = heads * int(config.get("attention_head_dim", 128))
    widths = _WIDTHS.get(kind.rpartition(".")[2], _FLUX1_WIDTHS)
    picture, references = (width // 16) * (height // 16), _references(info)

    def denoise(references: int) -> int:
        tokens = (1 + references) * picture + _TEXT_TOKENS
        return widths * inner * tokens * 2

    _, config = configs.get("vae", ("", {}))
    texts = [_encode(configs[name][1]) for name in TEXT_PARTS if name in configs]
    channels = config.get("block_out_channels", (128, 256))
    a_pixel = _VAE_TENSORS * int(max(channels[:2])) * 2
    return Working(
        encode=max(texts, default=0),
        denoise=denoise(references),
        decode=a_pixel * width * height,
        largest_decode=a_pixel * most,
        with_one=denoise(min(1, references)),
    )


def _references(info: ModelInfo) -> int:
    """How many pictures lengthen the transformer's sequence in a usual request."""
    counts = (
        defaults.max_images
        for name, defaults in info.tasks.items()
        if name != "generate" and defaults.pipeline.startswith(_APPENDING)
    )
    return min(_MOST_REFERENCES, max(counts, default=0))


def _encode(config: Mapping[str, Any]) -> int:
    """What a text encoder takes, every layer's output and the head's kept."""
    config = config.get("text_config", config)
    width, layers, inner, words = (
        int(config.get(one, config.get(other, default)))
        for one, other, default in _SIZES
    )
    return _TEXT_TOKENS * 2 * (width * (layers + 1) + 3 * inner + words)
