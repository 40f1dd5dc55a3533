"""The steps of a picture with a stock diffusers pipeline: encode the prompt, denoise,
decode.

``PipelineCall.prepare`` makes the arguments. Denoising is ``pipeline.__call__`` itself;
its end is where it calls its VAE's decoder, so it is the same for every pipeline class.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import torch

from flux_api.engine.pipeline_call import parameters_of
from flux_api.engine.prompt_cache import PromptCache
from flux_api.engine.text_encoder_layers import reading_no_further
from flux_api.engine.upsampler import Upsampler
from flux_api.loading.placement import is_modular

_EMBEDDINGS = ("prompt_embeds", "pooled_prompt_embeds")


@torch.no_grad()
def encode_prompt(
    pipeline: Any,
    kwargs: dict[str, Any],
    cache: PromptCache,
    weights: Hashable,
    device: torch.device,
) -> dict[str, Any]:
    """``kwargs`` of a call with embeddings on ``device`` in place of the prompts, out
    of ``cache`` where the same was encoded with the same ``weights``; those of a
    modular pipeline, whose blocks encode them, as they are."""
    if is_modular(pipeline):
        return kwargs
    rest, length = dict(kwargs), kwargs["max_sequence_length"]
    for prefix, prompt in prompts_of(pipeline, kwargs).items():

        def encode(prompt: str = prompt) -> tuple[torch.Tensor, ...]:
            with reading_no_further(pipeline) as reader:
                # The last one is the text's position ids, which the call makes again.
                # The device is given, as asking for it goes through all modules.
                *embeddings, _ = reader.encode_prompt(
                    prompt, device=device, max_sequence_length=length
                )
            return tuple(embeddings)

        embeddings = cache.get((weights, prompt, length), encode, device)
        rest.pop(f"{prefix}prompt", None)
        # FLUX.2 has no pooled embeddings.
        for name, tensor in zip(_EMBEDDINGS, embeddings, strict=False):
            rest[f"{prefix}{name}"] = tensor
    if "negative_prompt" not in parameters_of(pipeline):
        rest.pop("negative_prompt", None)
    return rest


def prompts_of(pipeline: Any, kwargs: dict[str, Any]) -> dict[str, str]:
    """The prompts of a call that are read, by what their names begin with: "" and
    "negative_"."""
    found = {"": kwargs.get("prompt")}
    accepted = parameters_of(pipeline)
    # A negative prompt is not read where nothing is guided away from it.
    if (kwargs.get("true_cfg_scale") or 1.0) > 1:
        found["negative_"] = kwargs.get("negative_prompt")
    elif "negative_prompt_embeds" in accepted and "negative_prompt" not in accepted:
        # Undistilled FLUX.2 klein would encode an empty one for every picture.
        guided = (kwargs.get("guidance_scale") or 1.0) > 1
        if guided and not pipeline.config.is_distilled:
            found["negative_"] = kwargs.get("negative_prompt", "")
    return {prefix: prompt for prefix, prompt in found.items() if prompt is not None}


def denoise(
    pipeline: Any,
    kwargs: dict[str, Any],
    transformer: Callable[..., Any],
    vae: Any,
    on_step_end: Callable[..., Any] | None = None,
    *,
    upsampler: Upsampler | None = None,
) -> torch.Tensor:
    """The latents that ``pipeline`` would hand to its VAE's decoder, (1, channels,
    height, width). It is called with ``transformer`` and ``vae`` in place of its own
    and a scheduler of its own, so that calls may overlap. ``on_step_end`` is the
    callback of classic pipelines; modular ones have none, but some an ``upsampler`` of
    prompts, which is called in place of theirs too."""
    view = copy.copy(pipeline)
    view.scheduler = copy.deepcopy(pipeline.scheduler)
    boundary = _Encoder(vae)
    # Past torch's and diffusers' own __setattr__, which take modules only.
    object.__setattr__(view, "transformer", transformer)
    object.__setattr__(view, "vae", boundary)
    if upsampler is not None:
        object.__setattr__(view, "prompt_upsampler", upsampler)
    if not is_modular(pipeline):
        kwargs = kwargs | {"callback_on_step_end": on_step_end}
    view(**kwargs, output_type="pt")
    if boundary.latents is None:
        raise RuntimeError("The pipeline never decoded its latents.")
    return boundary.latents


def first_call(
    pipeline: Any,
    kwargs: dict[str, Any],
    vae: Any,
    *,
    upsampler: Upsampler | None = None,
) -> dict[str, Any]:
    """The arguments of the first forward that :func:`denoise` would run; ``kwargs`` are
    as fresh afterwards as before."""
    generator = kwargs["generator"]
    state = generator.get_state()
    try:
        stopper = _Stopper(pipeline.transformer)
        denoise(pipeline, kwargs, stopper, vae, upsampler=upsampler)
    except _Called as call:
        return call.kwargs
    finally:
        generator.set_state(state)
    raise RuntimeError("The pipeline never called its transformer.")


class _Called(Exception):
    def __init__(self, kwargs: dict[str, Any]) -> None:
        super().__init__("a transformer was called")
        self.kwargs = kwargs


class _Stopper:
    """Stands where a pipeline's transformer stands, and ends it at the first call."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def __call__(self, **kwargs: Any) -> Any:
        raise _Called(kwargs)


@torch.no_grad()
def decode(pipeline: Any, vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """The picture (3, height, width) in 0..1 of what :func:`denoise` returned."""
    image = vae.decode(latents, return_dict=False)[0]
    # Clamping would make a white picture of what has overflowed.
    image = image.masked_fill(~torch.isfinite(image), float("nan"))
    pictures: Any = pipeline.image_processor.postprocess(image, output_type="pt")
    picture: torch.Tensor = pictures[0]
    return picture


class _Encoder:
    """A VAE that keeps the latents which it is to decode."""

    def __init__(self, vae: Any) -> None:
        self._vae = vae
        self.latents: torch.Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vae, name)

    def decode(self, latents: torch.Tensor, **_: Any) -> tuple[torch.Tensor]:
        """A black picture of one latent's size, which nobody looks at."""
        self.latents = latents
        return (torch.zeros_like(latents[:, :3]),)


def clean_latents(
    scheduler: Any, latents: torch.Tensor, velocity: torch.Tensor
) -> torch.Tensor:
    """What ``latents``, (batch, tokens, channels), would be without noise, judged by
    the ``velocity`` of the step that just ended."""
    # The scheduler has stepped on; img2img begins in the middle of it.
    sigma = scheduler.sigmas[scheduler.step_index].to(latents.device)
    clean: torch.Tensor = latents - sigma * velocity[:, : latents.shape[1]]
    return clean


def tiled(vae: Any) -> Any:
    """``vae`` over the same weights, working in tiles and slices: less memory, slightly
    other pixels."""
    view = copy.copy(vae)
    view.enable_tiling()
    view.enable_slicing()
    return view


def to_pixels(tensor: torch.Tensor) -> np.ndarray[Any, Any] | None:
    """uint8 (height, width, 3) of a (3, height, width) tensor in 0..1; None when it is
    not finite or nowhere above black."""
    tensor = tensor.float()
    if not bool(torch.isfinite(tensor).all()):
        return None
    # In the order of a picture's bytes already on the device: the host only copies.
    pixels = (tensor * 255).round().clamp(0, 255).to(torch.uint8)
    array: np.ndarray[Any, Any] = pixels.permute(1, 2, 0).contiguous().cpu().numpy()
    return array if array.any() else None
