"""What libraries say of a device, in words that callers and operators can use."""

from __future__ import annotations

import platform

import pytest
import torch

from flux_api.loading import device
from flux_api.loading.device import (
    allocation_failures,
    device_memory,
    device_name,
    first_line,
    is_lost,
    losses,
    others_hold_memory,
)

CPU = torch.device("cpu")
SHORT = (
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
    "GET was unable to find an engine to execute this computation",
)


@pytest.mark.parametrize("text", SHORT)
def test_a_library_without_memory_is_a_card_without_memory(text):
    """It says so in an error of no type of its own."""
    with pytest.raises(torch.OutOfMemoryError) as caught, allocation_failures():
        raise RuntimeError(text)
    assert str(caught.value) == text.partition("\n")[0]
    with pytest.raises(torch.OutOfMemoryError), losses(CPU):
        raise RuntimeError(text)


@pytest.mark.parametrize("guard", [allocation_failures, lambda: losses(CPU)])
def test_other_errors_stay_what_they_are(guard):
    """A CPU is never lost."""
    for error in (RuntimeError("shapes cannot be multiplied"), ValueError("out of")):
        with pytest.raises(type(error)) as caught, guard():
            raise error
        assert caught.value is error
    assert not is_lost(CPU)


def test_an_error_without_words_has_the_name_of_its_kind():
    assert first_line(MemoryError()) == "MemoryError"
    assert first_line(RuntimeError("one\ntwo")) == "one"


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("flags : a\nmodel name\t: A Processor @ 2 GHz\nmodel name\t: B", "A Proce"),
        # As some ARM machines and other systems have it.
        ("flags : a\n", platform.machine()),
        (None, platform.machine()),
    ],
)
def test_a_processor_is_known_by_its_name_and_threads(
    monkeypatch, tmp_path, told, name
):
    monkeypatch.setattr(device, "_CPUINFO", tmp_path / "cpuinfo")
    if told is not None:
        (tmp_path / "cpuinfo").write_text(told)
    found = device_name(CPU)
    assert found.startswith(name)
    assert found.endswith(f", {torch.get_num_threads()} threads")
    assert device_name(torch.device("mps")) == "mps"


def test_without_a_gpu_nobody_holds_its_memory():
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    assert device_memory() is None
    assert others_hold_memory() is False
