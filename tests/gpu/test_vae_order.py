"""A VAE's weights on a card lie as its convolutions read them, after a sleep too."""

from __future__ import annotations

import subprocess
import sys

from tests.support.servers import QUIET, ROOT

PROGRAM = """
from tests.gpu.simulated import switch_on
switch_on()
import torch
from flux_api.loading.model_sets import ModelSets
from flux_api.loading.placement import Placement
from flux_api.models.catalog import MODEL_INFO

sets = ModelSets(MODEL_INFO, lambda *_: Placement(torch.device("cuda")))
for _ in range(2):
    vae = sets.use("tiny", str).load("generate", (), str).pipeline.vae
    convolutions = [m.weight for m in vae.modules() if isinstance(m, torch.nn.Conv2d)]
    order = torch.channels_last
    print(all(w.is_cuda and w.is_contiguous(memory_format=order) for w in convolutions))
    print(sets.rest() or "rests")
"""


def test_channels_come_last(simulated):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=QUIET | {"SIMULATED_GPU_CARD": str(simulated.path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert done.stdout.split() == ["True", "rests"] * 2
