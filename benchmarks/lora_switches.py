"""``python -m benchmarks.lora_switches``: two LoRAs in turn at FLUX.1's depth, kept
(``FLUX_LORA_CACHE_MB``) and read anew each time; and a forward with one that is always
on, beside the weights and fused into them.

A transformer with all of FLUX.1's 57 blocks and a hundredth of its width: names and
layers count here, not the sizes of matrices.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from safetensors.torch import save_file

from benchmarks.report import Report, in_turns, read_options
from flux_api.core import Lora
from flux_api.loading.loras import Adapters
from flux_api.models.lora_files import LoraFolder

RANK = 16


def main() -> None:
    """Print one line a measurement."""
    options = read_options(__doc__, rounds=10)
    rounds, report = options.rounds, Report("lora_switches", options.results)
    transformer = FluxTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 6, 6),
        guidance_embeds=True,
    )
    with tempfile.TemporaryDirectory() as place:
        for seed, name in enumerate("ab"):
            layers = _write(Path(place, f"{name}.safetensors"), transformer, seed)
        report.add("layers that each changes", layers, "")
        find = LoraFolder(Path(place)).find
        pipeline = SimpleNamespace(transformer=transformer)
        kept = Adapters(pipeline, {}, find, kept_bytes=1 << 30)
        anew = Adapters(pipeline, {}, find, kept_bytes=0)
        _switch(kept)
        warm, cold = in_turns(rounds, lambda: _switch(kept), lambda: _switch(anew))
        kept.reset()
        plain, beside, fused = (copy.deepcopy(transformer) for _ in range(3))
        for changed in (beside, fused):
            own = {"a": Path(place, "a.safetensors")}
            adapters = Adapters(SimpleNamespace(transformer=changed), own, find)
            adapters.apply((Lora("a", 1.0),))
            if changed is fused:
                adapters.fuse()
        without, hooked, within = in_turns(
            rounds, *(partial(_forward, each) for each in (plain, beside, fused))
        )
    # A switch there and one back.
    warm_ms, cold_ms = (statistics.median(times) * 500 for times in (warm, cold))
    report.add("a switch, kept", warm_ms, "ms")
    report.add("a switch, read anew", cold_ms, "ms")
    report.add("kept over read anew", warm_ms / cold_ms, "x")
    without, hooked, within = map(statistics.median, (without, hooked, within))
    report.add("a forward, LoRA beside the weights over none", hooked / without, "x")
    report.add("a forward, LoRA fused over none", within / without, "x")
    report.write()


def _forward(transformer: Any) -> None:
    with torch.inference_mode():
        transformer(
            hidden_states=torch.zeros(1, 64, transformer.config.in_channels),
            encoder_hidden_states=torch.zeros(1, 16, 32),
            pooled_projections=torch.zeros(1, 32),
            timestep=torch.zeros(1),
            guidance=torch.zeros(1),
            img_ids=torch.zeros(64, 3),
            txt_ids=torch.zeros(16, 3),
        )


def _switch(adapters: Adapters) -> None:
    for name in "ab":
        adapters.apply((Lora(name, 1.0),))


def _write(path: Path, transformer: torch.nn.Module, seed: int) -> int:
    """A LoRA for every linear layer; how many there are."""
    torch.manual_seed(seed)
    tensors = {}
    for name, layer in transformer.named_modules():
        if isinstance(layer, torch.nn.Linear):
            prefix = f"transformer.{name}"
            down, up = (RANK, layer.in_features), (layer.out_features, RANK)
            tensors[f"{prefix}.lora_A.weight"] = torch.randn(down)
            tensors[f"{prefix}.lora_B.weight"] = torch.randn(up)
    save_file(tensors, path)
    return len(tensors) // 2


if __name__ == "__main__":
    main()
