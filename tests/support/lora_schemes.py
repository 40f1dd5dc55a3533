"""LoRA files in the key schemes of many trainers, each with what it adds as matrices.

Layers have the names of one of two layouts: diffusers', or Black Forest Labs', whose
fused matrices are cut here by hand, independently of the server.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

import torch
from safetensors.torch import save_file

from tests.support import tiny_checkpoints

WEIGHT = 0.8

_ATTENTION = {
    "double_blocks.{}.img_attn.qkv": ["attn.to_q", "attn.to_k", "attn.to_v"],
    "double_blocks.{}.txt_attn.qkv": [
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
    ],
    "double_blocks.{}.img_attn.proj": ["attn.to_out.0"],
    "double_blocks.{}.txt_attn.proj": ["attn.to_add_out"],
}
_BLOCKS = {
    "flux1": _ATTENTION
    | {
        "double_blocks.{}.img_mlp.0": ["ff.net.0.proj"],
        "double_blocks.{}.img_mlp.2": ["ff.net.2"],
        "double_blocks.{}.txt_mlp.0": ["ff_context.net.0.proj"],
        "double_blocks.{}.txt_mlp.2": ["ff_context.net.2"],
        "double_blocks.{}.img_mod.lin": ["norm1.linear"],
        "double_blocks.{}.txt_mod.lin": ["norm1_context.linear"],
        "single_blocks.{}.linear1": [
            *("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
        ],
        "single_blocks.{}.linear2": ["proj_out"],
        "single_blocks.{}.modulation.lin": ["norm.linear"],
    },
    "klein": _ATTENTION
    | {
        "double_blocks.{}.img_mlp.0": ["ff.linear_in"],
        "double_blocks.{}.img_mlp.2": ["ff.linear_out"],
        "double_blocks.{}.txt_mlp.0": ["ff_context.linear_in"],
        "double_blocks.{}.txt_mlp.2": ["ff_context.linear_out"],
        "single_blocks.{}.linear1": ["attn.to_qkv_mlp_proj"],
        "single_blocks.{}.linear2": ["attn.to_out"],
    },
}
_OTHERS = {
    "flux1": {
        "img_in": "x_embedder",
        "txt_in": "context_embedder",
        "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
        "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
        "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
        "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
        "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
        "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
        "final_layer.linear": "proj_out",
        "final_layer.adaLN_modulation.1": "norm_out.linear",
    },
    "klein": {
        "img_in": "x_embedder",
        "txt_in": "context_embedder",
        "time_in.in_layer": "time_guidance_embed.timestep_embedder.linear_1",
        "time_in.out_layer": "time_guidance_embed.timestep_embedder.linear_2",
        "double_stream_modulation_img.lin": "double_stream_modulation_img.linear",
        "double_stream_modulation_txt.lin": "double_stream_modulation_txt.linear",
        "single_stream_modulation.lin": "single_stream_modulation.linear",
        "final_layer.linear": "proj_out",
        "final_layer.adaLN_modulation.1": "norm_out.linear",
    },
}


def bfl_names(family, blocks=2):
    """Every layer by Black Forest Labs' name, with diffusers' names of its parts."""
    names = {name: [ours] for name, ours in _OTHERS[family].items()}
    for name, parts in _BLOCKS[family].items():
        block = (
            "transformer_blocks" if "double" in name else "single_transformer_blocks"
        )
        for number in range(blocks):
            paths = [f"{block}.{number}.{part}" for part in parts]
            names[name.format(number)] = paths
    return names


def cut(name, matrix, sizes):
    """The parts of a fused ``matrix`` (or bias), in diffusers' layout."""
    if "adaLN_modulation" in name:
        shift, scale = matrix.chunk(2)
        return [torch.cat([scale, shift])]
    return list(matrix.split(sizes))


@dataclass
class Written:
    """A file's tensors and metadata, and what it does to the layers of a component:
    matrix and bias to add, or a function of the old weight to the new one."""

    tensors: dict = field(default_factory=dict)
    metadata: dict = field(default_factory=dict)
    added: dict = field(default_factory=dict)
    biases: dict = field(default_factory=dict)
    component: str = "transformer"

    def save(self, path):
        """Write the file."""
        tensors = {k: t.contiguous().clone() for k, t in self.tensors.items()}
        save_file(tensors, path, self.metadata or None)

    @property
    def digest(self):
        """A name for what it does, the same for files that spell the same otherwise."""
        made = hashlib.sha256(self.component.encode())
        for kind in (self.added, self.biases):
            for path, matrix in sorted(kind.items()):
                made.update(f"{path} {tuple(matrix.shape)}".encode())
                made.update(matrix.float().contiguous().numpy().data)
        return made.hexdigest()[:16]

    def join(self, other):
        """One file of both."""
        for name in ("tensors", "metadata", "added", "biases"):
            getattr(self, name).update(getattr(other, name))
        return self


class Writer:
    """Writes LoRAs for the linear layers of ``component``, the tiny one unless
    ``module`` is given; ``only`` chooses layers by words in diffusers' names."""

    def __init__(self, family, component="transformer", seed=0, module=None):
        self.family, self.component = family, component
        self.module = module or component_of(family, component)
        self.layers = {
            path: layer
            for path, layer in self.module.named_modules()
            if isinstance(layer, torch.nn.Linear) and path != "lm_head"
        }
        self.random = torch.Generator().manual_seed(seed)
        # What text encoders do is faint in a random model's pictures.
        self.size = 0.3 if component == "transformer" else 2.0

    def rand(self, *shape, size=None):
        """Random numbers."""
        size = size or self.size
        return torch.randn(*shape, generator=self.random) * size

    def groups(self, layout, only=()):
        """The name of each layer in ``layout`` and its parts."""
        names = {path: [path] for path in self.layers}
        if layout == "bfl":
            names = bfl_names(self.family)
        return {
            name: paths
            for name, paths in names.items()
            if not only or any(word in name for word in only)
        }

    def write(self, spell, *, layout="diffusers", only=(), kind="lora", **options):
        """A file whose keys are ``spell(name)`` + ending."""
        made = Written(component=self.component)
        for index, (name, paths) in enumerate(self.groups(layout, only).items()):
            sizes = [self.layers[path].out_features for path in paths]
            columns = self.layers[paths[0]].in_features
            shape = (sum(sizes), columns)
            maker = getattr(self, f"_{kind}")
            tensors, matrix = maker(spell(name), shape, index, **options)
            made.tensors |= tensors
            parts = cut(name, matrix, sizes)
            made.added |= dict(zip(paths, parts, strict=True))
        return made

    def _lora(
        self,
        key,
        shape,
        index,
        *,
        down="lora_A",
        up="lora_B",
        alpha=None,
        dtype=torch.float32,
        rank=2,
        varying=False,
        end=".weight",
    ):
        rank = rank + index % 3 if varying else rank
        a = self.rand(rank, shape[1]).to(dtype)
        b = self.rand(shape[0], rank).to(dtype)
        tensors = {f"{key}.{down}{end}": a, f"{key}.{up}{end}": b}
        scale = 1.0
        if alpha is not None:
            tensors[f"{key}.alpha"] = torch.tensor(float(alpha))
            scale = alpha / rank
        return tensors, scale * (b.float() @ a.float())

    def _full(self, key, shape, index):
        matrix = self.rand(*shape, size=0.2)
        return {f"{key}.diff": matrix}, matrix

    def norms(self):
        """A difference for each norm of queries and keys."""
        return {
            path: self.rand(*norm.weight.shape)
            for path, norm in self.module.named_modules()
            if isinstance(norm, torch.nn.RMSNorm)
        }

    def _loha(self, key, shape, index, *, alpha=1.0):
        one, three = self.rand(shape[0], 2, size=0.6), self.rand(shape[0], 2, size=0.6)
        two, four = self.rand(2, shape[1], size=0.6), self.rand(2, shape[1], size=0.6)
        factors = (one, two, three, four)
        names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
        tensors = {f"{key}.{n}": t for n, t in zip(names, factors, strict=True)}
        tensors[f"{key}.alpha"] = torch.tensor(alpha)
        return tensors, (one @ two) * (three @ four) * (alpha / 2)

    def _lokr(self, key, shape, index, *, low_rank=False, alpha=None):
        first = self.rand(4, 2, size=0.5)
        rows, columns = shape[0] // 4, shape[1] // 2
        tensors = {f"{key}.lokr_w1": first}
        if low_rank:
            one, two = self.rand(rows, 2, size=0.4), self.rand(2, columns, size=0.4)
            tensors |= {f"{key}.lokr_w2_a": one, f"{key}.lokr_w2_b": two}
            second = one @ two * (alpha / 2)
        else:
            second = self.rand(rows, columns, size=0.2)
            tensors[f"{key}.lokr_w2"] = second
        if alpha is not None:
            tensors[f"{key}.alpha"] = torch.tensor(float(alpha))
        return tensors, torch.kron(first, second)


def component_of(family, name):
    """The module ``name`` of the family's tiny checkpoint, random weights."""
    if name == "transformer":
        makers = {
            "flux1": tiny_checkpoints.flux1_transformer,
            "klein": tiny_checkpoints.flux2_transformer,
        }
        return makers[family]()
    if family == "klein":
        return tiny_checkpoints._klein("Flux2KleinPipeline").text_encoder
    return getattr(tiny_checkpoints._flux1("FluxPipeline"), name)


def flat(name):
    """As kohya's trainers write a path."""
    return name.replace(".", "_")


def metadata_of(**config):
    """What PEFT and diffusers write beside a LoRA."""
    packed = {f"transformer.{key}": value for key, value in config.items()}
    return {"lora_adapter_metadata": json.dumps(packed)}
