"""Build an untrained tiny Flux, or load one, and turn words into its conditions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxKontextPipeline,
    FluxTransformer2DModel,
)
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
)

from training import texts

TOKENS = 16
VOCABULARY = 6000
# Width is heads x 64; "small" makes a 31 MB checkpoint, the others are for a GPU.
SIZES = {"small": (4, 2, 4), "medium": (5, 2, 6), "large": (6, 2, 6)}
# How CLIP's tokenizer cuts text; the stock class expects exactly this.
PIECES = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d"
    r"|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


def load_pipeline(folder: Path) -> FluxKontextPipeline:
    """Return the pipeline of a diffusers folder, in float32 for training."""
    return FluxKontextPipeline.from_pretrained(folder, dtype=torch.float32)


def new_pipeline(
    vae: AutoencoderKL, words: dict[str, Any], size: str = "small"
) -> FluxKontextPipeline:
    """Return an untrained pipeline around a trained autoencoder."""
    heads, double, single = SIZES[size]
    width = heads * 64
    tokenizer = new_tokenizer(_corpus(words))
    end = tokenizer.eos_token_id
    if end == 2:  # transformers then pools at the highest token id instead
        raise ValueError("CLIP pooling needs an end token other than 2")
    clip = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=1,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=end,
            pad_token_id=end,
            projection_dim=128,
            hidden_act="gelu",
        )
    )
    t5 = T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=width,
            d_kv=64,
            d_ff=2 * width,
            num_layers=2,
            num_heads=heads,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            pad_token_id=end,
            eos_token_id=end,
            decoder_start_token_id=end,
            is_encoder_decoder=False,
            use_cache=False,
        )
    )
    nn.init.normal_(t5.shared.weight)
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=4 * vae.config.latent_channels,
        num_layers=double,
        num_single_layers=single,
        attention_head_dim=64,
        num_attention_heads=heads,
        joint_attention_dim=width,
        pooled_projection_dim=128,
        guidance_embeds=False,
        axes_dims_rope=(16, 24, 24),
    )
    _start_at_identity(transformer)
    return FluxKontextPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        vae=vae,
        text_encoder=clip,
        tokenizer=tokenizer,
        text_encoder_2=t5,
        tokenizer_2=tokenizer,
        transformer=transformer,
    )


def _start_at_identity(transformer: FluxTransformer2DModel) -> None:
    """Zero the modulations and the output, so that every block starts as identity."""
    zeroed = [transformer.proj_out, transformer.norm_out.linear]
    for block in transformer.transformer_blocks:
        zeroed += [block.norm1.linear, block.norm1_context.linear]
    zeroed += [b.norm.linear for b in transformer.single_transformer_blocks]
    for layer in zeroed:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)


def _corpus(words: dict[str, Any]) -> Iterator[str]:
    """Yield the text whose common words become single tokens."""
    for entry in words.values():
        yield from [entry["name"]] * 8 + entry["tags"] * 2
    groups = [*sum(texts.ORDERS.values(), []), *sum(texts.WISHES.values(), [])]
    groups += [*texts.SCENES]
    groups += [*texts.STYLED, *texts.POLITE, *texts.POLITE_WANT, *texts.ENDINGS]
    groups += [*texts.THINGS, *sum(texts.CAPTION_OPS.values(), ())]
    groups += [*sum(texts.STYLES.values(), ())]
    yield from groups * 200


def new_tokenizer(corpus: Iterator[str]) -> CLIPTokenizer:
    """Return a small byte-pair tokenizer in the layout of CLIP's."""
    trained = Tokenizer(
        models.BPE(
            unk_token="<|endoftext|>",
            end_of_word_suffix="</w>",
            continuing_subword_prefix="",
        )
    )
    trained.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Lowercase(),
        ]
    )
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        end_of_word_suffix="</w>",
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator(corpus, trainer)
    learnt = json.loads(trained.to_str())["model"]
    merges = [
        tuple(m) if isinstance(m, list) else tuple(m.split(" "))
        for m in learnt["merges"]
    ]
    return CLIPTokenizer(vocab=learnt["vocab"], merges=merges, model_max_length=TOKENS)


def trained_parts(pipeline: FluxKontextPipeline) -> list[nn.Module]:
    """Return the modules that flow training changes."""
    return [pipeline.transformer, pipeline.text_encoder, pipeline.text_encoder_2]


def encode_prompts(
    pipeline: FluxKontextPipeline, prompts: Sequence[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the pooled and the per-token conditions, padded as the pipelines do."""
    tokens = pipeline.tokenizer(
        list(prompts),
        padding="max_length",
        max_length=pipeline.tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids.to(pipeline.transformer.device)
    pooled = pipeline.text_encoder(tokens).pooler_output
    return pooled, pipeline.text_encoder_2(tokens)[0]
