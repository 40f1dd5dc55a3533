"""What libraries find when they are imported: settings, and bitsandbytes where it may
be asked for."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace

import pytest
import torch

from flux_api.loading.libraries import SPIN_COUNT, prepare_libraries
from flux_api.models.catalog import MODEL_INFO
from flux_api.models.sources import Folder
from flux_api.settings import Settings

KLEIN = MODEL_INFO["klein-4b"]
VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "TORCHINDUCTOR_CACHE_DIR")


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """A process in which nothing of it is decided, without a GPU; afterwards all is as
    it was."""
    for name in VARIABLES:
        # First, so that what was not there is gone again.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.delitem(sys.modules, "bitsandbytes")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def is_kept_out(settings, models):
    """Whether an import of bitsandbytes fails from now on."""
    prepare_libraries(settings, models)
    return "bitsandbytes" in sys.modules and sys.modules["bitsandbytes"] is None


def packed(folder):
    """A component that was quantized when it was saved."""
    folder.mkdir(parents=True)
    config = {"quantization_config": {"quant_method": "bitsandbytes"}}
    (folder / "config.json").write_text(json.dumps(config))
    return Folder(folder)


@pytest.mark.parametrize(
    ("settings", "own", "gpu", "kept_out"),
    [
        ({}, None, False, True),
        ({"quantization": "fp8"}, None, False, True),
        ({"quantization": "none"}, None, True, True),
        ({"memory": "manual"}, None, True, True),
        # What is chosen by the card's memory may be packed.
        ({}, None, True, False),
        ({"quantization": "nf4"}, None, False, False),
        ({"quantization": "int8"}, None, False, False),
        ({}, "nf4", False, False),
    ],
)
def test_bitsandbytes_is_imported_where_it_may_be_asked_for(
    monkeypatch, settings, own, gpu, kept_out
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    models = {"klein": replace(KLEIN, quantization=own)}
    assert is_kept_out(Settings(**settings), models) is kept_out


def test_folders_that_were_quantized_before_ask_for_it(tmp_path):
    plain = replace(KLEIN, base_model=Folder(tmp_path / "plain"))
    (tmp_path / "plain" / "transformer").mkdir(parents=True)
    (tmp_path / "plain" / "transformer" / "config.json").write_text("{}")
    own = packed(tmp_path / "elsewhere")
    packed(tmp_path / "whole" / "text_encoder")
    whole = replace(KLEIN, base_model=Folder(tmp_path / "whole"))
    beside = replace(plain, components={"transformer": own})
    for info in (whole, beside):
        assert not is_kept_out(Settings(), {"plain": plain, "packed": info})
    assert is_kept_out(Settings(), {"plain": plain})


def test_threads_that_wait_sleep_soon_unless_somebody_knows_better(monkeypatch):
    prepare_libraries(Settings(), {})
    assert os.environ["GOMP_SPINCOUNT"] == SPIN_COUNT
    monkeypatch.setenv("GOMP_SPINCOUNT", "5")
    prepare_libraries(Settings(), {})
    assert os.environ["GOMP_SPINCOUNT"] == "5"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    prepare_libraries(Settings(), {})
    assert "GOMP_SPINCOUNT" not in os.environ


@pytest.mark.parametrize("performance", ["speed", "max", "exact"])
def test_what_is_compiled_is_kept_where_the_server_keeps_its_state(
    tmp_path, performance
):
    settings = Settings(performance=performance, state_dir=tmp_path)
    prepare_libraries(settings, {})
    folder = None if performance == "exact" else str(tmp_path / "compiled")
    assert os.environ.get("TORCHINDUCTOR_CACHE_DIR") == folder
