"""A backend out of its parts, as the settings have it."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from flux_api.engine.backend import DiffusersBackend
from flux_api.engine.tuning import Tuner
from flux_api.engine.verdicts import Verdicts
from flux_api.loading.beforehand import check_files, check_memory
from flux_api.loading.host_memory import free_host_bytes
from flux_api.loading.memory import choose_placement
from flux_api.loading.model_sets import ModelSets
from flux_api.loading.placement import Placement, choose_device
from flux_api.loading.preview_fits import PreviewFits
from flux_api.loading.second_copy import has_room_for_another
from flux_api.models.hub import Report
from flux_api.models.info import ModelInfo, TaskName
from flux_api.models.lora_files import LoraFolder
from flux_api.queue.readiness import Handover
from flux_api.settings import Settings

_SAY_SECONDS = 10.0


def make_backend(
    settings: Settings, models: Mapping[str, ModelInfo], handover: Handover | None
) -> DiffusersBackend:
    """The backend that makes pictures of ``models``, the first by default. Where an
    older worker serves meanwhile, ``handover`` is how it lets go of its own."""
    device = choose_device()
    default = next(iter(models))

    def place(name: str, info: ModelInfo, report: Report) -> Placement:
        placement = choose_placement(name, info, settings, device, report)
        if handover is None or name != default:
            return placement
        if _needs_room(handover, placement, device):
            _wait_for_room(handover, report)
            placement = choose_placement(name, info, settings, device, report)
        handover.placement = str(placement)
        return placement

    def check(name: str, task: TaskName, report: Report) -> None:
        check_files(models[name], task, report)
        check_memory(name, models[name], task, settings, device)

    sets = ModelSets(
        models,
        place,
        most=settings.max_loaded,
        loras=LoraFolder(settings.lora_dir),
        check=check,
        kept_lora_bytes=min(settings.lora_cache_mb << 20, free_host_bytes() // 10),
        fits=PreviewFits(settings.state_folder / "previews"),
    )
    verdicts = Verdicts(settings.state_folder, device)
    return DiffusersBackend(
        models,
        default,
        batch_tokens=settings.batch_tokens,
        prompt_cache_bytes=settings.prompt_cache_mb << 20,
        tuner=Tuner(settings.performance, device, verdicts=verdicts),
        sets=sets,
    )


def _needs_room(handover: Handover, placement: Placement, device: torch.device) -> bool:
    """Whether an older worker's weights leave none: two are held only alike."""
    return handover.beside and not (
        handover.waits
        and handover.placement == str(placement)
        and has_room_for_another(handover.older, device)
    )


def _wait_for_room(handover: Handover, report: Report) -> None:
    waiting = "waiting for the old worker's end: no room for both"
    report(waiting)
    while not handover.make_room(_SAY_SECONDS):
        report(waiting)  # as a sign of life
