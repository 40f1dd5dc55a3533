"""Attention as plain matrix products, for training on a CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

LONGEST_PLAIN = 32  # queries: 16 words and 16 parts of a picture
fused_attention = F.scaled_dot_product_attention


def plain_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Return softmax(QK)V, for the arguments that these models really pass."""
    if dropout_p or enable_gqa:
        raise NotImplementedError("plain attention knows only masks")
    scores = query @ key.transpose(-1, -2) * (scale or query.shape[-1] ** -0.5)
    if attn_mask is not None:
        scores = scores + attn_mask
    if is_causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(later, float("-inf"))
    return scores.float().softmax(-1).to(query.dtype) @ value


def attend(query: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:
    """Attend by plain products over short sequences, by PyTorch's kernel over long.

    Over an edit's 48 tokens the compiled backward of the plain products gave
    gradients that were not finite, though the loss was (PyTorch 2.13, a CPU with
    AMX); PyTorch's own kernel gave none.
    """
    chosen = plain_attention if query.shape[-2] <= LONGEST_PLAIN else fused_attention
    return chosen(query, *rest, **options)


def use_plain_attention() -> None:
    """Replace PyTorch's attention in this process, where plain products are faster.

    The fused CPU kernel is made for long sequences. Over a caption's 32 tokens its
    backward pass takes a fifth of the step, and torch.compile can't fuse around it.
    """
    F.scaled_dot_product_attention = attend
