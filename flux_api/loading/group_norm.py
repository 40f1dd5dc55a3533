"""GroupNorm whose sums are split over all of a GPU.

torch gives each group of a picture one of the card's many blocks: of a picture's 32
groups most of a large card is idle, and half of the time of decoding goes there. Here
the sums are torch's own reductions, in float32, and what they say is applied as a batch
norm's; that rounds otherwise than one GroupNorm does, by a bit here and there.
"""

from __future__ import annotations

import torch
from torch.nn import functional


class SplitGroupNorm(torch.nn.GroupNorm):
    """A GroupNorm that :func:`split` has changed, for (batch, channels, ...)."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As a GroupNorm's."""
        shape = input.shape[0], self.num_groups, -1, *input.shape[2:]
        groups = input.reshape(shape)
        inside, count = tuple(range(2, groups.ndim)), groups[0, 0].numel()
        mean = groups.sum(inside, dtype=torch.float32) / count
        length = torch.linalg.vector_norm(groups, dim=inside, dtype=torch.float32)
        variance = (length.square() / count - mean.square()).clamp(min=0)
        batch, channels = input.shape[:2]
        output = functional.batch_norm(
            # Each picture has numbers of its own, as channels have in a batch norm.
            input.reshape(1, batch * channels, *input.shape[2:]),
            mean.repeat_interleave(channels // self.num_groups),
            variance.repeat_interleave(channels // self.num_groups),
            self.weight.float().repeat(batch),
            self.bias.float().repeat(batch),
            eps=self.eps,
        )
        return output.reshape(input.shape)


def split(vae: torch.nn.Module) -> bool:
    """Change all group norms of ``vae`` in place; whether it has any."""
    norms = [m for m in vae.modules() if type(m) is torch.nn.GroupNorm and m.affine]
    for norm in norms:
        norm.__class__ = SplitGroupNorm
    return bool(norms)


def is_split(vae: torch.nn.Module) -> bool:
    """Whether :func:`split` has changed ``vae``."""
    return any(isinstance(module, SplitGroupNorm) for module in vae.modules())


def unsplit(vae: torch.nn.Module) -> None:
    """Take back what :func:`split` did."""
    norms = [module for module in vae.modules() if isinstance(module, SplitGroupNorm)]
    for norm in norms:
        norm.__class__ = torch.nn.GroupNorm  # type: ignore[assignment]
