"""The names of Black Forest Labs' hosted models, and the sets that they mean here."""

from __future__ import annotations

from collections.abc import Mapping

from flux_api.errors import ModelNotFound
from flux_api.models.info import ModelInfo, TaskName

_FLUX1 = ("flux1", "schnell")
_KLEIN_4B = ("klein-4b", "klein-base-4b")
_KLEIN_9B = ("klein-9b", "klein-9b-kv", "klein-base-9b")
_FLUX2 = ("flux2-dev", *_KLEIN_9B, *_KLEIN_4B)

HOSTED: Mapping[str, tuple[TaskName, tuple[str, ...]]] = {
    "flux-2-klein-4b": ("generate", _KLEIN_4B),
    "flux-2-klein-9b": ("generate", _KLEIN_9B),
    "flux-2-pro": ("generate", _FLUX2),
    "flux-2-max": ("generate", _FLUX2),
    "flux-2-flex": ("generate", _FLUX2),
    "flux-dev": ("generate", _FLUX1),
    "flux-pro-1.1": ("generate", _FLUX1),
    "flux-pro-1.1-ultra": ("generate", _FLUX1),
    "flux-kontext-pro": ("edit", ("flux1", *_FLUX2)),
    "flux-kontext-max": ("edit", ("flux1", *_FLUX2)),
    "flux-pro-1.0-fill": ("inpaint", ("flux1", *_FLUX2)),
}
"""What each is for, and the sets of its family, the nearest first."""


def find_hosted(
    name: str, models: Mapping[str, ModelInfo], default: str, own: Mapping[str, str]
) -> str:
    """The set that the hosted ``name`` means: the operator's ``own``, else the first of
    its family that is among ``models``, else one that does its task, the ``default``
    first, else the default. ModelNotFound where nobody knows the name."""
    if name in own:
        return own[name]
    if name not in HOSTED:
        listed = ", ".join(dict.fromkeys((*HOSTED, *own)))
        message = f"The model {name[:64]!r} is not one of: {listed}."
        raise ModelNotFound(message, param="model")
    task, family = HOSTED[name]
    for found in family:
        if found in models:
            return found
    # Another picture rather than none: clients choose by what a name is for.
    able = (n for n in (default, *models) if task in models[n].tasks)
    return next(able, default)
