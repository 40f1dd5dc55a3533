"""Which of the ways to compute attention a transformer may take on a device."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import attention_backend

NATIVE = "native"
# What comes with torch, then the packages of their own; those of the Hub are code that
# would be downloaded.
_ON_CUDA = ("_native_cudnn", "_native_flash", "flash", "_flash_3")


def attention_ways(device: torch.device) -> tuple[str, ...]:
    """diffusers' names of those worth trying on ``device``: torch's own choice, and
    others."""
    return (NATIVE, *_ON_CUDA) if device.type == "cuda" else (NATIVE,)


def set_attention(transformer: Any, way: str) -> None:
    """Compute the attention of ``transformer`` in this ``way``. ImportError,
    RuntimeError or ValueError where what it needs is not installed."""
    # diffusers makes it the choice of all transformers that have none of their own,
    # too; beyond this block it is not.
    with attention_backend(NATIVE):
        transformer.set_attention_backend(way)
