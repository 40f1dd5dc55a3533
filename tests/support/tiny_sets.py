"""All shipped model sets over tiny random checkpoints, and LoRAs for them."""

from __future__ import annotations

import pickle
from pathlib import Path

from safetensors.numpy import load_file, save_file

from tests.support import tiny_checkpoints

# Set, then the checkpoint that stands for its base model.
BASES = {
    "klein-4b": "klein",
    "klein-9b": "klein",
    "klein-9b-kv": "klein-kv",
    "klein-base-4b": "klein-base",
    "flux2-dev": "flux2-dev",
    "schnell": "schnell",
    "flux3-klein": "flux3-klein",
    "flux3-klein-direct": "flux3-klein",
    "flux1": "dev",
}


def write_sets(folder, names=tuple(BASES), side=None):
    """Build what the sets ``names`` need under ``folder``; gives the MODEL_INFO file
    that points them there. By itself a set draws ``side`` x ``side`` pixels, which is
    what a server draws first; None leaves it the 1024 that it is shipped with."""
    lines = []
    needed = {BASES[name] for name in names}
    if "flux1" in names:
        needed |= {"kontext", "fill", "redux"}
        write_lora(folder / "turbo.safetensors", seed=3)
    for checkpoint in sorted(needed):
        tiny_checkpoints.build(checkpoint, folder / checkpoint)
    for name in names:
        lines += [f"[{name}]", f'base_model = "{folder / BASES[name]}"']
        if side is not None:
            lines.append(f"sizes.default = [{side}, {side}]")
        lines += EXTRA.get(name, "").format(folder=folder).splitlines()
    path = folder / "models.toml"
    path.write_text("\n".join(lines))
    return path


EXTRA = {
    "flux1": """\
loras.turbo-alpha = {{ source = "{folder}", weight_name = "turbo.safetensors" }}
tasks.edit.base_model = "{folder}/kontext"
tasks.inpaint.base_model = "{folder}/fill"
tasks.variation.prior = "{folder}/redux"
""",
    # A random upsampler would talk to its limit.
    "flux3-klein": """\
tasks.generate.arguments.max_new_tokens = 8
tasks.edit.arguments.max_new_tokens = 8
tasks.variation.arguments.max_new_tokens = 8
""",
}


def write_lora(path, *, family="flux1", rank=2, seed=0):
    """A LoRA for a tiny checkpoint of ``family``."""
    transformer, pipeline = {
        "flux1": (tiny_checkpoints.flux1_transformer, "FluxPipeline"),
        "klein": (tiny_checkpoints.flux2_transformer, "Flux2KleinPipeline"),
        "flux3": (tiny_checkpoints.flux3_transformer, "Flux3ModularPipeline"),
    }[family]
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    if family == "klein":
        targets.append("to_qkv_mlp_proj")  # of the single blocks, which FLUX.1 lacks
    tiny_checkpoints.build_lora(
        path, transformer(), pipeline, rank=rank, seed=seed, targets=targets
    )
    return path


BAD_LORAS = ("pickle", "corrupt", "shapes", "strange", "norms", "weights")


def write_loras(folder):
    """Two LoRAs a family, and files that are none; a pickle that is ever loaded leaves
    the file TRACES there. Gives the folder."""
    folder.mkdir()
    for family in ("flux1", "klein", "flux3"):
        write_lora(folder / f"{family}.a.safetensors", family=family, seed=11)
        write_lora(folder / f"{family}.b.safetensors", family=family, rank=4, seed=12)
    good, traces = folder / "flux1.a.safetensors", folder / "TRACES"
    (folder / "pickle.safetensors").write_bytes(pickle.dumps(Payload(traces)))
    # diffusers falls back to a pickle where it may choose the format itself.
    (folder / "beside.bin").write_bytes(pickle.dumps(Payload(traces)))
    (folder / "corrupt.safetensors").write_bytes(good.read_bytes()[:-100])
    tensors = load_file(good)
    shapes = {k: v[..., :-1].copy() if "lora_A" in k else v for k, v in tensors.items()}
    save_file(shapes, folder / "shapes.safetensors")
    strange = {
        f"nowhere.{number}.lora_A.weight": v
        for number, v in enumerate(tensors.values())
    }
    save_file(strange, folder / "strange.safetensors")
    norms = tensors | {
        "transformer.norm_out.linear.weight": next(iter(shapes.values()))
    }
    save_file(norms, folder / "norms.safetensors")
    first = next(iter(tensors.values()))
    save_file({"weights": first}, folder / "weights.safetensors")
    (folder / "link.safetensors").symlink_to("/etc/hostname")
    return folder


class Payload:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return Path.touch, (Path(self.path),)
