"""One layer of a LoRA's file: what it must hold, and what it changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch

from flux_api.loading import deltas
from flux_api.loading.deltas import Change, Delta, take
from flux_api.loading.lora_layers import Target
from flux_api.models.lora_keys import KeyRefused

Tensors = dict[str, torch.Tensor]

MOST_RANK = 4096
# An alpha counts over the rank: far above any that was trained.
_MOST_SCALE = 10_000.0
# Which tensors make up a change, by the one that shows it.
_KINDS = {
    "down": ("down", "up"),
    "up": ("down", "up"),
    "lokr": ("lokr_w1", "lokr_w2"),
    "hada": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    "diff": ("diff",),
}


@dataclass(frozen=True, slots=True)
class LayerChange:
    """``change`` belongs on ``layer``."""

    layer: torch.nn.Module
    change: Change


def norm_change(key: str, tensors: Tensors, norm: torch.nn.RMSNorm) -> LayerChange:
    """What ``tensors``, a difference of a norm's weight, change in ``norm``."""
    diff = tensors.get("diff")
    if diff is None or len(tensors) > 1:
        raise KeyRefused(f"has more than a difference for a norm, {key!r}")
    if diff.shape != norm.weight.shape:
        raise KeyRefused(
            f"does not fit this model: {key!r} has {diff.numel()} numbers, the model's "
            f"norm {norm.weight.numel()}"
        )
    return LayerChange(norm, Change(deltas.NormDifference(diff, norm.eps), None))


class LoraModule:
    """One layer of a file, fused or not, and the ``targets`` that it stands for."""

    def __init__(
        self,
        key: str,
        tensors: Tensors,
        targets: tuple[Target, ...],
        component: torch.nn.Module,
    ) -> None:
        self.targets = targets
        self.stabilized = False
        # PEFT weighs a LoKr by it, LyCORIS by that of the factors, if they have one.
        self.rank: float | None = None
        self._key, self._tensors, self._scale = key, tensors, 1.0
        self._layers = [
            cast(torch.nn.Linear, component.get_submodule(target.path))
            for target in targets
        ]
        self._rows = sum(layer.out_features for layer in self._layers)
        self._columns = self._layers[0].in_features
        self.alpha, self._scalar = self._number("alpha"), self._number("scalar")

    def _number(self, part: str) -> float | None:
        tensor = self._tensors.pop(part, None)
        if tensor is not None and tensor.numel() != 1:
            raise KeyRefused(f"has several numbers as {part}, for {self._key!r}")
        return None if tensor is None else float(tensor)

    def changes(self) -> Iterator[LayerChange]:
        """What it changes in each of the layers."""
        if self.alpha is not None and not self.alpha > 0:
            raise KeyRefused(f"has an alpha that is not above 0, for {self._key!r}")
        magnitude = self._tensors.pop("magnitude", None)
        bias = self._bias()
        kind = self._kind()
        if kind is None and bias is None and magnitude is None:
            raise KeyRefused(f"has an alpha alone, {self._key!r}")
        made = []
        for target, layer in zip(self.targets, self._layers, strict=True):
            own = None if kind is None else self._matrix(kind, target)
            of_bias = None if bias is None else _constant(bias, target)
            made.append(LayerChange(layer, Change(own, of_bias)))
        if magnitude is not None:
            self._scale_rows(magnitude, made)
        yield from made

    def _kind(self) -> str | None:
        kinds = {part.split("_")[0] for part in self._tensors}
        if kinds <= {"down", "up"} and kinds:
            kinds = {"down"}
        if len(kinds) > 1:
            raise KeyRefused(f"mixes {' and '.join(sorted(kinds))}, in {self._key!r}")
        kind = next(iter(kinds), None)
        if kind == "lokr":
            self._multiply_factors()
        if kind is not None:
            self._check(kind)
        if self._scalar is not None:
            # LyCORIS' own number for the whole product.
            if kind not in ("down", "lokr", "hada"):
                raise KeyRefused(f"has a scalar and nothing it is for, {self._key!r}")
            self._scale *= self._scalar
        if abs(self._scale) > _MOST_SCALE:
            raise KeyRefused(
                f"has an alpha or scalar that multiplies by {self._scale:g}, for "
                f"{self._key!r}"
            )
        return kind

    def _multiply_factors(self) -> None:
        """LoKr's factors of low rank to whole ones; they are small."""
        self._scale = deltas.kronecker_scale(self._tensors, self.alpha)
        if self.rank is not None and self.alpha is not None:
            self._scale = self.alpha / self.rank
        for name in ("lokr_w1", "lokr_w2"):
            one, other = (self._tensors.pop(f"{name}_{end}", None) for end in "ab")
            if one is not None and other is not None and name not in self._tensors:
                self._check_product(one, other)
                self._tensors[name] = (one.float() @ other.float()).to(one.dtype)
            elif one is not None or other is not None:
                raise KeyRefused(f"lacks a factor of {name}, in {self._key!r}")

    def _check_product(self, one: torch.Tensor, other: torch.Tensor) -> None:
        if one.dim() != 2 or other.dim() != 2 or one.shape[1] != other.shape[0]:
            raise KeyRefused(f"has factors that do not fit together, in {self._key!r}")
        if not 0 < one.shape[1] <= MOST_RANK:
            raise KeyRefused(f"has rank {one.shape[1]}, in {self._key!r}")
        # The larger side is one of the layer's own at most.
        if one.shape[0] > self._rows or other.shape[1] > self._columns:
            self._refuse_shape((one.shape[0], other.shape[1]))

    def _check(self, kind: str) -> None:
        """KeyRefused unless the tensors are all there and fit the layers."""
        tensors = self._tensors
        if missing := [part for part in _KINDS[kind] if part not in tensors]:
            raise KeyRefused(f"lacks {missing[0]} beside {self._key!r}")
        if any(tensor.dim() != 2 for tensor in tensors.values()):
            raise KeyRefused(f"does not fit this model: no matrix in {self._key!r}")
        if kind == "lokr":
            first, second = tensors["lokr_w1"], tensors["lokr_w2"]
            pairs = zip(first.shape, second.shape, strict=True)
            self._check_shape(tuple(a * b for a, b in pairs))
            return
        if kind == "diff":
            self._check_shape(tuple(tensors["diff"].shape))
            return
        one, other = ("up", "down") if kind == "down" else ("hada_w1_a", "hada_w1_b")
        self._check_product(tensors[one], tensors[other])
        self._check_shape((tensors[one].shape[0], tensors[other].shape[1]))
        if kind == "hada" and (
            tensors["hada_w2_a"].shape != tensors[one].shape
            or tensors["hada_w2_b"].shape != tensors[other].shape
        ):
            raise KeyRefused(f"has factors that do not fit together, in {self._key!r}")
        rank = tensors[other].shape[0]
        self._scale = deltas.rank_scale(rank, self.alpha, stabilized=self.stabilized)

    def _check_shape(self, found: tuple[int, ...]) -> None:
        if found != (self._rows, self._columns):
            self._refuse_shape(found)

    def _refuse_shape(self, found: tuple[int, ...]) -> None:
        expected = f"{self._columns} inputs and {self._rows} outputs"
        raise KeyRefused(
            f"does not fit this model: {self._key!r} is for {found[1]} inputs and "
            f"{found[0]} outputs, the model's layer has {expected}"
        )

    def _matrix(self, kind: str, target: Target) -> Delta:
        tensors, rows = self._tensors, target.rows
        if kind == "lokr":
            return deltas.Kronecker(tensors, self._scale, rows)
        if kind == "diff":
            return deltas.Difference({"diff": take(tensors["diff"], rows, 0)}, 1.0)
        cut = ("up",) if kind == "down" else ("hada_w1_a", "hada_w2_a")
        own = {n: take(t, rows, 0) if n in cut else t for n, t in tensors.items()}
        made = deltas.LowRank if kind == "down" else deltas.Hadamard
        return made(own, self._scale)

    def _bias(self) -> torch.Tensor | None:
        """The difference of the bias: whole, or that of a LoRA's second matrix."""
        whole = self._tensors.pop("diff_b", None)
        second = self._tensors.pop("up_bias", None)
        if second is not None:
            rank = self._tensors["up"].shape[-1] if "up" in self._tensors else 1
            alpha, rooted = self.alpha, self.stabilized
            scale = deltas.rank_scale(max(1, rank), alpha, stabilized=rooted)
            second = second.float() * scale
            whole = second if whole is None else whole.float() + second
        if whole is not None and tuple(whole.shape) != (self._rows,):
            raise KeyRefused(
                f"does not fit this model: {self._key!r} has a bias for "
                f"{whole.numel()} outputs, the model's layer has {self._rows}"
            )
        return whole

    def _scale_rows(self, magnitude: torch.Tensor, made: list[LayerChange]) -> None:
        """DoRA: what the weight with its change is brought to, by row or column."""
        by_column = (
            magnitude.dim() == 2 and magnitude.shape[0] == 1 != magnitude.shape[1]
        )
        size = self._columns if by_column else self._rows
        if magnitude.numel() != size:
            raise KeyRefused(
                f"does not fit this model: the DoRA scale of {self._key!r} has "
                f"{magnitude.numel()} numbers, expected {size}"
            )
        magnitude = magnitude.float().flatten()
        pairs = zip(self._layers, made, strict=True)
        whole = [one.change.weight(layer) for layer, one in pairs]
        norms = [weight.square().sum(0 if by_column else 1) for weight in whole]
        for target, one, norm in zip(self.targets, made, norms, strict=True):
            # A column runs through all layers of a fused matrix.
            squares = sum(norms) if by_column else norm
            own = magnitude if by_column else take(magnitude, target.rows, 0)
            gain = own / torch.as_tensor(squares).sqrt().clamp(min=1e-12)
            one.change.set_gain(gain, by_column=by_column)


def _constant(bias: torch.Tensor, target: Target) -> Delta:
    return deltas.Constant({"diff_b": take(bias, target.rows, 0)}, 1.0)
