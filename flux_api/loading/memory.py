"""The memory and the numbers of this machine, and where they let a set go."""

from __future__ import annotations

import importlib.util

import torch

from flux_api.loading.device import bytes_of
from flux_api.loading.footprint import GIB, footprint_of
from flux_api.loading.fp8 import has_fp8
from flux_api.loading.host_memory import free_host_bytes
from flux_api.loading.placement import Placement
from flux_api.loading.plan import Machine, plan_memory
from flux_api.models.hub import Report
from flux_api.models.info import ModelInfo
from flux_api.settings import Settings

_AMPERE = (8, 0)
"""NVIDIA's first generation that computes with bfloat16."""


def choose_placement(
    name: str, info: ModelInfo, settings: Settings, device: torch.device, report: Report
) -> Placement:
    """Where the set ``name`` goes under ``settings``; one line to ``report`` where
    FLUX_MEMORY=auto chooses, and why, and one where the card is too old for the numbers
    that Flux is published in."""
    quantization = info.quantization or settings.quantization
    offload = info.offload or settings.offload
    if device.type != "cuda":
        return Placement(device, quantization or "none", offload or "none")
    machine = look_at_machine(device)
    number = number_for(info, machine)
    fixed = Placement(device, quantization or "none", offload or "none", number=number)
    if not machine.bfloat16:
        report(
            f"memory: {machine.device_name} does not compute with bfloat16; {name} "
            f"runs in {str(number).removeprefix('torch.')}"
        )
    if settings.memory == "manual":
        return fixed
    footprint = footprint_of(info)
    if footprint is None:
        report(f"memory: {name} is not known beforehand; taking {fixed.quantization}")
        return fixed
    plan = plan_memory(
        footprint,
        machine,
        quantization=quantization,
        offload=offload,
        width=number.itemsize,
    )
    weights = footprint.total("none", number.itemsize)
    report(
        f"memory: {machine}; {name} has {weights / GIB:.1f} GiB of weights: {plan}"
        f"{'' if plan.fits else ', which may not be enough'}"
    )
    return Placement(
        device,
        plan.quantization,
        plan.offload,
        tiling=plan.tiling,
        resident=plan.resident,
        copies=plan.copies,
        number=number,
    )


def number_for(info: ModelInfo, machine: Machine) -> torch.dtype:
    """What ``info`` is computed with. Where there is no bfloat16 FLUX.1 works in
    float16, as diffusers documents it; of FLUX.2 and FLUX 3, whose text encoders reach
    numbers beyond float16, nobody says so. The small ones have room for float32."""
    if machine.bfloat16:
        return torch.bfloat16
    later = any(
        defaults.pipeline.startswith(("Flux2", "Flux3"))
        for defaults in info.tasks.values()
    )
    return torch.float32 if later or info.native_size else torch.float16


def look_at_machine(device: torch.device) -> Machine:
    """The memory that is free now, and what the device computes with."""
    if device.type != "cuda":
        return Machine(0, free_host_bytes())
    free, _ = bytes_of(device)
    # What this process has reserved and not in use is free to it.
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    # AMD's cards count otherwise; all that ROCm runs on have bfloat16.
    nvidia = torch.version.hip is None
    return Machine(
        free,
        free_host_bytes(),
        torch.cuda.get_device_name(device),
        bfloat16=not nvidia or torch.cuda.get_device_capability(device) >= _AMPERE,
        fp8=has_fp8(device) and importlib.util.find_spec("torchao") is not None,
    )
