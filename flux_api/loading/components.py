"""Checkpoints to pipelines: safetensors only, local files only, no code of theirs."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import diffusers
import torch
import transformers
from safetensors import SafetensorError

from flux_api.core import LoadingProgress
from flux_api.loading.device import losses
from flux_api.loading.folder_parts import load_folder_part
from flux_api.loading.own_parts import (
    FilePart,
    config_of,
    load_part,
    own_parts,
    scheduler_for,
)
from flux_api.loading.placement import Placement
from flux_api.loading.text_processor import TextProcessor
from flux_api.models.hub import (
    CLASSIC_INDEX,
    ModelMissing,
    Report,
    fetch_base,
    fetch_modular,
    read_index,
)
from flux_api.models.info import ModelInfo, TaskDefaults
from flux_api.models.sources import Folder, Source

logger = logging.getLogger(__name__)

# These need torchvision only to read videos and pictures; prompts are text.
_PROCESSORS = ("PixtralProcessor", "AutoProcessor", "Qwen3VLProcessor")

# Where pipelines' indexes say that classes are. The last one is a prior's embedder.
_LIBRARIES = {
    "diffusers": diffusers,
    "transformers": transformers,
    "flux": diffusers.pipelines.flux,
}

# What a damaged or foreign checkpoint raises on its way into a model.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError)


def load(
    info: ModelInfo,
    defaults: TaskDefaults,
    given: Mapping[str, Any],
    placement: Placement,
    report: Report,
) -> Any:
    """The pipeline of a task with its weights on the device (or where offloading wants
    them); ``given`` components are used as they are. ModelMissing when there are none.
    """
    source = info.base_of(defaults)
    pipeline_class = getattr(diffusers, defaults.pipeline)
    dtypes = placement.dtypes(info.dtype)
    try:
        with _damage(source), losses(placement.device):
            if issubclass(pipeline_class, diffusers.ModularPipeline):
                pipeline = _load_modular(
                    info, pipeline_class, source, placement, report
                )
            else:
                pipeline = _load_classic(
                    info, defaults, dict(given), dtypes, placement, report
                )
    except torch.OutOfMemoryError:
        # Without its traceback, which holds what was loaded so far.
        raise ModelMissing(
            f"{source} does not fit into the GPU's memory; "
            f"'flux-api doctor' says what fits"
        ) from None
    except ModelMissing as missing:
        # Which of the set's checkpoints it is, unless that is said already.
        if str(source) in missing.message:
            raise
        raise ModelMissing(f"{source}: {missing.message}") from missing
    fresh = {n: part for n, part in pipeline.components.items() if n not in given}
    placement.finish(fresh)
    placement.settle(pipeline)
    return pipeline


@contextmanager
def _damage(source: Source) -> Iterator[None]:
    """What cannot be read is ModelMissing; a lost device stays one, and full memory."""
    try:
        yield
    except (torch.AcceleratorError, torch.OutOfMemoryError):
        raise
    except _UNREADABLE as error:
        logger.error("loading %s failed", source, exc_info=error)
        message = f"the weights of {source} are missing or damaged"
        raise ModelMissing(message) from error


def load_parts(
    info: ModelInfo, names: tuple[str, ...], placement: Placement, report: Report
) -> dict[str, Any]:
    """The components ``names`` of the set's own base, without its transformer."""
    defaults = next(
        r for r in info.tasks.values() if info.base_of(r) == info.base_model
    )
    kept = {name: None for name in ("transformer", "scheduler") if name not in names}
    report(f"loading the text encoders of {info.base_model}")
    pipeline = load(info, defaults, kept, placement, report)
    return {name: pipeline.components[name] for name in names}


def load_prior(
    source: Source, parts: Mapping[str, Any], placement: Placement, report: Report
) -> Any:
    """A Redux prior that reads prompts with the text encoders among ``parts``: without
    them its widths would be fixed, and a prompt ignored."""
    texts = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    given = {name: parts[name] for name in texts}
    folder = fetch_base(source, given, report)
    with _damage(source):
        pipeline = diffusers.FluxPriorReduxPipeline.from_pretrained(
            folder,
            **given,
            dtype=placement.dtype,
            use_safetensors=True,
            local_files_only=True,
        )
    # Small enough to stay on the device whatever is offloaded.
    pipeline.image_encoder.to(placement.device)
    pipeline.image_embedder.to(placement.device)
    return pipeline


def _load_classic(
    info: ModelInfo,
    defaults: TaskDefaults,
    given: dict[str, Any],
    dtypes: Mapping[str, torch.dtype],
    placement: Placement,
    report: Report,
) -> Any:
    pipeline_class = getattr(diffusers, defaults.pipeline)
    source = info.base_of(defaults)
    taken = inspect.signature(pipeline_class.__init__).parameters
    given = {name: part for name, part in given.items() if name in taken}
    own = own_parts(info, report) if source == info.base_model else {}
    own = {name: part for name, part in own.items() if name not in given}
    folder = fetch_base(source, given, report, described=own)
    _, index = read_index(Folder(folder), CLASSIC_INDEX, report)
    wanted = {
        name: kind
        for name, kind in module_classes(index).items()
        if name in taken and name not in given
    }
    # One after the other: a card need not hold them all before they move off it.
    # By themselves, too: a pipeline loads on where tensors are missing.
    for done, (name, kind) in enumerate(wanted.items()):
        # Each is a sign of life, as bytes from a cache are not.
        text = f"loading the {name} of {source}"
        report(LoadingProgress(text, done, len(wanted), "components"))
        part = own.get(name, folder / name)
        if isinstance(part, FilePart):
            config = config_of(name, part, folder)
            dtype = dtypes.get(name, dtypes["default"])
            loaded = load_part(kind, name, part, config, dtype, placement)
            given[name] = loaded.to("cpu") if placement.waits(name) else loaded
        else:
            given[name] = load_folder_part(kind, name, part, dtypes, placement)
    own_processor = "tokenizer" not in given and index["tokenizer"][1] in _PROCESSORS
    if own_processor:
        given["tokenizer"] = None
    changed = own.get("transformer")
    if "is_distilled" in taken and changed is not None:
        given["is_distilled"] = defaults.guidance_parameter is None
    pipeline = pipeline_class.from_pretrained(
        folder,
        **given,
        dtype=dict(dtypes),
        use_safetensors=True,
        local_files_only=True,
    )
    if isinstance(changed, FilePart):
        pipeline.scheduler = scheduler_for(changed, pipeline.scheduler)
    if own_processor:
        pipeline.tokenizer = TextProcessor.load(folder / "tokenizer")
    return pipeline


def module_classes(index: Mapping[str, Any]) -> dict[str, type[torch.nn.Module]]:
    """The classes of the components with weights, by name."""
    found = {}
    for name, entry in index.items():
        if isinstance(entry, list) and entry[0] in _LIBRARIES:
            kind = getattr(_LIBRARIES[entry[0]], entry[1], None)
            if isinstance(kind, type) and issubclass(kind, torch.nn.Module):
                found[name] = kind
    return found


def _load_modular(
    info: ModelInfo,
    pipeline_class: Any,
    source: Source,
    placement: Placement,
    report: Report,
) -> Any:
    blocks = getattr(diffusers, pipeline_class.default_blocks_name)()
    for name in info.skip_blocks:
        blocks.sub_blocks.pop(name)
    # Nothing of the checkpoint's own blocks is loaded: those would be code.
    pipeline = pipeline_class(blocks=blocks)
    dtypes = placement.dtypes(info.dtype)
    wanted = {spec.name: spec for spec in blocks.expected_components}
    places = fetch_modular(source, wanted, report)
    parts: dict[str, Any] = {}
    for name, (folder, subfolder) in places.items():
        kind = wanted[name].type_hint
        if name == "prompt_upsampler_processor":
            parts[name] = TextProcessor.load_with_images(folder / subfolder)
        elif kind is transformers.AutoProcessor:
            parts[name] = TextProcessor.load(folder / subfolder)
        elif kind is not None and issubclass(kind, torch.nn.Module):
            where = folder / subfolder
            parts[name] = load_folder_part(kind, name, where, dtypes, placement)
        else:
            parts[name] = kind.from_pretrained(folder / subfolder)
    pipeline.update_components(**parts)
    _quiet_blocks(blocks)
    for name in wanted:
        if getattr(pipeline, name, None) is None:
            raise ModelMissing(f"{source} has no {name}")
    return pipeline


def _quiet_blocks(blocks: Any) -> None:
    """No progress bars: only the outermost blocks hear of the pipeline's setting."""
    for block in getattr(blocks, "sub_blocks", {}).values():
        if hasattr(block, "set_progress_bar_config"):
            block.set_progress_bar_config(disable=True)
        _quiet_blocks(block)
