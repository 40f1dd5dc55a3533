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
# As NVIDIA's kernel module words it.
DRIVER = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Wed Feb 26 01:05:34 UTC\n"
NVIDIA, AMD, INTEL = "0x10de", "0x1002", "0x8086"


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Set what the machine has: PCI cards by vendor, NVIDIA's driver, PyTorch's build;
    what CUDA says when it starts."""

    def has(*vendors, driver=None, cuda=None, hip=None, answer=None):
        (tmp_path / "pci").mkdir()
        for number, vendor in enumerate(vendors):
            card = tmp_path / "pci" / f"0000:{number:02}:00.0"
            card.mkdir()
            (card / "vendor").write_text(vendor + "\n")
            # A display, or none as in a data centre.
            kind = "0x120000" if number else "0x030000"
            (card / "class").write_text(kind + "\n")
        # What is no GPU, though its maker makes some.
        other = tmp_path / "pci" / "0000:ff:00.0"
        other.mkdir()
        (other / "vendor").write_text(NVIDIA)
        (other / "class").write_text("0x040300")

        def init():
            if answer is not None:
                raise RuntimeError(answer)

        if driver is not None:
            (tmp_path / "driver").write_text(DRIVER.format(driver))
        monkeypatch.setattr(doctor_gpu, "_PCI", tmp_path / "pci")
        monkeypatch.setattr(doctor_gpu, "_DRIVER", tmp_path / "driver")
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
        ({}, [INTEL, NVIDIA], ["there is an NVIDIA card"]),
    ],
)
def test_it_says_why_there_is_none(machine, has, cards, words):
    machine(*cards, **has)
    text = report()
    assert text.startswith("  GPU      none that PyTorch can use\n")
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    ("driver", "told"),
    [(None, "none"), ("570.124.06", "570.124.06"), ("470.1", "470.1"), ("", "unknown")],
)
def test_the_driver_is_named(machine, driver, told):
    machine(NVIDIA, driver=driver, cuda="12.8")
    assert f"  driver   {told}; PyTorch {torch.__version__}" in report()


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
    card = Machine(12 * GIB, GIB, "A Card", bfloat16=False)
    text = report(torch.device("cuda"), card)
    assert "A Card, 12.0 of 16.0 GiB free" in text
    assert "other programs hold 4.0 GiB" in text
    assert "through ROCm 6.4" in text
    assert "FLUX.1 runs in float16, others in float32" in text


def test_of_a_card_that_lacks_nothing_nothing_more_is_said(machine, monkeypatch):
    machine(NVIDIA, driver="570.124.06", cuda="12.8")
    properties = SimpleNamespace(total_memory=16 * GIB)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    # Some of it is always the system's.
    card = Machine(15 * GIB, GIB, "A Card")
    assert len(report(torch.device("cuda"), card).splitlines()) == 2
