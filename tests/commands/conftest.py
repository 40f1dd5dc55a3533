"""What several of the commands' tests share."""

from __future__ import annotations

import logging
import os
import sys
from types import SimpleNamespace

import pytest

from flux_api.commands.program import run


@pytest.fixture
def doctor(monkeypatch, capsys):
    """``flux-api doctor`` in this process, which imported torch and diffusers before;
    by itself it would take as long for that as for all else."""
    # The command keeps it from being imported, and others here may need it.
    monkeypatch.setitem(sys.modules, "bitsandbytes", sys.modules.get("bitsandbytes"))

    def doctor(*arguments, **settings):
        environ = os.environ | {name: str(value) for name, value in settings.items()}
        code = run(["doctor", *map(str, arguments)], environ)
        told = capsys.readouterr()
        return SimpleNamespace(returncode=code, stdout=told.out, stderr=told.err)

    # A file that it looks at has it silence the loaders.
    loading = logging.getLogger("flux_api.loading")
    before = loading.level
    yield doctor
    loading.setLevel(before)
