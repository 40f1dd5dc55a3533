"""Hold all free memory of the GPU until standard input ends; says "full" once it does.

A child of ``benchmarks.gpu_http``.
"""

from __future__ import annotations

import sys

import torch


def main() -> None:
    """Take the memory in ever smaller pieces."""
    held, size = [], 1 << 34
    while size >= 1 << 20:
        try:
            held.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
        except torch.OutOfMemoryError:
            size //= 2
    print("full", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
