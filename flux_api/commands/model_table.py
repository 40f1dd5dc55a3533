"""The lines of MODEL_INFO's file that make a model of what doctor has looked at."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from flux_api.models.checkpoints import CheckpointFacts
from flux_api.models.file_sets import name_of

# What tells parts apart: channels of the latents that a VAE reads, the width of Qwen3.
_FLUX2_CHANNELS, _KLEIN_9B_WIDTH = 32, 4096
_LATENTS = "decoder.conv_in.weight"
_EMBEDDINGS = ("model.embed_tokens.weight", "token_embd.weight")


def table(path: Path, like: str, key: str) -> Iterator[str]:
    """A table like the model ``like`` whose ``key`` is at ``path``, to be pasted."""
    name = name_of(path)
    yield "  in the file of MODEL_INFO:"
    # A dot would make it a table in a table.
    yield f'    ["{name}"]' if "." in name else f"    [{name}]"
    yield f'    like = "{like}"'
    # TOML writes texts as JSON does.
    yield f"    {key} = {json.dumps(str(path.absolute()), ensure_ascii=False)}"


def like_of_part(facts: CheckpointFacts) -> str:
    """The shipped model that the VAE or text encoder ``facts`` is a part of."""
    [(name, prefix)] = facts.components.items()
    tensors = facts.header.tensors
    if name == "vae":
        latents = tensors.get(prefix + _LATENTS)
        channels = latents.shape[1] if latents and len(latents.shape) == 4 else 0
        return "klein-4b" if channels == _FLUX2_CHANNELS else "flux1"
    for embeddings in _EMBEDDINGS if "Qwen3" in facts.kind else ():
        if found := tensors.get(prefix + embeddings):
            return "klein-9b" if found.shape[-1] == _KLEIN_9B_WIDTH else "klein-4b"
    return "flux1"
