"""Components out of single files: what such people's files hold, packed or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import transformers
from accelerate import init_empty_weights

from flux_api.loading.checkpoint_names import places_of, vae_tensors
from flux_api.loading.deltas import take
from flux_api.loading.lora_layers import Rows
from flux_api.loading.packed import FLOAT8, PackedLinear, Unpack, unpacker
from flux_api.loading.tensor_file import TensorFile
from flux_api.models.checkpoints import CheckpointFacts
from flux_api.models.headers import GGUF_KINDS, Header, TensorFacts
from flux_api.models.hub import ModelMissing, listed
from flux_api.models.number_kinds import SCALES

# Where layers may stay packed: many and large. What is outside is small, and models
# take their data type from there.
_BLOCKS = (
    *("transformer_blocks.", "single_transformer_blocks."),
    *("encoder.block.", "encoder.layers.", "model.layers."),
)


@dataclass(frozen=True, slots=True)
class _Place:
    """Tensor ``name`` of the file, or ``rows`` of it, is parameter ``path``."""

    name: str
    path: str
    rows: Rows


def load_component(
    kind: Any,
    config: Mapping[str, Any],
    facts: CheckpointFacts,
    prefix: str,
    dtype: Any,
) -> torch.nn.Module:
    """A ``kind`` with ``config`` and the tensors of the file whose names begin with
    ``prefix``, on the CPU; GGUF and 8-bit weights stay packed, the others become
    ``dtype``. ModelMissing, before a tensor is read, where they do not fit."""
    module = build(kind, config)
    header = facts.header
    if "Autoencoder" in kind.__name__:
        _load_vae(module, config, header, prefix, dtype)
    else:
        places = _plan(module, facts, prefix)
        _fill(module, header, prefix, places, dtype)
    if isinstance(module, transformers.PreTrainedModel):
        _tie(module)
    missing = [n for n, p in module.named_parameters() if p.is_meta]
    if missing:
        raise ModelMissing(f"the file lacks {listed(missing)}")
    return module.eval().requires_grad_(False)


def build(kind: Any, config: Mapping[str, Any]) -> torch.nn.Module:
    """A ``kind`` without weights, but with the buffers that it computes."""
    with init_empty_weights(include_buffers=False):
        if kind.__module__.startswith("diffusers"):
            built = kind.from_config(dict(config))
        else:
            built = kind._from_config(kind.config_class(**config))
    return cast(torch.nn.Module, built)


def _own_names(header: Header, prefix: str) -> Iterator[tuple[str, TensorFacts]]:
    for name, facts in header.tensors.items():
        if name.startswith(prefix):
            yield name.removeprefix(prefix), facts


def _plan(
    module: torch.nn.Module, facts_of: CheckpointFacts, prefix: str
) -> list[_Place]:
    """Where each tensor goes, checked by the header alone."""
    find = places_of(module)
    expected = module.state_dict()
    header = facts_of.header
    others = tuple(p for p in facts_of.components.values() if p != prefix)
    places: list[_Place] = []
    for name, facts in _own_names(header, prefix):
        if name.endswith(SCALES) or (not prefix and others and name.startswith(others)):
            continue
        found = find(name)
        if found is None:
            raise ModelMissing(f"the file has {name[:200]!r}, which is no part of it")
        if not found:
            continue
        shapes = [expected[path].shape for path, _ in found]
        whole = (sum(shape[0] for shape in shapes), *shapes[0][1:])
        if tuple(facts.shape) != whole:
            raise ModelMissing(
                f"{name!r} in the file is {_by(facts.shape)}, expected {_by(whole)}"
            )
        places += [_Place(name, path, rows) for path, rows in found]
    return places


def _fill(
    module: torch.nn.Module,
    header: Header,
    prefix: str,
    places: list[_Place],
    dtype: torch.dtype,
) -> None:
    scales = {
        name.rpartition(".")[0] + ".weight": name
        for name, _ in _own_names(header, prefix)
        if name.endswith(SCALES)
    }
    with TensorFile(header, prefix) as tensors:
        for place in places:
            unpack = _unpacker(header.tensors[prefix + place.name].dtype)
            tensor = take(tensors.read(place.name), place.rows, 0)
            scale = None
            if place.name in scales:
                scale = tensors.read(scales[place.name]).float()
                if scale.numel() > 1:
                    scale = take(scale.reshape(-1, 1), place.rows, 0)
            _set(module, place.path, tensor, unpack, scale, dtype)


def _unpacker(dtype: str) -> Unpack | None:
    try:
        return unpacker(dtype)
    except ImportError:
        raise ModelMissing(
            "GGUF needs the package gguf; install it with "
            "'pip install -r requirements-gguf.txt'"
        ) from None


def _set(
    module: torch.nn.Module,
    path: str,
    tensor: torch.Tensor,
    unpack: Unpack | None,
    scale: torch.Tensor | None,
    dtype: torch.dtype,
) -> None:
    parent_path, _, name = path.rpartition(".")
    parent = module.get_submodule(parent_path)
    linear = isinstance(parent, torch.nn.Linear) and name == "weight"
    if unpack is not None and linear and path.startswith(_BLOCKS):
        plain = cast(torch.nn.Linear, parent)
        above, _, last = parent_path.rpartition(".")
        packed = PackedLinear(plain, tensor, unpack, scale)
        setattr(module.get_submodule(above), last, packed)
        return
    old = getattr(parent, name)
    if unpack is not None:
        tensor = unpack(tensor, torch.float32).reshape(old.shape)
    if scale is not None:
        tensor = tensor.float() * scale
    tensor = tensor.to(dtype) if old.is_floating_point() else tensor
    if name in parent._parameters:
        parent._parameters[name] = torch.nn.Parameter(tensor, requires_grad=False)
    else:
        parent._buffers[name] = tensor


def _load_vae(
    module: torch.nn.Module,
    config: Mapping[str, Any],
    header: Header,
    prefix: str,
    dtype: torch.dtype,
) -> None:
    """Small, so that it is converted by diffusers itself."""
    with TensorFile(header, prefix) as tensors:
        read = {
            name: _whole(tensors.read(name), facts)
            for name, facts in _own_names(header, prefix)
        }
    try:
        converted = vae_tensors(read, config)
        converted = {n: tensor.to(dtype) for n, tensor in converted.items()}
        missing, unexpected = module.load_state_dict(
            converted, strict=False, assign=True
        )
    except (RuntimeError, KeyError, ValueError):
        raise ModelMissing(
            "the file is a VAE of another kind than the model's"
        ) from None
    # Counts of batches are of no use for pictures.
    if missing := [name for name in missing if "num_batches" not in name]:
        raise ModelMissing(f"the VAE lacks {listed(missing)}")
    if unexpected:
        raise ModelMissing(f"the VAE has {listed(unexpected)}, which is no part of it")


def _whole(tensor: torch.Tensor, facts: TensorFacts) -> torch.Tensor:
    """A tensor as the file has it, perhaps packed, in float32."""
    packed = facts.dtype in (*FLOAT8, *GGUF_KINDS)
    unpack = _unpacker(facts.dtype) if packed else None
    whole = tensor if unpack is None else unpack(tensor, torch.float32)
    return whole.float().reshape(facts.shape)


def _tie(module: Any) -> None:
    """Weights that are one and the same; a head that the file left out, as no picture
    needs it."""
    module.tie_weights()
    head = module.get_output_embeddings()
    if head is not None and head.weight.is_meta:
        head.weight = module.get_input_embeddings().weight


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a number"
