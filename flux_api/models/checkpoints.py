"""What a file of weights is: family, kind and variant, from names, shapes and words."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from flux_api.models.headers import BadFile, Header, read_header
from flux_api.models.number_kinds import SCALES, check_kinds

Family = Literal["FLUX.1", "FLUX.2"]

# In front of a transformer's own names.
_TRANSFORMER_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "transformer.")
# ComfyUI's all-in-one: the prefix of each other component, "." at its end.
_PARTS = {
    "vae": ("vae.", "first_stage_model."),
    "text_encoder": (
        "text_encoders.clip_l.transformer.",
        "text_encoders.qwen3_4b.transformer.",
        "text_encoders.qwen3_8b.transformer.",
    ),
    "text_encoder_2": ("text_encoders.t5xxl.transformer.",),
}
# A name that only such a file has -> what it is; the first that is found counts.
_TRANSFORMERS: tuple[tuple[str, Family, str], ...] = (
    ("double_stream_modulation_img.lin.weight", "FLUX.2", "bfl"),
    ("double_blocks.0.img_mod.lin.weight", "FLUX.1", "bfl"),
    ("double_stream_modulation_img.linear.weight", "FLUX.2", "diffusers"),
    ("transformer_blocks.0.norm1_context.linear.weight", "FLUX.1", "diffusers"),
)
_OTHERS = {
    "distilled_guidance_layer.layers.0.in_layer.weight": "a Chroma transformer",
    "input_blocks.0.0.weight": "a Stable Diffusion checkpoint",
    "joint_blocks.0.x_block.attn.qkv.weight": "a Stable Diffusion 3 transformer",
    "transformer_blocks.0.img_mod.1.weight": "a Qwen-Image transformer",
    "noise_refiner.0.attention.qkv.weight": "a Lumina or Z-Image transformer",
    "redux_up.weight": "a Redux prior in one file",
    "text_model.encoder.layers.0.self_attn.q_proj.weight": "a CLIP text encoder",
    # As transformers saves it since its version 5.
    "embeddings.token_embedding.weight": "a CLIP text encoder",
    "encoder.block.0.layer.0.SelfAttention.q.weight": "a T5 text encoder",
    "enc.blk.0.attn_q.weight": "a T5 text encoder",
    "model.layers.0.self_attn.q_norm.weight": "a Qwen3 text encoder",
    "blk.0.attn_q_norm.weight": "a Qwen3 text encoder",
    # That of FLUX.2 dev has no norms of queries, as many others have none.
    "model.layers.0.self_attn.q_proj.weight": "a Mistral or other language model",
    "blk.0.attn_q.weight": "a Mistral or other language model",
    "decoder.conv_in.weight": "a VAE",
}
_KINDS = {
    "a CLIP text encoder": "text_encoder",
    "a Qwen3 text encoder": "text_encoder",
    "a T5 text encoder": "text_encoder_2",
    "a VAE": "vae",
}
_LORA = (".lora_", "_lora", ".lora.", ".lokr_", ".hada_")
# Widths of FLUX.2's transformers.
_FLUX2_WIDTHS = {3072: "klein-4b", 4096: "klein-9b", 6144: "flux2-dev"}
_EMBEDDERS = ("img_in.weight", "x_embedder.weight")
_GUIDANCE = ("guidance_in.", "time_text_embed.guidance_embedder.")


@dataclass(frozen=True, slots=True)
class CheckpointFacts:
    """What a file is: ``kind`` in words for people; ``components`` that are in it, each
    with the prefix of its names; ``variant`` and ``why`` it is taken to be that;
    ``config`` what of the transformer's configuration follows from its shapes."""

    header: Header
    kind: str
    components: Mapping[str, str]
    family: Family | None = None
    variant: str = ""
    why: str = ""
    config: Mapping[str, object] = field(default_factory=dict)

    def parts_for(self, name: str, named: Container[str]) -> Iterator[tuple[str, str]]:
        """What a set takes of the file that it names for component ``name``: that one
        and all that it has nothing else ``named`` for, each with its prefix."""
        for part, prefix in self.components.items():
            if part == name or part not in named:
                yield part, prefix

    @property
    def dtype(self) -> str:
        """The format of most of its numbers, for people."""
        counts: Counter[str] = Counter()
        for facts in self.header.tensors.values():
            counts[facts.dtype] += math.prod(facts.shape)
        name = counts.most_common(1)[0][0] if counts else "nothing"
        scaled = any(n.endswith(SCALES) for n in self.header.tensors)
        word = {"F8_E4M3": "fp8 (e4m3)", "F8_E5M2": "fp8 (e5m2)"}.get(name, name)
        word = {"BF16": "bf16", "F16": "fp16", "F32": "fp32"}.get(word, word)
        return f"scaled {word}" if scaled and word.startswith("fp8") else word

    @property
    def size(self) -> int:
        """Its tensors' bytes."""
        return sum(facts.size for facts in self.header.tensors.values())

    def __str__(self) -> str:
        variant = f" {self.variant}" if self.variant else ""
        return f"{self.kind}{variant}, {self.dtype}"


def identify_file(path: Path) -> CheckpointFacts:
    """What the file at ``path`` is; BadFile where nothing here takes it."""
    return identify(read_header(path))


def identify(header: Header) -> CheckpointFacts:
    """What the file with this ``header`` is; else as :func:`identify_file`."""
    _refuse_formats(header.tensors)
    facts = _recognise(header)
    check_kinds(header, facts.components.values())
    return facts


def _recognise(header: Header) -> CheckpointFacts:
    names = header.tensors
    # Transformers first: an all-in-one file has a VAE and text encoders as well.
    for prefix in ("", *_TRANSFORMER_PREFIXES):
        for mark, family, layout in _TRANSFORMERS:
            if prefix + mark in names:
                return _transformer(header, prefix, family, layout)
    for prefix in ("", *_TRANSFORMER_PREFIXES, *_PARTS["vae"], "text_encoder."):
        for mark, kind in _OTHERS.items():
            if prefix + mark in names:
                if kind not in _KINDS:
                    raise BadFile(f"is {kind}, which is not supported")
                return CheckpointFacts(header, kind, {_KINDS[kind]: prefix})
    if any(mark in name for name in names for mark in _LORA):
        return CheckpointFacts(header, "a LoRA", {})
    raise BadFile("holds no model that is known here")


def _refuse_formats(names: Iterable[str]) -> None:
    for name in names:
        if ".qweight" in name or "svdq" in name or "smooth_factor" in name:
            raise BadFile("is a Nunchaku (SVDQuant) checkpoint, which is not supported")
        if name.startswith("controlnet_"):
            # With a transformer's own names beside.
            raise BadFile("is a ControlNet, which is not supported")
        if ".quant_state.bitsandbytes__" in name:
            raise BadFile(
                "is quantized with bitsandbytes in one file, which is not supported; "
                "take a folder in diffusers' layout, GGUF or fp8"
            )


def _transformer(
    header: Header, prefix: str, family: Family, layout: str
) -> CheckpointFacts:
    names = header.tensors
    found = {"transformer": prefix}
    for part, prefixes in _PARTS.items():
        for own in prefixes:
            if any(name.startswith(own) for name in names):
                found[part] = own
    width, channels = _embedder(header, prefix)
    guided = any(name.startswith(prefix + _g) for name in names for _g in _GUIDANCE)
    words = _words(header)
    config: dict[str, object] = {}
    if family == "FLUX.1":
        variant, why = _flux1(channels, guided, words)
        out = None if channels == 64 else 64
        config = {"guidance_embeds": guided, "in_channels": channels}
        config["out_channels"] = out
    else:
        variant, why = _flux2(width, words)
    kind = "an all-in-one checkpoint of" if len(found) > 1 else "a transformer of"
    kind = f"{kind} {family}"
    return CheckpointFacts(header, kind, found, family, variant, why, config)


def _embedder(header: Header, prefix: str) -> tuple[int, int]:
    """(width, channels of its input)."""
    for name in _EMBEDDERS:
        facts = header.tensors.get(prefix + name)
        if facts is not None and len(facts.shape) == 2:
            return facts.shape[0], facts.shape[1]
    raise BadFile("is incomplete: it has no layer for its input")


def _flux1(
    channels: int, guided: bool, words: Mapping[str, set[str]]
) -> tuple[str, str]:
    if channels == 384:
        return "fill", "its input has 384 channels"
    if channels != 64:
        raise BadFile(
            f"is a FLUX.1 control model (its input has {channels} channels), which is "
            "not supported"
        )
    if not guided:
        return "schnell", "it has no layer for guidance"
    return _by_words(("kontext", "krea", "dev"), words, "dev")


def _flux2(width: int, words: Mapping[str, set[str]]) -> tuple[str, str]:
    size = _FLUX2_WIDTHS.get(width)
    by = f"its width is {width}"
    if size is None:
        size, by = "klein-4b", f"its width of {width} is that of none, assumed"
    if size == "flux2-dev":
        return size, by
    for where, found in words.items():
        if "base" in found:
            return size.replace("klein", "klein-base"), f"{by}; 'base' in its {where}"
        if "kv" in found and size == "klein-9b":
            return f"{size}-kv", f"{by}; 'kv' in its {where}"
    return size, f"{by}; not called base in it, so distilled is assumed"


def _by_words(
    known: tuple[str, ...], words: Mapping[str, set[str]], assumed: str
) -> tuple[str, str]:
    for where, found in words.items():
        for word in known:
            if word in found:
                return word, f"{word!r} in its {where}"
    return assumed, f"{assumed} is assumed, as nothing in the file tells"


def _words(header: Header) -> dict[str, set[str]]:
    """The words that name a variant, by where they stand, the surest first."""
    texts = {
        "metadata": " ".join(
            header.metadata.get(key, "") for key in ("general.name", "modelspec.title")
        ),
        "name": header.path.stem,
    }
    return {
        where: set(re.findall(r"[a-z]+|\d+", t.lower())) for where, t in texts.items()
    }
