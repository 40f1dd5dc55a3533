"""The simulated GPU itself: what it refuses and counts is what a real one would."""

from __future__ import annotations

from tests.gpu.card_server import run_program
from tests.gpu.simulated import Card

PROGRAM = """
from tests.gpu.simulated import switch_on
import os
card = switch_on()
import torch

def why(action, *errors):
    try:
        action()
    except errors or RuntimeError as error:
        return str(error)

on_card, on_host = torch.ones(1000, device="cuda"), torch.ones(1000)
print(torch.accelerator.current_accelerator(check_available=True), on_card.device)
print((on_card * 2 + 1).sum().item())
print(why(lambda: on_card + on_host))
print(why(lambda: torch.randn(2, device="cuda", generator=torch.Generator())))
print(card.used)
print(torch.cuda.mem_get_info() == (card.limit - card.used, card.limit))
card.limit = card.used + 4096
print(why(lambda: torch.empty(2000, device="cuda"), torch.OutOfMemoryError))
del on_card
print(card.used)
pinned = on_host.pin_memory()
before = card.processes[os.getpid()]
pinned.to("cuda").cpu(), on_host.to("cuda")
after = card.processes[os.getpid()]
print({k: after[k] - before[k] for k in ("to_card", "unpinned", "to_host")})
card.set(os.getpid(), "lost", 1)
print(why(lambda: torch.zeros(1, device="cuda"), torch.AcceleratorError))
"""


def test_it_computes_counts_and_refuses_as_cuda_does(simulated, tmp_path):
    lines = run_program(PROGRAM, Card(tmp_path / "card"))
    assert lines[:2] == ["cuda cuda:0", "3000.0"]
    assert "two devices, cuda:0 and cpu" in lines[2]
    assert "generator" in lines[3]
    assert lines[4:6] == ["4096", "True"]
    assert "CUDA out of memory" in lines[6]
    assert lines[7] == "0"
    assert lines[8] == "{'to_card': 8000, 'unpinned': 4000, 'to_host': 4000}"
    assert "illegal memory access" in lines[9]
