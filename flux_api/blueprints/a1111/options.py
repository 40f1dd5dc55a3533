"""Options and lists: what there is to choose from, and what a caller has chosen."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from flux_api.blueprints.a1111.parameters import CHECKPOINT, OPTIONS, SAMPLER, SCHEDULER

# Addresses are made up at will; what is remembered of them has to end.
_MOST_CALLERS = 1000
_NONE = {"name": "None", "model_name": None, "model_path": None, "model_url": None}

LISTS: dict[str, Any] = {
    "samplers": [{"name": SAMPLER, "aliases": ["euler"], "options": {}}],
    "schedulers": [{"name": "simple", "label": SCHEDULER, "aliases": []}],
    "upscalers": [{**_NONE, "scale": 1}],
    "latent-upscale-modes": [],
    "sd-vae": [],
    "face-restorers": [],
    "hypernetworks": [],
    "prompt-styles": [],
    "scripts": {"txt2img": [], "img2img": []},
    "embeddings": {"loaded": {}, "skipped": {}},
}
"""What there is little or nothing of; some clients want each to be there."""


class Choices:
    """Which model each caller has chosen for its next requests; the newest thousand.
    In the original it is the whole server's; here nobody changes another's pictures.
    Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._models: OrderedDict[str, str] = OrderedDict()

    def choose(self, caller: str, model: str) -> None:
        """``model`` is the one of ``caller`` from now on."""
        with self._lock:
            self._models[caller] = model
            # Who chose last is forgotten last.
            self._models.move_to_end(caller)
            while len(self._models) > _MOST_CALLERS:
                self._models.popitem(last=False)

    def of(self, caller: str) -> str | None:
        """What ``caller`` chose, None where it chose nothing."""
        with self._lock:
            return self._models.get(caller)


def describe_options(model: str) -> dict[str, Any]:
    """The options of a caller whose model is ``model``."""
    return {CHECKPOINT: model, **OPTIONS}
