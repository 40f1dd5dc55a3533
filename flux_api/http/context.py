"""The HTTP side: what blueprints share of the application."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from flask import current_app

from flux_api.errors import QueueFull
from flux_api.http.kept_answers import KeptAnswers
from flux_api.models.info import ModelInfo, find_model
from flux_api.models.lora_files import LoraFolder
from flux_api.net.fetch import Fetcher
from flux_api.net.file_server import FileServer
from flux_api.queue.manager import PipelineManager
from flux_api.queue.results import ResultStore
from flux_api.settings import Settings


class Watchers:
    """How many connections watch jobs; each holds a thread."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._count = 0

    def enter(self) -> None:
        """Take a place; QueueFull when there is none."""
        with self._lock:
            if self._count >= self._most:
                message = "Too many connections watch jobs."
                raise QueueFull(message, retry_after=5, code="too_many_watchers")
            self._count += 1

    def leave(self) -> None:
        """Give the place back."""
        with self._lock:
            self._count -= 1


@dataclass(frozen=True, slots=True)
class Context:
    """What a view works with; ``models`` are the sets on offer, ``loras`` the LoRAs
    that requests may name beside a set's own."""

    settings: Settings
    manager: PipelineManager
    models: dict[str, ModelInfo]
    loras: LoraFolder
    fetcher: Fetcher
    file_server: FileServer | None
    watchers: Watchers
    results: ResultStore
    kept_answers: KeptAnswers

    def find_model(self, name: str | None) -> str:
        """The set that a request's ``name`` asks for; ModelNotFound where names are
        taken at their word."""
        strict = self.settings.strict_models
        return find_model(self.models, self.settings.model, name, strict=strict)


def get_context() -> Context:
    """The application's context."""
    found: Context = current_app.extensions["flux_api"]
    return found
