"""Which quantization and offload let a set fit into the memory that there is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from flux_api.loading.footprint import GIB, Footprint, footprint_of
from flux_api.loading.placement import Placement, go_together
from flux_api.models.hub import Report
from flux_api.models.info import ModelInfo
from flux_api.settings import Offload, Quantization, Settings

# For the driver's context and for what the allocator cannot use.
RESERVE = GIB
# From the best picture to the least memory, but quantization before group offload,
# which is slow.
PREFERENCE: tuple[tuple[Quantization, Offload], ...] = (
    ("none", "none"),
    ("none", "model"),
    ("int8", "none"),
    ("nf4", "none"),
    ("nf4", "model"),
    ("none", "group"),
)


@dataclass(frozen=True, slots=True)
class Machine:
    """Free bytes on the device (0 without one) and in the host's memory."""

    device_free: int
    host_free: int
    device_name: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a set is to be held: about ``peak`` bytes on the device and ``host`` in the
    host's memory; ``fits`` where that is there."""

    quantization: Quantization
    offload: Offload
    peak: int
    host: int
    fits: bool

    def __str__(self) -> str:
        words = f"quantization {self.quantization}, offload {self.offload}"
        return f"{words}: about {self.peak / GIB:.1f} GiB on the GPU"


def plan_memory(
    footprint: Footprint,
    machine: Machine,
    *,
    quantization: Quantization | None = None,
    offload: Offload | None = None,
) -> Plan:
    """The first of PREFERENCE that fits ``machine``, among those with what was chosen
    already; where none does, the one that takes the least."""
    plans = [
        _plan(footprint, machine, *choice) for choice in _choices(quantization, offload)
    ]
    fitting = [plan for plan in plans if plan.fits]
    return fitting[0] if fitting else min(plans, key=lambda plan: plan.peak)


def choose_placement(
    name: str, info: ModelInfo, settings: Settings, device: torch.device, report: Report
) -> Placement:
    """Where the set ``name`` goes under ``settings``; one line to ``report`` where
    FLUX_MEMORY=auto chooses, and why."""
    quantization = info.quantization or settings.quantization
    offload = info.offload or settings.offload
    fixed = Placement(device, quantization or "none", offload or "none")
    if settings.memory == "manual" or device.type != "cuda":
        return fixed
    footprint = footprint_of(info)
    if footprint is None:
        report(f"memory: {name} is not known beforehand; taking {fixed.quantization}")
        return fixed
    machine = look_at_machine(device)
    plan = plan_memory(
        footprint,
        machine,
        quantization=quantization,
        offload=offload,
    )
    fit = "" if plan.fits else ", which may not be enough"
    report(
        f"memory: {machine.device_free / GIB:.1f} GiB free on {machine.device_name}, "
        f"{machine.host_free / GIB:.1f} GiB of RAM; {name} has "
        f"{footprint.total('none') / GIB:.1f} GiB of weights: {plan}{fit}"
    )
    tiling = plan.peak + _large_picture(footprint, info) > machine.device_free
    return Placement(device, plan.quantization, plan.offload, tiling=tiling)


def look_at_machine(device: torch.device | None = None) -> Machine:
    """The memory that is free now."""
    if device is None or device.type != "cuda":
        return Machine(0, free_host_bytes())
    free, _ = torch.cuda.mem_get_info(device)
    # What this process has reserved and not in use is free to it.
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return Machine(free, free_host_bytes(), torch.cuda.get_device_name(device))


def free_host_bytes() -> int:
    """Free bytes of the host's memory, caches that can be dropped included."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _choices(
    quantization: Quantization | None, offload: Offload | None
) -> Iterator[tuple[Quantization, Offload]]:
    """PREFERENCE with the given words in place of its own."""
    seen = set()
    for own, move in PREFERENCE:
        choice = (quantization or own, offload or move)
        if choice not in seen and go_together(*choice):
            seen.add(choice)
            yield choice


def _plan(
    footprint: Footprint,
    machine: Machine,
    quantization: Quantization,
    offload: Offload,
) -> Plan:
    total = footprint.total(quantization)
    # With nothing offloaded, weights pass through the host one component at a time.
    host = footprint.largest(quantization)
    held = total
    if offload != "none":
        host = total
    if offload == "model":
        held = footprint.largest(quantization)
    elif offload == "group":
        # The layer at work, the next one on its way, and the VAE, which stays.
        held = 2 * footprint.largest_layer() + footprint.named("vae", quantization)
    elif offload == "sequential":
        held = footprint.largest_layer()
    peak = held + footprint.working
    fits = peak + RESERVE <= machine.device_free and host <= machine.host_free
    return Plan(quantization, offload, peak, host, fits)


def _large_picture(footprint: Footprint, info: ModelInfo) -> int:
    """How much more than the default the largest picture takes, in bytes."""
    width, height = info.sizes.default
    return footprint.working * info.sizes.max_pixels // (width * height)
