"""What a LoRA adds to a layer: LoRA, LoHa, LoKr, whole differences, DoRA over them.

All add to a layer's output and never touch its weight. So one way does for plain,
8-bit, 4-bit and GGUF layers, and nothing is left of it afterwards. The libraries'
adapters take weights of one kind each, and some reshape those that are packed.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate.utils import align_module_device
from torch.nn.functional import linear, rms_norm

from flux_api.loading.lora_layers import Rows
from flux_api.loading.packed import PackedLinear

Tensor = torch.Tensor


class Delta(ABC):
    """A matrix of shape (out, in), kept in its factors; ``scale`` times it is added."""

    def __init__(self, tensors: Mapping[str, Tensor], scale: float) -> None:
        self._tensors = dict(tensors)
        self._host = dict(tensors)
        self._scale = scale

    def __call__(self, x: Tensor) -> Tensor:
        """What it adds to the output for input ``x``."""
        for name, tensor in self._tensors.items():
            if tensor.device != x.device or tensor.dtype != x.dtype:
                # Once: a layer's inputs stay what they are.
                moved = self._tensors[name] = tensor.to(x.device, x.dtype)
                if moved.device == tensor.device:
                    self._host[name] = moved
        return self._product(x) * self._scale

    def leave_device(self) -> None:
        """Give up the device's memory; the next call takes it again."""
        self._tensors = dict(self._host)

    @property
    def nbytes(self) -> int:
        """Its size in the host's memory."""
        return sum(tensor.nbytes for tensor in self._host.values())

    def dense(self, device: torch.device) -> Tensor:
        """The whole matrix, float32, on ``device``."""
        tensors = {name: t.to(device, torch.float32) for name, t in self._host.items()}
        return self._whole(tensors) * self._scale

    @abstractmethod
    def _product(self, x: Tensor) -> Tensor:
        """The matrix times ``x``, from its factors."""

    @abstractmethod
    def _whole(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The matrix made of ``tensors``, its factors."""


class LowRank(Delta):
    """LoRA: ``up`` @ ``down``."""

    @property
    def factors(self) -> tuple[Tensor, Tensor]:
        """``down`` (rank, in) and ``up`` (out, rank), whose product is added."""
        return self._host["down"], self._host["up"] * self._scale

    def _product(self, x: Tensor) -> Tensor:
        return linear(linear(x, self._tensors["down"]), self._tensors["up"])

    def _whole(self, tensors: Mapping[str, Tensor]) -> Tensor:
        return tensors["up"] @ tensors["down"]


class Hadamard(Delta):
    """LoHa: two low-rank matrices, multiplied number by number."""

    def _product(self, x: Tensor) -> Tensor:
        return linear(x, self._whole(self._tensors))

    def _whole(self, tensors: Mapping[str, Tensor]) -> Tensor:
        first = tensors["hada_w1_a"] @ tensors["hada_w1_b"]
        return first * (tensors["hada_w2_a"] @ tensors["hada_w2_b"])


class Kronecker(Delta):
    """LoKr: ``rows`` of the Kronecker product of two matrices, which is never written
    out."""

    def __init__(self, tensors: Mapping[str, Tensor], scale: float, rows: Rows) -> None:
        super().__init__(tensors, scale)
        self._rows = rows

    def _product(self, x: Tensor) -> Tensor:
        first, second = self._tensors["lokr_w1"], self._tensors["lokr_w2"]
        grid = x.reshape(*x.shape[:-1], first.shape[1], second.shape[1])
        # The order in which less is kept in between: of a row and a column the other
        # one would take the whole matrix for each token.
        if first.shape[0] * second.shape[1] < first.shape[1] * second.shape[0]:
            made = linear(first @ grid, second)
        else:
            made = first @ linear(grid, second)
        return take(made.flatten(-2), self._rows, -1)

    def _whole(self, tensors: Mapping[str, Tensor]) -> Tensor:
        whole = torch.kron(tensors["lokr_w1"], tensors["lokr_w2"])
        return take(whole, self._rows, 0)


class Difference(Delta):
    """A whole matrix."""

    def _product(self, x: Tensor) -> Tensor:
        return linear(x, self._tensors["diff"])

    def _whole(self, tensors: Mapping[str, Tensor]) -> Tensor:
        return tensors["diff"]


class NormDifference(Delta):
    """A difference of the weight of an RMS norm."""

    def __init__(self, diff: Tensor, eps: float | None) -> None:
        super().__init__({"diff": diff}, 1.0)
        self._eps = eps

    def _product(self, x: Tensor) -> Tensor:
        diff = self._tensors["diff"]
        return rms_norm(x, diff.shape, diff, self._eps)

    def _whole(self, tensors: Mapping[str, Tensor]) -> Tensor:
        return tensors["diff"]


class Constant(Delta):
    """A difference of the bias."""

    def _product(self, x: Tensor) -> Tensor:
        bias = self._tensors["diff_b"]
        return bias.expand(*x.shape[:-1], *bias.shape)

    def _whole(self, tensors: Mapping[str, Tensor]) -> Tensor:
        return tensors["diff_b"]


class Change:
    """All that a file changes in one layer: a matrix, a bias, and the gain of a DoRA,
    which scales each row of weight and matrix together (each column, ``by_column``).
    Like the others a DoRA is weighed as a whole: half of it is half the difference."""

    def __init__(self, matrix: Delta | None, bias: Delta | None) -> None:
        self._matrix, self._bias = matrix, bias
        self._gain: Tensor | None = None
        self._by_column = False

    def leave_device(self) -> None:
        """Give up the device's memory; the next call takes it again."""
        for part in self._parts:
            part.leave_device()
        self._gain = None if self._gain is None else self._gain.cpu()

    @property
    def nbytes(self) -> int:
        """Its size in the host's memory."""
        gain = 0 if self._gain is None else self._gain.nbytes
        return gain + sum(part.nbytes for part in self._parts)

    @property
    def factors(self) -> tuple[Tensor, Tensor] | None:
        """The factors of its matrix, where that is a LoRA's and all there is."""
        alone = self._bias is None and self._gain is None
        if alone and isinstance(self._matrix, LowRank):
            return self._matrix.factors
        return None

    @property
    def is_of_weight(self) -> bool:
        """Whether it leaves the bias alone."""
        return self._bias is None

    @property
    def _parts(self) -> list[Delta]:
        return [part for part in (self._matrix, self._bias) if part is not None]

    def weight(self, layer: torch.nn.Linear) -> Tensor:
        """The weight of ``layer`` with the matrix added, float32, on the CPU."""
        return self._with_matrix(dense_weight(layer))

    def difference(self, weight: Tensor) -> Tensor:
        """What it makes of ``weight`` (out, in), float32, less that weight."""
        if self._gain is None:
            assert self._matrix is not None
            return self._matrix.dense(weight.device)
        gain = self._gain.to(weight)
        whole = self._with_matrix(weight)
        return whole * (gain if self._by_column else gain[:, None]) - weight

    def _with_matrix(self, weight: Tensor) -> Tensor:
        if self._matrix is None:
            return weight
        return weight + self._matrix.dense(weight.device)

    def set_gain(self, gain: Tensor, *, by_column: bool) -> None:
        """Scale each row of the result by its number in ``gain``, or each column."""
        self._gain, self._by_column = gain, by_column

    def __call__(self, layer: torch.nn.Linear, x: Tensor, output: Tensor) -> Tensor:
        """What it adds to the ``output`` of ``layer`` for ``x``."""
        added = [] if self._bias is None else [self._bias(x)]
        if self._gain is None:
            added += [] if self._matrix is None else [self._matrix(x)]
            return sum(added[1:], added[0])
        self._gain = gain = self._gain.to(output.device, output.dtype)
        if self._by_column:
            added.append(_without_bias(layer, layer.forward(x * (gain - 1))))
            added += [] if self._matrix is None else [self._matrix(x * gain)]
        else:
            added.append(_without_bias(layer, output) * (gain - 1))
            added += [] if self._matrix is None else [self._matrix(x) * gain]
        return sum(added[1:], added[0])


# The changes of a layer, and what each is multiplied by.
Weighed = Sequence[tuple[Change, float]]


def dense_weight(layer: torch.nn.Linear) -> Tensor:
    """The weight of ``layer`` in float32, whatever it is packed as."""
    # Where layers are offloaded one by one, their weights are elsewhere until then.
    with align_module_device(layer):
        weight = layer.weight
        if isinstance(layer, PackedLinear):
            return layer.unpacked(torch.float32).cpu()
        if type(layer) is torch.nn.Linear:
            return weight.detach().float().cpu()
        # Each column is what comes out for one input.
        dtype: Any = torch.float32 if weight.device.type == "cpu" else torch.bfloat16
        eye = torch.eye(layer.in_features, device=weight.device, dtype=dtype)
        return _without_bias(layer, layer(eye)).T.float().cpu()


def _without_bias(layer: torch.nn.Linear, output: Tensor) -> Tensor:
    bias: Tensor | None = layer.bias
    if bias is None:
        return output
    with align_module_device(layer):
        return output - layer.bias.to(output.device, output.dtype)


def take(tensor: Tensor, rows: Rows, axis: int) -> Tensor:
    """The ``rows`` of ``tensor`` along ``axis``, one after the other."""
    if not rows:
        return tensor
    parts = [
        tensor.narrow(axis, row.start or 0, row.stop - (row.start or 0)) for row in rows
    ]
    return torch.cat(parts, axis) if len(parts) > 1 else parts[0]


def kronecker_scale(tensors: Mapping[str, Tensor], alpha: float | None) -> float:
    """As LyCORIS has it: alpha counts only where a factor is of low rank."""
    for name in ("lokr_w2_b", "lokr_w1_b"):
        if name in tensors and alpha is not None:
            return alpha / tensors[name].shape[0]
    return 1.0


def rank_scale(rank: int, alpha: float | None, *, stabilized: bool) -> float:
    """What multiplies a matrix of ``rank``: alpha over it, or over its root."""
    if alpha is None:
        return 1.0
    return alpha / (math.sqrt(rank) if stabilized else rank)
