"""Words that training hardly ever showed come to mean nothing.

A prompt holds words that no caption had. Their rows in the text encoders are what they
were at the start, or what a few steps made of them, and one of them can take over the
picture ("a nice unicorn symbol"). So each gets the row of words that training used to
say nothing: the mean of a few English fillers, or the Japanese word for "draw".
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import torch
from diffusers import FluxKontextPipeline

from training.batches import Sampler
from training.data import add_data_options, read_data
from training.export import export_weights
from training.latents import encode_all
from training.model import load_pipeline

ENGLISH = ("great", "pretty", "fancy", "cool", "funny")
JAPANESE = "を描いて"
PROMPTS = 96_000
RARE = 3
"""So few times in as many prompts: a run shows them some tens of times at most."""


def count_tokens(pipeline: FluxKontextPipeline, prompts: Iterable[str]) -> Counter[int]:
    """Return in how many of ``prompts`` each token is."""
    counts: Counter[int] = Counter()
    for ids in pipeline.tokenizer(list(prompts)).input_ids:
        counts.update(set(ids))
    return counts


def quiet_rare(pipeline: FluxKontextPipeline, counts: Counter[int]) -> int:
    """Overwrite the rows of rare tokens in both text encoders; return how many."""
    tokenizer = pipeline.tokenizer
    special = set(tokenizer.all_special_ids)
    rare = [i for i in range(len(tokenizer)) if counts[i] <= RARE and i not in special]
    words = tokenizer.convert_ids_to_tokens(rare)
    first = {word: tokenizer(word).input_ids[1] for word in (*ENGLISH, JAPANESE)}
    english = [first[word] for word in ENGLISH]
    with torch.no_grad():
        for encoder in (pipeline.text_encoder, pipeline.text_encoder_2):
            rows = encoder.get_input_embeddings().weight
            quiet = rows[english].mean(0), rows[first[JAPANESE]].clone()
            for index, word in zip(rare, words, strict=True):
                # A byte of Japanese is shown as a letter beyond ASCII too.
                rows[index] = quiet[not word.removesuffix("</w>").isascii()]
    return len(rare)


def draw_prompts(sampler: Sampler) -> Iterable[str]:
    """Draw prompts as training does: one edit for four captions."""
    for number in range(PROMPTS // 96):
        kind = sampler.edit if number % 5 == 0 else sampler.generate
        yield from kind(96).prompts


def main() -> None:
    """Quiet the rare words of an export, in place."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_data_options(parser)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--latents", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    options = parser.parse_args()
    pipeline = load_pipeline(options.model)
    data = read_data(options, options.size)
    latents = encode_all(pipeline.vae, data, options.latents)
    sampler = Sampler(data, latents, random.Random(9))
    count = quiet_rare(pipeline, count_tokens(pipeline, draw_prompts(sampler)))
    export_weights(pipeline, options.model)
    print(f"{count} of {len(pipeline.tokenizer)} tokens say nothing")


if __name__ == "__main__":
    main()
