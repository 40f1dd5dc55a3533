"""Which models a server offers, by its settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flux_api.errors import BadSetting
from flux_api.models.catalog import MODEL_INFO
from flux_api.models.file_sets import with_path
from flux_api.models.info import ModelInfo, find_model
from flux_api.models.lora_files import LoraFolder
from flux_api.models.near_names import did_you_mean
from flux_api.models.sources import is_repository_id
from flux_api.models.toml_file import load_models
from flux_api.models.upscaling import with_upscale
from flux_api.settings import Settings


def offered_models(settings: Settings) -> dict[str, ModelInfo]:
    """The sets that requests may ask for, the default first: those of FLUX_MODELS, else
    those that MODEL_INFO adds. BadSetting where one is unknown, or what MODEL_INFO says
    of them is wrong."""
    known = load_models(settings.model_info, MODEL_INFO)
    default, known = with_path(
        known, settings.model, settings.model_like, settings.components
    )
    for variable, names in (
        ("FLUX_MODELS", settings.models),
        ("FLUX_MODEL", (default,)),
        ("FLUX_BFL_MODELS", tuple(name for _, name in settings.bfl_models)),
    ):
        for name in names:
            if name not in known:
                listed, meant = ", ".join(known), _meant(name, known)
                raise BadSetting(f"{variable}={name!r}: one of {listed}.{meant}")
    # Who writes a set down wants it; those that come with the server are large.
    added = tuple(name for name in known if name not in MODEL_INFO)
    names = (default, *(settings.models or added))
    # Now, as it would otherwise be found out by the first caller.
    loras = LoraFolder(settings.lora_dir).names
    for name in names:
        for task, defaults in known[name].tasks.items():
            for lora in defaults.loras:
                if lora.name not in known[name].lora_files.keys() | loras:
                    raise BadSetting(
                        f"MODEL_INFO: {name}.tasks.{task}.loras.{lora.name}: there is "
                        f"no {name}.loras.{lora.name}, nor such a file in FLUX_LORA_DIR"
                    )
    return {name: with_upscale(known[name]) for name in names}


def _meant(name: str, known: Mapping[str, ModelInfo]) -> str:
    """What ``name``, which is no set, may mean."""
    if Path(name).exists():
        return f" Did you mean './{name}'?"
    if called := find_model(known, name):
        return f" Did you mean {called!r}?"
    if not is_repository_id(name):
        return did_you_mean(name, known)
    return (
        " Another repository of the Hub becomes a model by MODEL_INFO: docs/models.md."
    )
