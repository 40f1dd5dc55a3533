"""Model sets in memory: loaded on first use, the least recently used evicted."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping

import diffusers
import transformers

from flux_api.loading.device import first_line, free_memory
from flux_api.loading.host_copy import size_of
from flux_api.loading.host_memory import free_host_bytes
from flux_api.loading.loaded_set import LoadedSet
from flux_api.loading.placement import Placement
from flux_api.loading.plan import RESERVE
from flux_api.loading.preview_fits import PreviewFits
from flux_api.loading.prompt_reader import PromptReader
from flux_api.loading.quantization import quiet_bitsandbytes
from flux_api.metrics.instruments import note_lookup
from flux_api.models.hub import Report
from flux_api.models.info import ModelInfo, TaskName
from flux_api.models.lora_files import LoraFolder
from flux_api.models.sources import Source


def quiet_libraries() -> None:
    """No progress bars and no warnings out of diffusers and transformers: some of them
    quote the prompt."""
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    quiet_bitsandbytes()


class ModelSets:
    """The sets in memory, ``most`` at once; ``kept_lora_bytes`` of LoRAs that are not
    on are kept for each. ``fits`` keeps the maps of their previews."""

    def __init__(
        self,
        models: Mapping[str, ModelInfo],
        place: Callable[[str, ModelInfo, Report], Placement],
        *,
        most: int = 1,
        loras: LoraFolder | None = None,
        check: Callable[[str, TaskName, Report], None] | None = None,
        kept_lora_bytes: int = 0,
        fits: PreviewFits | None = None,
    ) -> None:
        # No code of a checkpoint is ever run.
        os.environ.setdefault("DIFFUSERS_DISABLE_REMOTE_CODE", "1")
        quiet_libraries()
        self._models, self._place, self._most = models, place, most
        self._kept_lora_bytes = kept_lora_bytes
        self._loras, self._check = loras or LoraFolder(None), check
        self._fits = fits or PreviewFits(None)
        self._loaded: OrderedDict[str, LoadedSet] = OrderedDict()

    def check(self, name: str, task: TaskName, report: Report) -> None:
        """ModelMissing where a set would be unloaded for one of which can be known that
        it will not load."""
        if (
            self._check is not None
            and name not in self._loaded
            and len(self._loaded) >= self._most
        ):
            self._check(name, task, report)

    def use(self, name: str, report: Report) -> LoadedSet:
        """The set ``name``, for as long as no other is asked for: call it only while
        no picture of another set is on its way."""
        note_lookup("models", found=name in self._loaded)
        if name not in self._loaded:
            # First: the memory may not hold both.
            while len(self._loaded) >= self._most:
                # First what could not be loaded: it holds a place and no weights.
                evicted = min(self._loaded, key=lambda n: not self._loaded[n].is_empty)
                report(f"unloading {evicted}")
                del self._loaded[evicted]
                free_memory()
            info = self._models[name]
            placement = self._place(name, info, report)
            self._loaded[name] = LoadedSet(
                info, placement, self._loras.find, self._kept_lora_bytes, self._fits
            )
        self._loaded.move_to_end(name)
        return self._loaded[name]

    def reader(self, name: str, source: Source) -> PromptReader | None:
        """As :meth:`LoadedSet.reader`, of the set ``name``; for any thread."""
        loaded = self._loaded.get(name)
        return loaded.reader(source) if loaded is not None else None

    def drop(self, name: str) -> None:
        """Unload the set ``name``; it is loaded anew where it is asked for."""
        self._loaded.pop(name, None)
        free_memory()

    def drop_all(self) -> None:
        """Let go of every set: call it only while no picture is on its way."""
        self._loaded.clear()
        free_memory()

    def rest(self) -> str:
        """Have every set leave the device for the host's memory, from where it comes
        back when it is asked for. Gives why it cannot be, "" where it is done: call it
        only while no picture is on its way."""
        if self.rests:
            return ""
        # One that rests already has its weights in the host's memory alone.
        awake = [loaded for loaded in self._loaded.values() if not loaded.rests]
        if not any(loaded.has_gpu for loaded in awake):
            return "no weights are on a GPU"
        modules = [module for loaded in awake for module in loaded.on_device()]
        if any(getattr(module, "is_loaded_in_8bit", False) for module in modules):
            return "weights in 8 bits cannot be moved"
        if free_host_bytes() < sum(map(size_of, modules)) + RESERVE:
            return "it has no room for them"
        try:
            for loaded in awake:
                loaded.rest()
        except (MemoryError, RuntimeError) as error:
            return first_line(error)
        finally:
            free_memory()
        return ""

    @property
    def rests(self) -> bool:
        """Whether what is loaded waits in the host's memory."""
        resting = [loaded.rests for loaded in list(self._loaded.values())]
        return bool(resting) and all(resting)

    def exclusive(self, name: str) -> bool:
        """Whether pictures of the set ``name`` run one at a time, as they do while it
        is being loaded."""
        loaded = self._loaded.get(name)
        return loaded is None or loaded.exclusive

    @property
    def names(self) -> tuple[str, ...]:
        """The loaded sets, the least recently used first."""
        return tuple(self._loaded)
