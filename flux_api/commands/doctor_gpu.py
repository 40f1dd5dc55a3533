"""Which GPU this machine has, and why PyTorch cannot use it where it cannot."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import torch

from flux_api.loading.device import FOREIGN_SHARE, first_line
from flux_api.loading.footprint import GIB
from flux_api.loading.plan import Machine

# Seen without a driver, which is often what is missing.
_PCI = Path("/sys/bus/pci/devices")
_DRIVER = Path("/proc/driver/nvidia/version")
_MAKERS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel"}
# Display controllers, and accelerators without a display.
_CLASSES = ("0x03", "0x12")
_NEXT = " " * 11


def gpu_lines(device: torch.device, machine: Machine) -> Iterator[str]:
    """What there is to say of the GPU, a line each."""
    if device.type == "cuda":
        yield from _cuda_lines(device, machine)
    elif device.type == "mps":
        yield "  GPU      Apple's, through MPS"
        yield from _UNPLANNED
    elif device.type == "xpu":
        yield "  GPU      Intel's, through XPU"
        yield from _UNPLANNED
    else:
        yield "  GPU      none that PyTorch can use"
        yield from (f"{_NEXT}{line}" for line in _reasons(makers()))
    yield f"  driver   {driver_version() or 'none'}; PyTorch {torch.__version__}"


_UNPLANNED = (
    f"{_NEXT}this server was never tried there: FLUX_MEMORY plans for CUDA only, so",
    f"{_NEXT}weights lie on it whole, in bfloat16; the models are judged without it",
)


def _cuda_lines(device: torch.device, machine: Machine) -> Iterator[str]:
    total = torch.cuda.get_device_properties(device).total_memory
    yield (
        f"  GPU      {machine.device_name}, {machine.device_free / GIB:.1f} of "
        f"{total / GIB:.1f} GiB free"
    )
    if (held := total - machine.device_free) > FOREIGN_SHARE * total:
        yield f"{_NEXT}other programs hold {held / GIB:.1f} GiB, see nvidia-smi;"
        yield f"{_NEXT}models are judged by what they leave, with --gpu by a whole card"
    if torch.version.hip is not None:
        yield f"{_NEXT}through ROCm {torch.version.hip}: never tried with this server"
    if not machine.bfloat16:
        yield f"{_NEXT}older than Ampere: FLUX.1 runs in float16, others in float32"


def makers() -> list[str]:
    """Who made the GPUs on this machine's PCI bus; nothing where that cannot be seen,
    as in some containers."""
    found = []
    for card in sorted(_PCI.glob("*")):
        try:
            kind = (card / "class").read_text().strip()
            vendor = (card / "vendor").read_text().strip()
        except OSError:
            continue
        if kind.startswith(_CLASSES) and vendor in _MAKERS:
            found.append(_MAKERS[vendor])
    return found


def _reasons(cards: list[str]) -> Iterator[str]:
    """Why there is none, and what to do about it."""
    driver, cuda = driver_version(), torch.version.cuda
    # A container may see the driver and no bus.
    if "NVIDIA" in cards or driver is not None:
        yield from _nvidia_reasons(driver, cuda)
    elif "AMD" in cards and torch.version.hip is None:
        yield "there is an AMD card, and this PyTorch is not the build for ROCm;"
        yield "TORCH_INDEX_URL with make install chooses one (untested)"
    elif "AMD" in cards:
        yield "there is an AMD card, and ROCm's driver does not answer: see rocminfo"
    elif cuda is not None:
        yield f"this PyTorch is built for CUDA {cuda}; no NVIDIA card is to be seen:"
        yield "in a container: start it with --gpus all"
    elif "Intel" in cards:
        yield "there are Intel graphics; PyTorch's build for XPU is untested"


def _nvidia_reasons(driver: str | None, cuda: str | None) -> Iterator[str]:
    version = torch.__version__.partition("+")[0]
    if cuda is None:
        yield "there is an NVIDIA card, and this PyTorch is a build without CUDA:"
        yield f".venv/bin/python -m pip install --force-reinstall torch=={version}"
        return
    if driver is None:
        yield "there is an NVIDIA card; no driver of it is loaded: install NVIDIA's,"
        yield "until nvidia-smi lists the card"
        return
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
        why = "it lists no card"
    except (RuntimeError, AssertionError) as error:
        why = first_line(error)
    yield f"NVIDIA's driver {driver} does not work with PyTorch for CUDA {cuda}:"
    yield why
    yield "a newer driver, or a restart after its update, or CUDA_VISIBLE_DEVICES unset"


def driver_version() -> str | None:
    """The version of the NVIDIA kernel driver; None without one."""
    try:
        text = _DRIVER.read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"\s(\d+\.\d+(\.\d+)?)\s", text)
    return found[1] if found else "unknown"
