"""Write the averaged weights as a plain diffusers folder that can be shipped."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FluxKontextPipeline

from flux_api.loading.latent_preview import fit
from flux_api.loading.preview_fits import FILE, encoder_hash, write_fit
from training.model import load_pipeline, trained_parts
from training.sources import STYLES, WORDS

SHARD = "15MB"  # a file host and a reviewer's diff both stay below 16 MiB
SUMS = "SHA256SUMS"


def export_pipeline(
    pipeline: FluxKontextPipeline, average: list[torch.Tensor], target: Path
) -> None:
    """Put the averages into the pipeline and write it in bfloat16."""
    parameters = [p for part in trained_parts(pipeline) for p in part.parameters()]
    with torch.no_grad():
        torch._foreach_copy_(parameters, average)
    export_weights(pipeline, target)


def export_weights(pipeline: FluxKontextPipeline, target: Path) -> None:
    """Write the pipeline in bfloat16, as it is shipped."""
    pipeline.to(torch.bfloat16)
    pipeline.save_pretrained(target, max_shard_size=SHARD)
    for config in target.rglob("*.json"):
        _forget_origin(config)
    compact_tokenizers(target)
    write_preview(target)
    target.joinpath("NOTICE").write_text(notice())
    for file in target.rglob("*"):
        # The libraries write 0600, which a server under another user can't read.
        file.chmod(0o755 if file.is_dir() else 0o644)
    write_sums(target)


def write_preview(folder: Path) -> None:
    """Write the map of its previews, in 32 bits as a CPU uses the autoencoder."""
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    write_fit(folder / FILE, encoder_hash(vae), fit(vae))
    folder.joinpath(FILE).chmod(0o644)


def compact_tokenizers(folder: Path) -> None:
    """Write the tokenizers without white space, which is half of their size.

    The padding of the last call is none of the tokenizer's own either.
    """
    for file in folder.glob("tokenizer*/tokenizer.json"):
        content = json.loads(file.read_text()) | {"padding": None, "truncation": None}
        short = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        file.write_text(short + "\n")


def _forget_origin(config: Path) -> None:
    """Drop the folder of this machine that a part was loaded from."""
    content = json.loads(config.read_text())
    if content.pop("_name_or_path", None) is not None:
        config.write_text(json.dumps(content, indent=2) + "\n")


def write_sums(folder: Path) -> None:
    """List the sha256 of every file that the pipelines load."""
    files = sorted(
        f for f in folder.rglob("*") if f.suffix in (".json", ".safetensors")
    )
    lines = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(folder)}\n"
        for file in files
    ]
    folder.joinpath(SUMS).write_text("".join(lines))


def notice() -> str:
    """Return the attributions that the licences of the sources ask for."""
    lines = [
        "The weights in this folder were trained by this project on pictures from:",
        "",
    ]
    for source in STYLES.values():
        lines += [
            f"* {source.credit} ({source.licence})",
            f"  {source.url}",
            f"  drawn from the npm package {source.package} {source.version}",
        ]
    lines += ["", "The words come from:", ""]
    for source in WORDS.values():
        lines += [
            f"* {source.credit} ({source.licence})",
            f"  {source.url}",
            f"  npm package {source.package} {source.version}",
        ]
    lines += [
        "",
        "Apache-2.0: https://www.apache.org/licenses/LICENSE-2.0",
        "CC-BY-4.0: https://creativecommons.org/licenses/by/4.0/",
        "MIT: https://opensource.org/license/mit",
        "",
        "For training the pictures were scaled, recoloured, mirrored, turned, blurred.",
        "None of these projects or companies has endorsed this model.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Export the state of a training run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--init", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--vae", type=Path, help="an autoencoder to ship instead")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    pipeline = load_pipeline(options.init)
    if options.vae:
        vae = AutoencoderKL.from_pretrained(options.vae)
        for key in ("scaling_factor", "shift_factor"):
            vae.register_to_config(**{key: pipeline.vae.config[key]})
        pipeline.register_modules(vae=vae)
    state = torch.load(options.state, map_location="cpu", weights_only=False)
    export_pipeline(pipeline, state["average"], options.out)
    size = sum(file.stat().st_size for file in options.out.rglob("*") if file.is_file())
    print(f"step {state['step']}: {size / 2**20:.2f} MiB in {options.out}")


if __name__ == "__main__":
    main()
