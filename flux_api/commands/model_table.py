"""The lines of MODEL_INFO's file that make a set of what doctor has looked at."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from flux_api.models.checkpoints import CheckpointFacts
from flux_api.models.file_sets import name_of

# Channels of the latents that a VAE reads, and widths of Qwen3, by the set they are of.
_BY_CHANNELS = {16: "flux1", 32: "klein-4b"}
_BY_WIDTH = {2560: "klein-4b", 4096: "klein-9b"}
_LATENTS = "decoder.conv_in.weight"
_EMBEDDINGS = ("model.embed_tokens.weight", "token_embd.weight")


def table(path: Path, like: str, key: str) -> Iterator[str]:
    """A table like the set ``like`` whose ``key`` is at ``path``, to be pasted."""
    name = name_of(path)
    # A dot would make it a table in a table.
    yield "  in the file of MODEL_INFO:"
    yield f'    ["{name}"]' if "." in name else f"    [{name}]"
    yield f'    like = "{like}"'
    # TOML writes texts as JSON does.
    yield f"    {key} = {json.dumps(str(path.absolute()), ensure_ascii=False)}"


def like_of_part(facts: CheckpointFacts) -> str:
    """The shipped set that the VAE or text encoder ``facts`` is a part of."""
    [(name, prefix)] = facts.components.items()
    tensors = facts.header.tensors
    if name == "vae":
        latents = tensors.get(prefix + _LATENTS)
        channels = latents.shape[1] if latents and len(latents.shape) == 4 else 0
        return _BY_CHANNELS.get(channels, "flux1")
    for embeddings in _EMBEDDINGS if "Qwen3" in facts.kind else ():
        if found := tensors.get(prefix + embeddings):
            return _BY_WIDTH.get(found.shape[-1], "klein-4b")
    return "flux1"
