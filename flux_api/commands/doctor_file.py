"""What a file of weights or a LoRA is, which model takes it, and whether it fits."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from flux_api.commands.doctor import card_of, plan_for, verdict
from flux_api.commands.doctor_folder import examine_folder
from flux_api.commands.model_table import like_of_part, table
from flux_api.errors import BadSetting, InvalidRequest
from flux_api.loading.footprint import GIB, build_empty, describe, footprint_of
from flux_api.loading.lora_reader import read_lora
from flux_api.loading.loras import COMPONENTS
from flux_api.models.checkpoints import CheckpointFacts, identify_file
from flux_api.models.file_sets import set_of_path
from flux_api.models.headers import BadFile
from flux_api.models.info import ModelInfo
from flux_api.models.lora_files import check_lora, describe_lora, normal_name


def examine_file(
    path: Path,
    models: Mapping[str, ModelInfo],
    gpu: float | None = None,
    *,
    like: str | None = None,
    components: Path | None = None,
) -> str:
    """A report on the file or folder at ``path``, judged by this machine's card or by
    one with ``gpu`` GB; BadSetting says why there is none."""
    # What it would warn of stands in the report.
    logging.getLogger("flux_api.loading").setLevel(logging.ERROR)
    if path.is_dir():
        report, whole = examine_folder(path, like)
        more = () if whole is None else _memory_lines(whole, gpu)
        return "\n".join([report, *more])
    try:
        facts = identify_file(path)
    except BadFile as why:
        raise BadSetting(f"{path.name} {why}") from None
    if facts.kind == "a LoRA":
        return "\n".join(_lora_lines(path, facts, models))
    lines = [f"{path.name}: {facts.kind} {facts.variant}".rstrip()]
    if facts.why:
        lines.append(f"  because {facts.why}; FLUX_MODEL_LIKE says otherwise")
    lines.append(
        f"  {facts.dtype}, {facts.size / GIB:.2f} GiB, "
        f"{len(facts.header.tensors)} tensors"
    )
    if "transformer" not in facts.components:
        [name] = facts.components
        return "\n".join([*lines, *table(path, like_of_part(facts), name)])
    lines.append(f"  in it: {', '.join(facts.components)}")
    name, info = set_of_path(str(path), like, components)
    where = shlex.quote(str(path.absolute()))
    lines.append(f"  FLUX_MODEL={where} serves it as {name}: {', '.join(info.tasks)}")
    lines += table(path, like or facts.variant, "transformer")
    return "\n".join([*lines, *_memory_lines(info, gpu)])


def _memory_lines(info: ModelInfo, gpu: float | None) -> Iterator[str]:
    footprint = footprint_of(info)
    if footprint is None:
        yield f"  the rest comes from {info.base_model}, whose size is not known"
        return
    card = card_of(gpu)
    weights = footprint.total("none") / GIB
    yield f"  with what comes from {info.base_model}: {weights:.1f} GiB of weights"
    if card.device_name:
        plan = plan_for(info, footprint, card)
        yield f"  on {card.device_name}: {verdict(plan)}"
    else:
        yield "  this machine has no GPU; --gpu 12 judges by a card of 12 GB"


def _lora_lines(
    path: Path, facts: CheckpointFacts, models: Mapping[str, ModelInfo]
) -> Iterator[str]:
    told = describe_lora(path)
    rank = f", rank {told.rank}" if told.rank else ""
    family = f", trained for {told.family}" if told.family else ""
    yield f"{path.name}: a LoRA{rank}{family}"
    yield f"  {facts.dtype}, {facts.size / GIB:.2f} GiB"
    folder = shlex.quote(str(path.absolute().parent))
    yield f"  FLUX_LORA_DIR={folder} offers it as {normal_name(path.stem)!r}"
    if told.trigger_words:
        yield f"  trigger words: {', '.join(told.trigger_words)}"
    verdicts: dict[str, str] = {}
    for name, info in models.items():
        described = describe(info.base_model)
        # The same answer for every model with the same layers.
        key = repr(described)
        if described is None:
            continue
        if key not in verdicts:
            parts = {
                part: build_empty(*described[part])
                for part in COMPONENTS
                if part in described
            }
            verdicts[key] = _try_lora(path, parts)
        yield f"  {name}: {verdicts[key]}"


def _try_lora(path: Path, parts: Mapping[str, torch.nn.Module]) -> str:
    try:
        check_lora(path, path.stem)
        changes = read_lora(path, path.stem, parts)
    except InvalidRequest as refused:
        return refused.message.partition(f"{path.stem!r} ")[2]
    except NotImplementedError:
        # The model stands on torch's meta device, without values, and a DoRA scales by
        # them: by then every layer and shape of it has been found to fit.
        return "takes it"
    return f"takes it, {len(changes)} layers change"
