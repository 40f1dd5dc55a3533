"""The device that torch works on: its memory, its pace, and whether it is lost."""

from __future__ import annotations

import gc
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

# How CUDA and the libraries below torch say that they got no memory, in an error of no
# type of its own.
_ALLOCATION_FAILED = (
    # A kernel is brought to the card when it is first called, which takes memory there.
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    # What a full card makes of the handle of one more thread.
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "DEVICE_ALLOCATION_FAILED",
    # cuDNN, where there is no room for the workspace of any of its ways.
    "unable to find an engine to execute this computation",
    "Unable to find a valid cuDNN algorithm",
)
_CPUINFO = Path("/proc/cpuinfo")
# Less is what a desktop or a driver holds on any card.
FOREIGN_SHARE = 0.1


def device_name(device: torch.device) -> str:
    """What ``device`` is sold as; a CPU with the number of threads that compute."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    try:
        about = _CPUINFO.read_text("utf-8")
    except OSError:
        about = ""
    found = re.search(r"^model name\s*: (.*)$", about, re.M)
    name = found[1] if found else platform.machine()
    return f"{name}, {torch.get_num_threads()} threads"


def bytes_of(device: torch.device) -> tuple[int, int]:
    """How many bytes of the GPU ``device`` are free, by all programs, and all of them.
    None are free where not even CUDA finds a place, as it needs to be asked."""
    try:
        return torch.cuda.mem_get_info(device)
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
    return 0, torch.cuda.get_device_properties(device).total_memory


def free_memory() -> None:
    """Give back what nothing refers to any more, memory of the device and pinned memory
    that are cached too."""
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()
    empty_host_cache()


def empty_host_cache() -> None:
    """Give back pinned memory that is cached."""
    # Without CUDA there is none: torch 2.13 looks for it all the same, and on Apple's
    # devices the process ends. Before 2.12 torch has no way to.
    if torch.cuda.is_available() and hasattr(torch.accelerator, "empty_host_cache"):
        torch.accelerator.empty_host_cache()


def device_memory() -> dict[str, int] | None:
    """How many bytes of the GPU's ``total`` are ``used``, by all programs; None on
    anything else."""
    if not torch.cuda.is_available():
        return None
    free, total = bytes_of(torch.device("cuda"))
    return {"used": total - free, "total": total}


def others_hold_memory() -> bool:
    """Whether other processes hold a tenth of the device's memory or more."""
    if not torch.cuda.is_available():
        return False
    free, total = bytes_of(torch.device("cuda"))
    return total - free - torch.cuda.memory_reserved() > FOREIGN_SHARE * total


@contextmanager
def allocation_failures() -> Iterator[None]:
    """Raise torch.OutOfMemoryError for what CUDA, cuBLAS and cuDNN have no memory
    for."""
    try:
        yield
    except RuntimeError as error:
        if _ran_out(error):
            raise torch.OutOfMemoryError(first_line(error)) from error
        raise


def _ran_out(error: RuntimeError) -> bool:
    return any(word in str(error) for word in _ALLOCATION_FAILED)


def first_line(error: BaseException) -> str:
    """What ``error`` says, without the advice that torch adds to it."""
    return str(error).partition("\n")[0] or type(error).__name__


def is_lost(device: torch.device) -> bool:
    """Whether ``device`` fails at the smallest of tasks, as it does for good once a
    kernel has gone wrong: only a new process can go on."""
    if device.type == "cpu":
        return False
    try:
        torch.zeros(1, device=device).add_(1).item()
    except torch.OutOfMemoryError:
        return False
    except RuntimeError as error:
        return not _ran_out(error)
    return False


@contextmanager
def losses(device: torch.device) -> Iterator[None]:
    """Raise torch.AcceleratorError for what a library says of ``device`` once it is
    lost, in an error of no type of its own; torch.OutOfMemoryError where it is short of
    memory alone."""
    try:
        with allocation_failures():
            yield
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except RuntimeError as error:
        if is_lost(device):
            raise torch.AcceleratorError(first_line(error)) from error
        raise


class Pace:
    """Keeps the host at most one step ahead of the accelerator's queue, so that a step
    that is reported is done, and a cancellation takes effect within one."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before: torch.Event | None = None

    def step(self) -> None:
        """A step was handed over: wait for the one before it."""
        if self._device.type == "cpu":
            return
        event = torch.Event(self._device)
        event.record()
        if self._before is not None:
            self._before.synchronize()
        self._before = event
