"""The model sets that come with the server: Hub ids, not weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from flux_api.core import Lora
from flux_api.models.info import ModelInfo, TaskDefaults, TaskName
from flux_api.models.sizes import SizeRules
from flux_api.models.sources import File, Folder, Repository

_TINY = (Path(__file__).parents[2] / "flux_server" / "tiny").resolve()

# For models without an image prior: an edit that asks for the picture once more.
_VARIATION = (
    "Create a new variation of this image: the same subject, style and colors, "
    "with a different composition."
)
_APACHE = "Apache-2.0: free, commercial use included"
_FLUX1_LICENCE = (
    "FLUX.1 [dev] Non-Commercial License: no commercial use of the model without a "
    "licence of Black Forest Labs; accept it on each model's page before the download"
)
_FLUX2_LICENCE = (
    "FLUX Non-Commercial License v2.1: no commercial use of the model without a "
    "licence of Black Forest Labs; accept it on the model's page before the download"
)
_FLUX3_LICENCE = (
    "FLUX Kommunity License v1.0: non-commercial; commercial use of outputs only below "
    "US$5M of yearly revenue, with a content filter and disclosure of AI"
)

# Sizes that the families were trained for; more is refused by name, not attempted.
_TWO_MEGAPIXELS = SizeRules(max_pixels=2048 * 1024)
_FOUR_MEGAPIXELS = SizeRules(max_pixels=2048 * 2048)
_FLUX3_SIZES = SizeRules(maximum=4096, max_pixels=2048 * 2048)


def _bfl(name: str) -> Repository:
    """A repository of Black Forest Labs."""
    return Repository(f"black-forest-labs/{name}")


def _tiny() -> ModelInfo:
    def base(
        pipeline: str, guidance: float, strength: float | None = None
    ) -> TaskDefaults:
        return TaskDefaults(
            pipeline=pipeline,
            num_inference_steps=12,
            guidance_scale=guidance,
            guidance_parameter="true_cfg_scale",
            negative_prompt=True,
            strength=strength,
        )

    return ModelInfo(
        base_model=Folder(_TINY),
        description="the embedded demo model: draws emoji, runs on any CPU",
        licence="MIT; trained on openly licensed emoji art, see models/tiny/NOTICE",
        native_size=64,
        sizes=SizeRules(default=(512, 512)),
        tasks={
            "generate": base("FluxPipeline", 3.5),
            "edit": base("FluxKontextPipeline", 2.0),
            "variation": base("FluxImg2ImgPipeline", 1.0, strength=0.6),
            "inpaint": base("FluxInpaintPipeline", 3.5, strength=1.0),
        },
    )


def _klein(name: str, licence: str, description: str) -> ModelInfo:
    """FLUX.2 klein: 4 steps without guidance, one checkpoint for everything."""
    base = TaskDefaults(
        pipeline="Flux2KleinPipeline",
        num_inference_steps=4,
        guidance_scale=1.0,
    )
    edit = replace(base, max_images=10)
    return ModelInfo(
        base_model=_bfl(name),
        description=description,
        licence=licence,
        sizes=_FOUR_MEGAPIXELS,
        tasks={
            "generate": base,
            "edit": edit,
            "variation": replace(base, prompt=_VARIATION),
            "inpaint": replace(
                base, pipeline="Flux2KleinInpaintPipeline", strength=1.0
            ),
        },
    )


def _with_rows(info: ModelInfo, *without: TaskName, **changes: object) -> ModelInfo:
    """``info`` with ``changes`` in every task, less the tasks ``without``."""
    tasks = {
        task: replace(base, **changes)  # type: ignore[arg-type]
        for task, base in info.tasks.items()
        if task not in without
    }
    return replace(info, tasks=tasks)


def _klein_base(name: str, licence: str, description: str) -> ModelInfo:
    return _with_rows(
        _klein(name, licence, description),
        num_inference_steps=50,
        guidance_scale=4.0,
        guidance_parameter="guidance_scale",
        negative_prompt=True,
    )


_FLUX1_EDIT = TaskDefaults(
    pipeline="FluxKontextPipeline",
    base_model=_bfl("FLUX.1-Kontext-dev"),
    num_inference_steps=28,
    guidance_scale=2.5,
    guidance_parameter="guidance_scale",
)


def _flux1() -> ModelInfo:
    generate = TaskDefaults(
        pipeline="FluxPipeline",
        num_inference_steps=8,
        guidance_scale=3.5,
        guidance_parameter="guidance_scale",
        loras=(Lora("turbo-alpha", 1.0),),
    )
    return ModelInfo(
        base_model=_bfl("FLUX.1-dev"),
        description="FLUX.1: dev with Turbo-Alpha, Kontext, Redux and Fill",
        licence=_FLUX1_LICENCE,
        sizes=_TWO_MEGAPIXELS,
        # The same files in FLUX.1-dev, Kontext-dev and Fill-dev.
        shared_components=(
            *("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"),
            "vae",
        ),
        lora_files={
            "turbo-alpha": File(
                Repository("alimama-creative/FLUX.1-Turbo-Alpha"),
                "diffusion_pytorch_model.safetensors",
            )
        },
        tasks={
            "generate": generate,
            "edit": _FLUX1_EDIT,
            "variation": replace(
                generate, prior=_bfl("FLUX.1-Redux-dev"), guidance_scale=2.5
            ),
            "inpaint": replace(
                _FLUX1_EDIT,
                pipeline="FluxFillPipeline",
                base_model=_bfl("FLUX.1-Fill-dev"),
                num_inference_steps=50,
                guidance_scale=30.0,
            ),
        },
    )


def _schnell() -> ModelInfo:
    base = TaskDefaults(
        pipeline="FluxPipeline",
        num_inference_steps=4,
        guidance_scale=0.0,
        max_sequence_length=256,
    )
    image = replace(base, pipeline="FluxImg2ImgPipeline", strength=0.9)
    return ModelInfo(
        base_model=_bfl("FLUX.1-schnell"),
        description="FLUX.1 schnell: 4 steps",
        licence=_APACHE + "; accept the terms on the model's page before the download",
        sizes=_TWO_MEGAPIXELS,
        tasks={
            "generate": base,
            "edit": image,
            "variation": replace(image, strength=0.75),
            "inpaint": replace(base, pipeline="FluxInpaintPipeline", strength=1.0),
        },
    )


def _flux2_dev() -> ModelInfo:
    base = TaskDefaults(
        pipeline="Flux2Pipeline",
        num_inference_steps=28,
        guidance_scale=4.0,
        guidance_parameter="guidance_scale",
    )
    return ModelInfo(
        base_model=_bfl("FLUX.2-dev"),
        description="FLUX.2 dev: 32B, with several references",
        licence=_FLUX2_LICENCE,
        sizes=_FOUR_MEGAPIXELS,
        tasks={
            "generate": base,
            "edit": replace(base, max_images=10),
            "variation": replace(base, prompt=_VARIATION),
        },
    )


def _flux3_klein() -> ModelInfo:
    base = TaskDefaults(
        pipeline="Flux3DistilledModularPipeline",
        num_inference_steps=16,
        guidance_scale=1.0,
    )
    return ModelInfo(
        base_model=_bfl("flux-3-image-klein"),
        description="FLUX 3 Image Klein with its prompt upsampler",
        licence=_FLUX3_LICENCE,
        sizes=_FLUX3_SIZES,
        tasks={
            "generate": base,
            "edit": replace(base, max_images=10),
            "variation": replace(base, prompt=_VARIATION),
        },
    )


_KLEIN_4B = _klein(
    "FLUX.2-klein-4B", _APACHE, "FLUX.2 klein 4B: the one to begin with on a GPU"
)
_KLEIN_KV = _with_rows(
    _klein(
        "FLUX.2-klein-9b-kv",
        _FLUX2_LICENCE,
        "FLUX.2 klein 9B-KV: references are computed once, for faster edits",
    ),
    "inpaint",
    pipeline="Flux2KleinKVPipeline",
)

MODEL_INFO: dict[str, ModelInfo] = {
    "tiny": _tiny(),
    "klein-4b": _KLEIN_4B,
    "klein-9b": _klein("FLUX.2-klein-9B", _FLUX2_LICENCE, "FLUX.2 klein 9B"),
    "klein-9b-kv": _KLEIN_KV,
    "klein-base-4b": _klein_base(
        "FLUX.2-klein-base-4B",
        _APACHE,
        "FLUX.2 klein base 4B: undistilled, 50 steps with guidance",
    ),
    "flux2-dev": _flux2_dev(),
    "flux1": _flux1(),
    "schnell": _schnell(),
    "flux3-klein": _flux3_klein(),
    "flux3-klein-direct": replace(
        _flux3_klein(),
        description="FLUX 3 Image Klein without its prompt upsampler: prompts as given",
        skip_blocks=("prompt_upsampler",),
    ),
}
"""The shipped sets by name; the file of the variable MODEL_INFO changes and adds."""
