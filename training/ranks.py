"""Data parallelism without fuss: a process per core or GPU, one all-reduce a step.

On a shared machine two single-threaded ranks lose far less to other load than one
process with two OpenMP threads, which waits for its slowest thread in every layer.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import cache
from pathlib import Path

import torch
import torch.distributed as dist

RANK = int(os.environ.get("RANK", 0))
WORLD = int(os.environ.get("WORLD_SIZE", 1))


def start_rank() -> torch.device:
    """Join the other ranks and return the device that this one trains on."""
    if torch.cuda.is_available():
        torch.cuda.set_device(RANK)
        device = torch.device("cuda", RANK)
    else:
        torch.set_num_threads(1)
        device = torch.device("cpu")
    if WORLD > 1 and not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        # Ranks may be stopped for a while (kill -STOP): waiting for them is no fault.
        dist.init_process_group(backend, timeout=timedelta(days=1))
    return device


def stop_rank() -> None:
    """Leave the group, so that the interpreter ends without a warning."""
    if dist.is_initialized():
        dist.destroy_process_group()


def share_start(tensors: Iterable[torch.Tensor]) -> None:
    """Give every rank the first rank's values."""
    if WORLD > 1:
        for tensor in tensors:
            dist.broadcast(tensor.data, 0)


def average_gradients(parameters: Sequence[torch.nn.Parameter]) -> None:
    """Average the gradients over the ranks, in one exchange."""
    if WORLD == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([grad.reshape(-1) for grad in grads])
    if flat.is_cuda:
        dist.all_reduce(flat, dist.ReduceOp.AVG)
    else:
        _average_in_memory(flat)
    parts = flat.split([grad.numel() for grad in grads])
    shaped = [p.view_as(g) for p, g in zip(parts, grads, strict=True)]
    torch._foreach_copy_(grads, shaped)


def _average_in_memory(flat: torch.Tensor) -> None:
    """Average over the ranks of one machine through memory that they share.

    Gloo sends 50 MB of gradients through a socket, a fifth of a step's time.
    """
    shared = _shared_rows(flat.numel())
    shared[RANK].copy_(flat)
    dist.barrier()
    torch.mean(shared, 0, out=flat)
    dist.barrier()


@cache
def _shared_rows(length: int) -> torch.Tensor:
    name = f"training-{os.environ['MASTER_PORT']}-{length}"
    path = Path(tempfile.gettempdir(), name)
    rows = torch.from_file(str(path), shared=True, size=WORLD * length)
    dist.barrier()
    if RANK == 0:
        path.unlink()  # the mapping stays until both processes end
    return rows.view(WORLD, length)


def agree(value: float) -> float:
    """Return the first rank's value on every rank."""
    if WORLD == 1:
        return value
    shared = torch.tensor([value], dtype=torch.float64)
    if dist.get_backend() == "nccl":
        shared = shared.cuda()
    dist.broadcast(shared, 0)
    return shared.item()


def launch(ranks: int, module: str, arguments: Sequence[str]) -> None:
    """Run a module in this many ranks on this machine and wait for all of them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    if not torch.cuda.is_available():
        shared |= {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-u", "-m", module, *arguments]
    running = [
        subprocess.Popen(command, env=os.environ | shared | {"RANK": str(rank)})
        for rank in range(ranks)
    ]
    codes = [process.wait() for process in running]
    if any(codes):
        raise SystemExit(f"{module} failed in a rank: exit statuses {codes}")
