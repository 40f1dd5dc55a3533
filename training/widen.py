"""Give a model more words, without changing what it knows.

python -m training.widen --init FOLDER --out FOLDER

The new words are added tokens: the stock tokenizer finds the longest one at each
place, before it cuts the rest into pieces, so that Japanese needs no spaces. All old
ids, their embeddings and the tokens of English text stay what they were. A model that
was widened before gets the words that came to the list since.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from diffusers import FluxKontextPipeline
from tokenizers import AddedToken
from torch import nn
from transformers import CLIPTokenizer

from training.export import export_weights
from training.japanese_tokens import new_tokens
from training.model import TOKENS, load_pipeline

END = "</w>"
NOISE = 0.1  # keeps words apart that start from the same English one
UNKNOWN = 0.3  # the length, in mean rows, of a word without an English one


def widen_tokenizer(old: CLIPTokenizer, words: list[str]) -> CLIPTokenizer:
    """Return the tokenizer with these words too, and with an ending for every byte.

    A byte without one, last in a word, would become the end token in mid-prompt,
    and CLIP pools at the first end token.
    """
    learnt = json.loads(old.backend_tokenizer.to_str())["model"]
    vocabulary = dict(learnt["vocab"])
    for byte in [piece for piece in vocabulary if len(piece) == 1]:
        vocabulary.setdefault(byte + END, len(vocabulary))
    merges = [
        tuple(pair.split(" ") if isinstance(pair, str) else pair)
        for pair in learnt["merges"]
    ]
    new = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=TOKENS)
    before = old.get_added_vocab()
    every = dict.fromkeys((*sorted(before, key=lambda word: before[word]), *words))
    added = [word for word in every if word not in new.all_special_tokens]
    new.add_tokens([AddedToken(w, single_word=False, normalized=True) for w in added])
    return new


def starting_rows(
    old: CLIPTokenizer, new: CLIPTokenizer, tokens: dict[str, list[str]]
) -> dict[int, list[int]]:
    """Return the old ids whose rows each new id starts from, or none."""
    vocabulary = new.get_vocab()
    special = set(old.all_special_ids)
    starts = {}
    for piece, index in vocabulary.items():
        if index < len(old):
            continue
        if piece in tokens:
            ids = [i for word in tokens[piece] for i in old(word).input_ids]
            starts[index] = [i for i in ids if i not in special]
        else:
            starts[index] = [vocabulary[piece.removesuffix(END)]]
    return starts


@torch.no_grad()
def widen_rows(
    weights: torch.Tensor, size: int, starts: dict[int, list[int]], seed: int = 0
) -> torch.Tensor:
    """Return the embeddings with the new rows: means of old ones, as long as those."""
    generator = torch.Generator().manual_seed(seed)
    usual = weights.norm(dim=1).mean()
    wide = torch.cat([weights, torch.zeros(size - len(weights), weights.shape[1])])
    for index, ids in starts.items():
        noise = torch.randn(weights.shape[1], generator=generator)
        noise *= usual / noise.norm()
        if not ids:
            wide[index] = UNKNOWN * noise
            continue
        mean = weights[ids].mean(0)
        length = weights[ids].norm(dim=1).mean()
        wide[index] = mean * length / mean.norm().clamp_min(1e-6) + NOISE * noise
    return wide


def widen(pipeline: FluxKontextPipeline) -> int:
    """Replace the tokenizers and enlarge both encoders; return the tokens added."""
    old, tokens = pipeline.tokenizer, new_tokens()
    new = widen_tokenizer(old, list(tokens))
    starts = starting_rows(old, new, tokens)
    for encoder in (pipeline.text_encoder, pipeline.text_encoder_2):
        layer = encoder.get_input_embeddings()
        layer.weight = nn.Parameter(widen_rows(layer.weight, len(new), starts))
        layer.num_embeddings = len(new)
        encoder.set_input_embeddings(layer)
        encoder.config.vocab_size = len(new)
    pipeline.register_modules(tokenizer=new, tokenizer_2=new)
    return len(new) - len(old)


def main() -> None:
    """Write the widened model to another folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--init", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    pipeline = load_pipeline(options.init)
    added = widen(pipeline)
    export_weights(pipeline, options.out)
    print(f"{added} tokens added")


if __name__ == "__main__":
    main()
