"""The HTTP side: what blueprints share of the application."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from pathlib import Path

from flask import current_app

from flux_api.api_keys import ApiKey
from flux_api.core import Lora
from flux_api.errors import ModelNotFound, Unavailable
from flux_api.http.hosts import TrustedHosts
from flux_api.http.kept_answers import KeptAnswers
from flux_api.images.decoder import Decoder
from flux_api.images.signing import Signer
from flux_api.models.info import ModelInfo, find_model, unknown_model
from flux_api.models.lora_files import LoraFolder, normal_name
from flux_api.net.fetch import Fetcher
from flux_api.net.file_server import FileServer
from flux_api.net.webhooks import Webhooks
from flux_api.queue.manager import PipelineManager
from flux_api.queue.results import ResultStore
from flux_api.queue.shares import Shares, Watchers
from flux_api.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Context:
    """What a view works with; ``keys`` gives the API keys of now; ``models`` are the
    sets on offer, of those that are ``known``, ``loras`` the LoRAs that requests may
    name beside a set's own; ``signer`` signs finished pictures, where they are signed;
    ``decodes``, ``fetches`` and ``watchers`` are who may decode, fetch and watch jobs
    at the moment."""

    settings: Settings
    keys: Callable[[], tuple[ApiKey, ...]]
    manager: PipelineManager
    models: dict[str, ModelInfo]
    known: dict[str, ModelInfo]
    loras: LoraFolder
    hosts: TrustedHosts
    fetcher: Fetcher
    decoder: Decoder
    signer: Signer | None
    decodes: Shares
    fetches: Shares
    file_server: FileServer | None
    watchers: Watchers
    results: ResultStore
    kept_answers: KeptAnswers
    webhooks: Webhooks

    def new_job_id(self) -> str:
        """An id that nobody can guess, by which a proxy finds this instance again."""
        number = self.settings.instance
        return f"{'' if number is None else f'g{number}-'}{secrets.token_hex(16)}"

    @property
    def lora_files(self) -> dict[str, Path]:
        """The files of the LoRA folder by name; Unavailable while it cannot be read."""
        folder = self.settings.lora_dir
        try:
            files = self.loras.files
            gone = not files and folder is not None and not os.access(folder, os.R_OK)
        except OSError as error:
            logger.warning("the LoRA folder cannot be read: %s", error)
            gone = True
        if gone:
            message = "The LoRA folder cannot be read at the moment."
            raise Unavailable(message, retry_after=5)
        return files

    def lora_names(self, model: ModelInfo, asked: Iterable[Lora]) -> Set[str]:
        """What ``asked`` may name beside the own LoRAs of ``model``: where they are all
        there, they alone, found without listing the folder. Unavailable while it cannot
        be read."""
        # Listing a large folder takes long, and most requests name what is there.
        names = {normal_name(lora.name) for lora in asked} - model.lora_files.keys()
        if all(map(self.loras.look_up, names)):
            return names
        return self.lora_files.keys()

    def find_model(self, name: str | None) -> str:
        """The set that a request's ``name`` asks for, the default where it is none's;
        ModelNotFound for that where names are taken at their word, and for a set that
        is known but not offered: another model's picture is not what was meant."""
        if not name:
            return self.settings.model
        if found := find_model(self.models, name):
            return found
        if find_model(self.known, name):
            message = (
                f"This server does not offer {name} but {', '.join(self.models)}; "
                "FLUX_MODELS adds models."
            )
            raise ModelNotFound(message, param="model")
        if self.settings.strict_models:
            raise unknown_model(name, self.models)
        return self.settings.model


def get_context() -> Context:
    """The application's context."""
    found: Context = current_app.extensions["flux_api"]
    return found
