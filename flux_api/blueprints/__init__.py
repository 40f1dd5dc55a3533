"""The HTTP side: what blueprints share of the application."""

from __future__ import annotations

from dataclasses import dataclass

from flask import current_app

from flux_api.config import Settings
from flux_api.delivery import FileServer
from flux_api.fetch import Fetcher
from flux_api.manager import PipelineManager
from flux_api.models import ModelInfo


@dataclass(frozen=True, slots=True)
class Context:
    """What a view works with; ``models`` are the sets on offer."""

    settings: Settings
    manager: PipelineManager
    models: dict[str, ModelInfo]
    fetcher: Fetcher
    file_server: FileServer | None


def context() -> Context:
    """The application's context."""
    found: Context = current_app.extensions["flux_api"]
    return found
