"""FLUX_PERFORMANCE=speed on a card where nothing compiles: its VAE decodes faster."""

from __future__ import annotations

import pytest

from tests.gpu.card_server import run_program

PROGRAM = """
from tests.gpu.simulated import switch_on
switch_on()
from itertools import count
import numpy as np
import torch
from flux_api.engine import vae_tuning
from flux_api.engine.backend import DiffusersBackend
from flux_api.engine.tuning import Tuner
from flux_api.loading.group_norm import is_split
from flux_api.models.catalog import MODEL_INFO
from flux_api.queue.tasks import Callbacks, Picture
from tests.support.complete import complete

info, device = MODEL_INFO["tiny"], torch.device("cuda")
quiet = Callbacks(*[lambda *_: None] * 4)
request = complete("tiny", info, prompt="a red heart", seed=1, size=(64, 64))
pictures, real, times = [], vae_tuning.decoding_seconds, count(9, -1)
# Times of a simulated card say nothing: each way is quicker than the one before.
vae_tuning.decoding_seconds = lambda *given: real(*given) * 0 + next(times)
for level in ("exact", "speed"):
    tuner = Tuner(level, device, compiler="none")
    backend = DiffusersBackend({"tiny": info}, "tiny", batch_tokens=0, tuner=tuner)
    backend.load(str)
    drawn = backend.run(Picture(request, 0, "job"), quiet)
    vae = backend.sets.use("tiny", str).load("generate", (), str).pipeline.vae
    print(drawn.performance, is_split(vae))
    pictures.append(np.asarray(drawn.image).astype(int))
print(np.abs(pictures[1] - pictures[0]).max() <= 3)
"""


def test_the_picture_is_nearly_the_same_and_says_how_it_was_made(card):
    if card is None:
        pytest.skip("a real card has a compiler")
    assert run_program(PROGRAM, card) == ["exact False", "speed True", "True"]
