"""The GPU and the versions of what works with it, as a line of JSON; fails without.

A child of ``benchmarks.gpu_check``.
"""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version

import torch

PACKAGES = ("torch", "diffusers", "transformers", "bitsandbytes", "torchao")


def main() -> None:
    """Print it."""
    card = torch.cuda.get_device_properties(0)
    found = {"card": f"{card.name}, {card.total_memory / 2**30:.0f} GiB"}
    found["CUDA"] = str(torch.version.cuda)
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    print(json.dumps(found))


if __name__ == "__main__":
    main()
