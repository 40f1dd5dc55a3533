"""The device that torch works on."""

from __future__ import annotations

import gc

import torch


def free_memory() -> None:
    """Give back what nothing refers to any more, the device's cached memory too."""
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()
