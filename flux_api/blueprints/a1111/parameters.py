"""The parameters of AUTOMATIC1111's API, beside those that every API takes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import islice
from typing import Annotated, Any, Self

from pydantic import AliasChoices, Field, model_validator

from flux_api.errors import InvalidRequest
from flux_api.http.fields import Fields
from flux_api.http.parameters import MOST_IMAGES, Guidance, Parameters
from flux_api.http.values import Boolean, Integer, Number, Object, Text

SAMPLER, SCHEDULER = "Euler", "Simple"
CHECKPOINT = "sd_model_checkpoint"
# Of what is ignored so many are named.
_MOST_OPTIONS = 20
# A third part is for tools that weigh text encoders apart; it is ignored.
_LORA = re.compile(r"<lora:([^:<>]{1,1024})(?::([-+0-9.]{1,16}))?(?::[^<>]{0,64})?>")
OPTIONS: Mapping[str, object] = {
    "sd_vae": "Automatic",
    "CLIP_stop_at_last_layers": 1,
    "samples_format": "png",
    "img2img_color_correction": False,
    "face_restoration_model": None,
}
"""What clients look at beside the model; it stays as it is."""
# What clients always send, with the values that ask for nothing.
_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "sampler_name": ("", SAMPLER),
    "sampler_index": ("", SAMPLER),
    "scheduler": ("", SCHEDULER, "simple", "Automatic", "automatic"),
    "restore_faces": (False,),
    "tiling": (False,),
    "styles": ([],),
    "subseed_strength": (0,),
    "script_name": ("", "None"),
    "refiner_checkpoint": ("", "None"),
    "alwayson_scripts": ({},),
    # Of a mask: its edge, what is under it, and whether it alone is drawn.
    "mask_blur": (0, 4),
    "inpainting_fill": (0, 1),
    "inpaint_full_res": (False,),
    "resize_mode": (0,),
    "seed_resize_from_h": (-1, 0),
    "seed_resize_from_w": (-1, 0),
    "s_churn": (0,),
    "send_images": (True,),
}


class A1111Parameters(Parameters):
    """What ``txt2img`` and ``img2img`` take."""

    batch_size: Annotated[int, Field(ge=1, le=MOST_IMAGES), Integer] = 1
    """How many pictures, times n_iter."""
    n_iter: Annotated[int, Field(ge=1, le=MOST_IMAGES), Integer] = 1
    """How many pictures, times batch_size."""
    cfg_scale: Guidance = None
    """Nothing changes: it is Stable Diffusion's scale, clients send its default."""
    guidance_scale: Annotated[
        Guidance,
        Field(validation_alias=AliasChoices("distilled_cfg_scale", "guidance_scale")),
    ] = None
    """Flux' own guidance; ignored where it plays no part."""
    denoising_strength: Annotated[float | None, Field(ge=0.0, le=1.0), Number] = None
    """How far a picture may change, where the model takes a strength."""
    inpainting_mask_invert: Annotated[bool, Boolean] = False
    """Paint anew what is black in the mask, not what is white."""
    enable_hr: Annotated[bool, Boolean] = False
    """Refused: there is no second pass."""
    override_settings: Object = {}
    """Its sd_model_checkpoint is the model; other settings are ignored."""

    @model_validator(mode="after")
    def _check_what_there_is(self) -> Self:
        if self.enable_hr:
            message = "Hires. fix is not supported: turn it off (enable_hr)."
            raise InvalidRequest(message, param="enable_hr")
        if self.num_images > MOST_IMAGES:
            message = f"At most {MOST_IMAGES} pictures: batch_size times n_iter."
            raise InvalidRequest(message, param="n_iter")
        strengths = {self.strength, self.denoising_strength} - {None}
        if len(strengths) > 1:
            message = "'strength' and 'denoising_strength' say different things."
            raise InvalidRequest(message, param="strength")
        if self.model and self.checkpoint != self.model:
            message = f"'model' and '{CHECKPOINT}' say different things."
            raise InvalidRequest(message, param="model")
        return self

    @property
    def num_images(self) -> int:
        """How many pictures to make."""
        return self.batch_size * self.n_iter

    @property
    def checkpoint(self) -> str | None:
        """The model that this request names."""
        named = self.override_settings.get(CHECKPOINT) or self.model
        return named if isinstance(named, str) else None


class OptionsParameters(Fields):
    """What can be set for the caller's next requests."""

    sd_model_checkpoint: Annotated[str | None, Field(max_length=256), Text] = None
    """The model."""


class PictureParameters(Fields):
    """A picture to look at."""

    image: Annotated[str | None, Text] = None
    """Base64 or a data URL."""


def read_parameters(values: Mapping[str, Any]) -> A1111Parameters:
    """The parameters among ``values``, with the LoRAs that the prompt names as
    ``<lora:name:weight>``. InvalidRequest names what is wrong."""
    given, prompt = dict(values), values.get("prompt")
    if isinstance(prompt, str) and (found := list(_LORA.finditer(prompt))):
        tags = [{"name": tag[1], "adapter_weight": tag[2] or 1} for tag in found]
        # In any form that they have without tags; what is none is refused.
        others = A1111Parameters.read({"loras": given.get("loras")}).loras
        given["loras"] = [*map(asdict, others), *tags]
        given["prompt"] = _LORA.sub("", prompt).strip()
    return A1111Parameters.read(given)


def ignored(values: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each of ``values`` that asks for what is not done here."""
    for name, neutral in _NEUTRAL.items():
        if values.get(name) is not None and values[name] not in neutral:
            why = "it is not supported"
            if name.startswith(("sampler", "scheduler")):
                why = f"Flux models are sampled by {SAMPLER} alone"
            yield f"'{name}' was ignored: {why}."
    yield from islice(_ignored_options(values.get("override_settings")), _MOST_OPTIONS)


def _ignored_options(given: object) -> Iterator[str]:
    for name, value in given.items() if isinstance(given, dict) else ():
        if name != CHECKPOINT and value != OPTIONS.get(name, ...):
            option = f"override_settings.{name[:64]}"
            yield f"{option!a} was ignored: it cannot be set."
