"""What this machine has, and which of the models fit it."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from huggingface_hub import constants, get_token

from flux_api.commands.doctor_gpu import gpu_lines
from flux_api.commands.files import existing_parent
from flux_api.loading.footprint import GIB, Footprint, footprint_of
from flux_api.loading.memory import look_at_machine, number_for
from flux_api.loading.placement import choose_device
from flux_api.loading.plan import Machine, Plan, plan_memory
from flux_api.models.hub import present_folder
from flux_api.models.info import ModelInfo
from flux_api.models.sources import Repository

# Memory sizes that cards are sold with, in GiB.
CARDS = (6, 8, 10, 12, 16, 24, 32, 48, 80, 141)
# A driver keeps some of a card for itself.
_USABLE = 0.96


def examine(
    models: Mapping[str, ModelInfo],
    gpu: float | None = None,
    *,
    bounds: Sequence[str] = (),
) -> str:
    """A report on this machine, with the lines of ``bounds``, and on each of
    ``models``, ending with advice. With ``gpu`` the models alone are judged, by a card
    of so many GB, all of it free."""
    device, machine = choose_device(), card_of(gpu)
    told: list[str] = []
    plans: dict[str, Plan] = {}
    for name, info in models.items():
        footprint = footprint_of(info)
        if footprint is None:
            told += [f"  {name}: not downloaded, and its size is not known beforehand"]
            continue
        plans[name] = plan_for(info, footprint, machine)
        told += _model_lines(name, info, footprint, plans[name], machine)
    if gpu is not None:
        lines = [f"Models on {machine.device_name}, all of it free", *told]
        return "\n".join(lines)
    lines = ["This machine", *_machine_lines(device, machine), ""]
    lines += [*bounds, "", "Models"] if bounds else ["Models"]
    return "\n".join([*lines, *told, "", *_advice(models, plans, device)])


def examine_model(name: str, info: ModelInfo, gpu: float | None) -> str:
    """A report on the model ``name`` alone, judged by this machine's card or by one
    with ``gpu`` GB."""
    machine, footprint = card_of(gpu), footprint_of(info)
    if footprint is None:
        return f"{name}: not downloaded, and its size is not known beforehand"
    plan = plan_for(info, footprint, machine)
    lines = _model_lines(name, info, footprint, plan, machine)
    tasks = [
        f"{task} in {defaults.num_inference_steps} steps"
        for task, defaults in info.tasks.items()
    ]
    return "\n".join(
        [
            *(line.removeprefix("  ") for line in lines),
            f"  does {', '.join(tasks)}; sizes are {info.sizes}",
            f"  FLUX_MODEL={name} makes it the default, FLUX_MODELS adds it to others",
        ]
    )


def plan_for(info: ModelInfo, footprint: Footprint, machine: Machine) -> Plan:
    """How a server would hold ``info`` on ``machine``."""
    return plan_memory(footprint, machine, width=number_for(info, machine).itemsize)


def verdict(plan: Plan) -> str:
    """Whether it fits, and with how much of the host's memory."""
    word = f"fits with {plan}" if plan.fits else f"does not fit ({plan})"
    return f"{word}, {plan.host / GIB:.1f} GiB of RAM"


def card_of(gpu: float | None) -> Machine:
    """This machine, or with ``gpu`` a card of so many GB, all of it free."""
    machine = look_at_machine(choose_device())
    if gpu is None:
        return machine
    return Machine(int(gpu * _USABLE * GIB), machine.host_free, f"a {gpu:g} GB GPU")


def _machine_lines(device: torch.device, machine: Machine) -> Iterator[str]:
    yield from gpu_lines(device, machine)
    yield (
        f"  memory   {machine.host_free / GIB:.1f} GiB free, "
        f"{os.cpu_count()} cores ({platform.machine()})"
    )
    cache = Path(constants.HF_HUB_CACHE)
    yield f"  cache    {cache}, {folder_bytes(cache) / GIB:.1f} GiB in it"
    free = shutil.disk_usage(existing_parent(cache)).free
    yield f"  disk     {free / GIB:.1f} GiB free there"
    token = "set" if get_token() else "not set (gated models need HF_TOKEN)"
    offline = "; HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else ""
    yield f"  Hub      token {token}{offline}"


def _model_lines(
    name: str, info: ModelInfo, footprint: Footprint, plan: Plan, machine: Machine
) -> Iterator[str]:
    yield f"  {name}: {info.description}"
    weights = footprint.total("none")
    if machine.device_name:
        yield f"    {verdict(plan)}"
    elif info.native_size:
        yield f"    runs here on the CPU, {weights * 2 / GIB:.2f} GiB"
    else:
        yield f"    needs a GPU: {_cards_for(footprint)}"
    own = sum(footprint.named(part, "none") for part in footprint.own)
    missing = _download(info, weights - own)
    yield f"    weights {weights / GIB:.1f} GiB in bfloat16; {missing}"
    yield f"    licence {info.licence}"


def _cards_for(footprint: Footprint) -> str:
    """The smallest card for the most frugal plan that is quick, and for whole weights
    that stay on it."""
    words: list[str] = []
    for size in CARDS:
        # With RAM without end: how much of it is needed is told beside.
        plan = plan_memory(footprint, Machine(int(size * _USABLE * GIB), 1 << 50))
        if plan.fits and plan.offload != "group":
            word = f"quantization {plan.quantization}, offload {plan.offload}"
            if not words or (plan.quantization, plan.offload) == ("none", "none"):
                words.append(f"{size} GB ({word}; {plan.host / GIB:.0f} GiB of RAM)")
            if (plan.quantization, plan.offload) == ("none", "none"):
                break
    return ", better ".join(words) or "larger than any single one"


def _download(info: ModelInfo, weights: int) -> str:
    # A folder of this machine is there or was refused at the start.
    remote = [source for source in info.sources if isinstance(source, Repository)]
    if not remote:
        return "nothing to download"
    missing = [source for source in remote if present_folder(source) is None]
    if not missing:
        return "in the cache (fetch completes it)"
    return f"downloads about {weights / GIB:.0f} GiB from {', '.join(map(str, remote))}"


def _advice(
    models: Mapping[str, ModelInfo], plans: Mapping[str, Plan], device: torch.device
) -> Iterator[str]:
    if device.type != "cuda":
        yield "Recommended here: FLUX_MODEL=tiny (the default), the embedded demo."
        footprint = footprint_of(models["klein-4b"])
        cards = "" if footprint is None else f": {_cards_for(footprint)}"
        yield (
            "An NVIDIA GPU would bring photographs and faithful edits. The one to begin"
            f" with is FLUX_MODEL=klein-4b{cards}."
        )
        return
    klein = plans.get("klein-4b")
    if klein is not None and klein.fits:
        licence = models["klein-4b"].licence
        yield f"Recommended here: FLUX_MODEL=klein-4b (4 steps; {licence})."
    else:
        yield "Recommended here: FLUX_MODEL=tiny; the GPU has too little memory free."
    others = [name for name, plan in plans.items() if plan.fits and name != "tiny"]
    if others:
        yield f"These fit: {', '.join(others)}."


def folder_bytes(folder: Path) -> int:
    """The bytes of the files below ``folder``, links not followed."""
    if not folder.is_dir():
        return 0
    paths = (Path(root, name) for root, _, names in os.walk(folder) for name in names)
    return sum(path.lstat().st_size for path in paths if not path.is_symlink())
