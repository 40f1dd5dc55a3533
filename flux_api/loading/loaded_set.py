"""One model set in memory: its checkpoints, as the pipelines of its tasks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import diffusers
import torch

from flux_api.core import Lora
from flux_api.loading import components
from flux_api.loading.device import free_memory
from flux_api.loading.host_copy import HostCopy, bring, unpin
from flux_api.loading.latent_preview import LinearPreview
from flux_api.loading.lora_cache import Stamp
from flux_api.loading.loras import Adapters
from flux_api.loading.placement import Placement, is_modular
from flux_api.loading.preview_fits import FILE, PreviewFits
from flux_api.loading.prompt_reader import PromptReader
from flux_api.loading.residence import Residence
from flux_api.models.hub import Report, fetch_file, present_file
from flux_api.models.hub_lock import at_commit
from flux_api.models.info import ModelInfo, TaskDefaults, TaskName
from flux_api.models.sources import Folder, Source

_STATEFUL = ("Flux2KleinKVPipeline", "Flux3DistilledModularPipeline")


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """What a picture is made with: ``prior`` is the Redux pipeline in front of
    ``pipeline``, where the task has one; ``lora_stamps`` say which versions of the
    LoRAs' files are on. ``own`` has those that are on, where they are the set's own and
    no others."""

    pipeline: Any
    prior: Any
    preview: LinearPreview
    placement: Placement
    lora_stamps: tuple[Stamp, ...] = ()
    own: Adapters | None = None

    def fuse(self) -> None:
        """Have the set's own LoRAs become part of its weights, where they are all that
        is on and the weights stay where they are."""
        if self.own is not None and not self.placement.offloads:
            self.own.fuse()

    def release(self) -> None:
        """Call it after a picture, finished or not."""
        self.placement.release(self.pipeline)


class LoadedBase:
    """One checkpoint in memory, as the pipelines of the tasks over it."""

    def __init__(
        self, pipeline: Any, placement: Placement, preview: LinearPreview
    ) -> None:
        self._pipelines = {type(pipeline).__name__: pipeline}
        self._first = pipeline
        self._placement = placement
        self._placed: Any = None
        self.adapters: Adapters | None = None
        self.preview = preview
        self.reader = None if is_modular(pipeline) else PromptReader(pipeline)

    def pipeline(self, name: str) -> Any:
        """The pipeline of class ``name``, over the same components as the others."""
        if name not in self._pipelines:
            pipeline = share_components(self._first, getattr(diffusers, name))
            pipeline.set_progress_bar_config(disable=True)
            self._pipelines[name] = pipeline
        pipeline = self._pipelines[name]
        if self._placed is not pipeline:
            self._placement.place(pipeline)
            self._placed = pipeline
        return pipeline

    @property
    def parts(self) -> Mapping[str, Any]:
        """The components by name."""
        found: Mapping[str, Any] = self._first.components
        return found


class LoadedSet:
    """A set whose checkpoints are loaded as its tasks are asked for."""

    def __init__(
        self,
        info: ModelInfo,
        placement: Placement,
        find_lora: Callable[[str], Path | None],
        kept_lora_bytes: int,
        fits: PreviewFits,
    ) -> None:
        self._info, self._placement, self._find_lora = info, placement, find_lora
        self._kept_lora_bytes, self._fits = kept_lora_bytes, fits
        self._bases: dict[Source, LoadedBase] = {}
        self._residence = Residence(placement, info.shared_components)
        self._priors: dict[Source, Any] = {}
        # While it waits in the host's memory.
        self._resting: list[HostCopy] | None = None
        # By VAE, which bases may share.
        self._previews: WeakKeyDictionary[Any, LinearPreview] = WeakKeyDictionary()

    def load(self, task: TaskName, loras: tuple[Lora, ...], report: Report) -> Loaded:
        """The pipeline of ``task`` with exactly ``loras`` applied. ModelMissing where
        its weights are, InvalidRequest where a LoRA cannot be used."""
        defaults = self._info.tasks[task]
        if self._resting is not None:
            report("bringing the weights back from the host's memory")
            bring(self._resting)
            self._resting = None
            unpin()
        for source, other in self._bases.items():
            # Bases share text encoders, which an adapter may have changed.
            if source != self._info.base_of(defaults) and other.adapters is not None:
                other.adapters.reset()
        base = self._base(defaults, report)
        for file in (self._info.lora_files.get(lora.name) for lora in loras):
            # Not when it is read: it may be on its way for minutes.
            if file is not None and present_file(file) is None:
                fetch_file(file, report)
        if base.adapters is None and loras:
            known = self._info.lora_files
            files = {
                lora.name: fetch_file(known[lora.name], report)
                for lora in defaults.loras
                if lora.name in known
            }
            base.adapters = Adapters(
                base.pipeline(defaults.pipeline),
                files,
                self._find,
                kept_bytes=self._kept_lora_bytes,
            )
        stamps: tuple[Stamp, ...] = ()
        if base.adapters is not None:
            base.adapters.apply(loras)
            stamps = base.adapters.stamps
        pipeline = base.pipeline(defaults.pipeline)
        prior = self._prior(defaults.prior, base, report) if defaults.prior else None
        own = base.adapters if loras == defaults.loras else None
        return Loaded(pipeline, prior, base.preview, self._placement, stamps, own)

    def reader(self, source: Source) -> PromptReader | None:
        """What reads prompts for the checkpoint ``source`` before their turn, in any
        thread; None where it is not loaded or its blocks do it themselves."""
        base = self._bases.get(source)
        return base.reader if base is not None else None

    def on_device(self) -> list[torch.nn.Module]:
        """What stays on the device between pictures."""
        device = self._placement.device.type
        pipelines = [base.parts for base in self._bases.values()]
        pipelines += [prior.components for prior in self._priors.values()]
        modules = {
            id(part): part
            for parts in pipelines
            for part in parts.values()
            if isinstance(part, torch.nn.Module)
            and {weight.device.type for weight in part.parameters()} == {device}
        }
        return list(modules.values())

    def rest(self) -> None:
        """Leave the device for the host's memory, until it is asked for."""
        for base in self._bases.values():
            if base.adapters is not None:
                base.adapters.rest()
        # All of them before the first leaves: there may be no memory for the last.
        device = self._placement.device
        copies = [HostCopy(module, device) for module in self.on_device()]
        try:
            for copy in copies:
                copy.leave()
        except BaseException:
            # The next picture would look for those that have left on the device.
            bring(copies)
            raise
        self._resting = copies

    @property
    def rests(self) -> bool:
        """Whether it waits in the host's memory."""
        return self._resting is not None

    @property
    def is_empty(self) -> bool:
        """Whether nothing of it is loaded."""
        return not self._bases

    @property
    def has_gpu(self) -> bool:
        """Whether there is a device that its weights can leave."""
        return bool(self._bases) and self._placement.device.type != "cpu"

    @property
    def exclusive(self) -> bool:
        """Whether its pictures run one at a time: parts that are moved about, or calls
        that carry state from step to step, cannot be shared."""
        pipelines = {defaults.pipeline for defaults in self._info.tasks.values()}
        return self._placement.offloads or not pipelines.isdisjoint(_STATEFUL)

    @cached_property
    def transformer_parameters(self) -> int:
        """How many parameters the first loaded transformer has."""
        base = next(iter(self._bases.values()))
        return sum(p.numel() for p in base.parts["transformer"].parameters())

    def _find(self, name: str) -> Path | None:
        own = self._info.lora_files.get(name)
        return self._find_lora(name) if own is None else present_file(own)

    def _base(self, defaults: TaskDefaults, report: Report) -> LoadedBase:
        source = self._info.base_of(defaults)
        for gone in self._residence.make_room(source):
            report(f"unloading {gone}")
            del self._bases[gone]
            free_memory()
        if source not in self._bases:
            given = self._shared_parts(source, report)
            where = self._placement.device.type
            report(f"loading {at_commit(source)} on {where}")
            pipeline = components.load(
                self._info, defaults, given, self._placement, report
            )
            pipeline.set_progress_bar_config(disable=True)
            preview = self._preview_of(pipeline.vae, source)
            self._bases[source] = LoadedBase(pipeline, self._placement, preview)
        self._residence.enter(source, self._bases[source].parts)
        return self._bases[source]

    def _preview_of(self, vae: Any, source: Source) -> LinearPreview:
        """The preview of pictures that ``vae`` decodes; a VAE that has none yet is made
        ready for its work."""
        if vae not in self._previews:
            # Fitted before the parts are moved about, and not on a slow host.
            vae.to(self._placement.device)
            shipped = source.path / FILE if isinstance(source, Folder) else None
            self._previews[vae] = LinearPreview(self._fits.get(vae, shipped))
            if self._placement.tiling:
                vae.enable_tiling()
                vae.enable_slicing()
        return self._previews[vae]

    def _shared_parts(self, source: Source, report: Report) -> dict[str, Any]:
        """The components that ``source`` takes from a loaded base. Where there is none
        they come from the set's own, without its transformer."""
        names = self._info.shared_components
        if self._residence.common:
            return self._residence.common
        if source == self._info.base_model or not names:
            return {}
        return components.load_parts(self._info, names, self._placement, report)

    def _prior(self, source: Source, base: LoadedBase, report: Report) -> Any:
        if source not in self._priors:
            report(f"loading {source}")
            self._priors[source] = components.load_prior(
                source, base.parts, self._placement, report
            )
        return self._priors[source]


def share_components(pipeline: Any, pipeline_class: Any) -> Any:
    """``pipeline_class`` over the very components of ``pipeline``; not ``from_pipe``,
    which casts them to float32 in place."""
    if type(pipeline) is pipeline_class:
        return pipeline
    taken = inspect.signature(pipeline_class.__init__).parameters
    parts = {name: part for name, part in pipeline.components.items() if name in taken}
    options = {key: pipeline.config[key] for key in ("is_distilled",) if key in taken}
    return pipeline_class(**parts, **options)
