"""``doctor`` says which GPU there is, and why PyTorch cannot use it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from flux_api.commands import doctor_gpu
from flux_api.commands.doctor_gpu import gpu_lines
from flux_api.loading.footprint import GIB
from flux_api.loading.plan import Machine

CPU = torch.device("cpu")
NVIDIA, AMD, INTEL = "0x10de", "0x1002", "0x8086"


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Set what the machine has: PCI cards by vendor, NVIDIA's driver, PyTorch's build;
    what CUDA says when it starts."""

    def has(*vendors, driver=None, cuda=None, hip=None, answer=None):
        for number, vendor in enumerate(vendors):
            card = tmp_path / f"0000:{number:02}:00.0"
            card.mkdir()
            (card / "vendor").write_text(vendor + "\n")
            (card / "class").write_text("0x030000\n")
        # What is no GPU, though its maker makes some.
        other = tmp_path / "0000:ff:00.0"
        other.mkdir()
        (other / "vendor").write_text(NVIDIA)
        (other / "class").write_text("0x040300")

        def init():
            if answer is not None:
                raise RuntimeError(answer)

        monkeypatch.setattr(doctor_gpu, "_PCI", tmp_path)
        monkeypatch.setattr(doctor_gpu, "driver_version", lambda: driver)
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch.version, "hip", hip)
        monkeypatch.setattr(torch.cuda, "init", init)

    return has


def report(device=CPU, machine=None):
    return "\n".join(gpu_lines(device, machine or Machine(0, GIB)))


@pytest.mark.parametrize(
    ("has", "cards", "words"),
    [
        ({}, [NVIDIA], ["build without CUDA", "pip install --force-reinstall torch=="]),
        ({"driver": "570.1"}, [], ["build without CUDA"]),
        ({"cuda": "12.8"}, [NVIDIA], ["no driver of it is loaded", "nvidia-smi"]),
        (
            {
                "cuda": "12.8",
                "driver": "470.1",
                "answer": "too old (found 11040).\nSee",
            },
            [NVIDIA],
            ["driver 470.1 does not work", "CUDA 12.8", "too old (found 11040).\n"],
        ),
        ({"cuda": "12.8", "driver": "570.1"}, [NVIDIA], ["it lists no card"]),
        ({"cuda": "12.8"}, [], ["no NVIDIA card is to be seen", "--gpus all"]),
        ({}, [AMD], ["AMD card", "not the build for ROCm", "TORCH_INDEX_URL"]),
        ({"hip": "6.4"}, [AMD], ["ROCm's driver does not answer"]),
        ({}, [INTEL], ["Intel graphics", "XPU"]),
        ({}, [INTEL, NVIDIA], ["an NVIDIA card is here"]),
    ],
)
def test_it_says_why_there_is_none(machine, has, cards, words):
    machine(*cards, **has)
    text = report()
    assert text.startswith("  GPU      none that PyTorch can use\n")
    for word in words:
        assert word in text


def test_without_any_card_there_is_nothing_to_explain(machine):
    machine()
    assert len(report().splitlines()) == 2


@pytest.mark.parametrize(
    ("kind", "word"), [("mps", "Apple's, through MPS"), ("xpu", "Intel's, through XPU")]
)
def test_other_accelerators_are_named_for_what_they_are(machine, kind, word):
    machine()
    text = report(torch.device(kind))
    assert word in text and "FLUX_MEMORY plans for CUDA only" in text


def test_a_card_of_cuda_is_shown_with_what_it_lacks(machine, monkeypatch):
    machine(AMD, hip="6.4")
    properties = SimpleNamespace(total_memory=16 * GIB)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    card = Machine(15 * GIB, GIB, "A Card", bfloat16=False)
    text = report(torch.device("cuda"), card)
    assert "A Card, 15.0 of 16.0 GiB free" in text
    assert "through ROCm 6.4" in text
    assert "FLUX.1 runs in float16, other sets in float32" in text
