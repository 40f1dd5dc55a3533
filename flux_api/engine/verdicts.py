"""What was found out about models on this machine, kept from start to start: a file in
the state folder, by model, device and versions."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import diffusers
import torch

from flux_api.loading.device import device_name

logger = logging.getLogger(__name__)

FILE = "verdicts.json"


class Verdicts:
    """What was found out about models on ``device``, kept in ``folder``; None keeps it
    in memory."""

    def __init__(self, folder: Path | None, device: torch.device) -> None:
        self._file = folder / FILE if folder is not None else None
        self._place = (
            f"{device_name(device)}, torch {torch.__version__}, "
            f"diffusers {diffusers.__version__}"
        )
        self._found = self._read()

    def find(self, what: str, model: str) -> dict[str, Any] | None:
        """The verdict on ``what`` for ``model``, None where there is none yet."""
        return self._found.get(self._key(what, model))

    def keep(self, what: str, model: str, verdict: dict[str, Any]) -> None:
        """Remember ``verdict``; where the folder cannot be written, until the end."""
        self._found[self._key(what, model)] = verdict
        if self._file is None:
            return
        text = json.dumps(self._found, indent=1, sort_keys=True) + "\n"
        partial = self._file.with_suffix(".part")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(text)
            partial.replace(self._file)
        except OSError as error:
            logger.warning("FLUX_STATE_DIR cannot be written: %s", error.strerror)

    def _key(self, what: str, model: str) -> str:
        return f"{what} of {model} on {self._place}"

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            found = json.loads(self._file.read_text("utf-8")) if self._file else {}
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}
