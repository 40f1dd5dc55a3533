"""The tables of the file of MODEL_INFO: their keys, and the values that these take."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from flux_api.models.info import PIPELINES, TaskName
from flux_api.models.sizes import SIDE_BOUNDS
from flux_api.settings import Offload, Quantization

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _refuse(why: str) -> PydanticCustomError:
    return PydanticCustomError("wrong", "{why}", {"why": why})


def _check_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise _refuse("expected A-Z, a-z, 0-9, '.', '_' and '-'")
    return name


def _check_text(text: str) -> str:
    if not text.strip():
        raise _refuse("expected a text")
    return text


def _check_scalar(value: object) -> object:
    if not isinstance(value, str | int | float | bool):
        raise _refuse("expected a text, a number, true or false")
    return value


def _check_pipeline(name: str) -> str:
    if name not in PIPELINES:
        raise _refuse(f"expected one of {', '.join(sorted(PIPELINES))}")
    return name


def _check_file(name: str) -> str:
    if not name.endswith(".safetensors"):
        raise _refuse("expected a .safetensors file")
    return name


Name = Annotated[str, AfterValidator(_check_name)]
TextValue = Annotated[str, AfterValidator(_check_text)]
_LEAST, _MOST = SIDE_BOUNDS
Side = Annotated[int, Field(ge=_LEAST, le=_MOST)]


class _Table(BaseModel):
    """A table of the file; what it does not set stays as it was."""

    # Strict: TOML has types, and "8" for a number is a slip.
    model_config = ConfigDict(extra="forbid", strict=True)


class SizesTable(_Table):
    """The sizes that a model draws."""

    multiple: Annotated[int, Field(ge=1, le=512)] = 16
    minimum: Side = _LEAST
    maximum: Side = _MOST
    default: Annotated[list[Side], Field(min_length=2, max_length=2)] = []
    max_pixels: Annotated[int, Field(ge=256, le=2**26)] = 2**26


class LoraTable(_Table):
    """Where a LoRA lies."""

    source: TextValue
    weight_name: Annotated[str, AfterValidator(_check_file)]


class TaskTable(_Table):
    """How a model does one task."""

    pipeline: Annotated[str, AfterValidator(_check_pipeline)] = ""
    num_inference_steps: Annotated[int, Field(ge=1, le=200)] = 1
    base_model: TextValue = ""
    prior: TextValue = ""
    guidance_scale: Annotated[float, Field(ge=0.0, le=100.0)] = 0.0
    guidance_parameter: Literal["guidance_scale", "true_cfg_scale"] | None = None
    negative_prompt: bool = False
    strength: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    max_images: Annotated[int, Field(ge=1, le=16)] = 1
    max_sequence_length: Annotated[int, Field(ge=1, le=8192)] = 1
    prompt: TextValue = ""
    loras: dict[Name, Annotated[float, Field(ge=-10.0, le=10.0)]] = {}
    arguments: dict[Name, Annotated[Any, AfterValidator(_check_scalar)]] = {}


class ModelTable(_Table):
    """A model: a table at the top of the file."""

    like: str = ""
    base_model: TextValue = ""
    description: TextValue = ""
    licence: TextValue = ""
    native_size: Side = 16
    shared_components: list[str] = []
    skip_blocks: list[str] = []
    dtype: dict[Name, Literal["bfloat16", "float16", "float32"]] = {}
    sizes: SizesTable = SizesTable()
    transformer: TextValue = ""
    vae: TextValue = ""
    text_encoder: TextValue = ""
    text_encoder_2: TextValue = ""
    revision: TextValue = ""
    quantization: Quantization = "none"
    offload: Offload = "none"
    loras: dict[Name, LoraTable] = {}
    tasks: dict[TaskName, TaskTable] = {}
