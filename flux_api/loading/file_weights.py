"""How many bytes weights take: their kinds, and those in files, from headers alone."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from flux_api.loading.checkpoint_names import is_unused
from flux_api.loading.quantization import QUANTIZED
from flux_api.models.checkpoints import CheckpointFacts, identify_file
from flux_api.models.headers import BadFile
from flux_api.models.hub import present_file
from flux_api.models.info import ModelInfo
from flux_api.models.sources import File
from flux_api.settings import Quantization

_BLOCK = 64  # weights that share one scale in nf4
_SCALE = 4  # bytes of a scale, float32
# Layers that are never quantized, as files name them.
_WHOLE = (
    *("img_in.", "txt_in.", "final_layer.linear.", "x_embedder.", "context_embedder."),
    *("proj_out.", "lm_head.", "shared.", "model.embed_tokens.", "token_embd."),
)
# A block, by any file's names: its matrices alone stay packed.
_IN_BLOCK = re.compile(r"(blocks?|blk|layers)\.\d")
# One and the same matrix, which some files hold twice.
_TWICE = {"encoder.embed_tokens.weight": "shared.weight"}


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of one component: how many could be quantized (in ``rows`` rows, the
    largest layer having ``largest``), and how many could not. ``stored`` are the bytes
    in a file that are packed already, and stay so; beside them ``unpacked`` numbers."""

    linear: int
    rows: int
    rest: int
    largest: int
    quantizable: bool
    stored: int | None = None
    unpacked: int = 0

    def bytes_in(self, quantization: Quantization, width: int) -> int:
        """Its bytes at ``width`` bytes a number (2 for bfloat16)."""
        if self.stored is not None:
            return self.stored + self.unpacked * width
        if quantization == "none" or not self.quantizable:
            return (self.linear + self.rest) * width
        if quantization == "nf4":
            packed = self.linear // 2 + math.ceil(self.linear / _BLOCK) * _SCALE
        else:
            packed = self.linear + self.rows * _SCALE
        return packed + self.rest * width


def own_files(info: ModelInfo) -> dict[str, tuple[CheckpointFacts, str]]:
    """The components of ``info`` that are in files on this machine, each with the
    prefix of its tensors; a file that cannot be read is told when it is loaded."""
    found: dict[str, tuple[CheckpointFacts, str]] = {}
    for name, source in info.components.items():
        path = present_file(source) if isinstance(source, File) else None
        if path is None:
            continue
        try:
            facts = identify_file(path)
        except BadFile:
            continue
        for part, prefix in facts.parts_for(name, info.components):
            found[part] = facts, prefix
    return found


def weigh_file(name: str, facts: CheckpointFacts, prefix: str) -> Weights:
    """The weights of component ``name`` in a file, from its header alone."""
    linear = rows = rest = largest = stored = unpacked = 0
    tensors = facts.header.tensors
    for key, tensor in tensors.items():
        own = key.removeprefix(prefix)
        if not key.startswith(prefix) or is_unused(own):
            continue
        if f"{prefix}{_TWICE.get(own, '')}" in tensors:
            continue
        numbers = math.prod(tensor.shape)
        largest = max(largest, numbers)
        matrix = len(tensor.shape) == 2
        in_block = matrix and name != "vae" and _IN_BLOCK.search(own)
        if in_block and tensor.size < numbers * 2:
            stored += tensor.size
        else:
            unpacked += numbers
        if matrix and not own.startswith(_WHOLE):
            linear += numbers
            rows += tensor.shape[0]
        else:
            rest += numbers
    # By itself, or in a file with everything.
    is_clip = "CLIP" in facts.kind or "clip" in prefix
    quantizable = name in QUANTIZED and not is_clip
    packed = (stored, unpacked) if stored else ()
    return Weights(linear, rows, rest, largest, quantizable, *packed)


def config_of_file(name: str, facts: CheckpointFacts, prefix: str) -> dict[str, Any]:
    """What counts of its configuration for the memory that it works with."""
    for key in ("img_in.weight", "x_embedder.weight"):
        found = facts.header.tensors.get(prefix + key)
        if name == "transformer" and found is not None:
            return {"num_attention_heads": 1, "attention_head_dim": found.shape[0]}
    return {}
