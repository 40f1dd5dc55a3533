"""Install torch in the build that fits this machine: ``install_torch.py torch==X.Y.Z``.

``TORCH_INDEX_URL`` decides where it is set. Otherwise a machine with an NVIDIA driver
takes the default build (CUDA), any other one PyTorch's CPU build, a tenth of the size,
or whatever build satisfies the pin where PyTorch's own index is out of reach.
"""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def main(requirement: str) -> int:
    """Install ``requirement`` unless it is there already; pip's exit status."""
    if is_installed(requirement):
        return 0
    index = os.environ.get("TORCH_INDEX_URL")
    if not index and not has_nvidia_driver() and answers(f"{CPU_INDEX}/torch/"):
        index = CPU_INDEX
    chosen = ["--index-url", index] if index else []
    command = [sys.executable, "-m", "pip", "install", *chosen, requirement]
    return subprocess.run(command, check=False).returncode


def is_installed(requirement: str) -> bool:
    """Whether the pinned version is there, in whatever build."""
    name, _, pinned = requirement.partition("==")
    try:
        return version(name).partition("+")[0] == pinned
    except PackageNotFoundError:
        return False


def has_nvidia_driver() -> bool:
    """Whether the kernel driver of an NVIDIA card is loaded (or WSL's)."""
    return any(
        Path(path).exists()
        for path in (
            "/proc/driver/nvidia/version",
            "/dev/nvidiactl",
            "/usr/lib/wsl/lib/nvidia-smi",
        )
    )


def answers(url: str) -> bool:
    """Whether ``url`` can be had."""
    try:
        with urllib.request.urlopen(url, timeout=10):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
