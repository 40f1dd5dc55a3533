"""A prompt is encoded once, and the picture is the same to the byte."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from flux_api.engine.backend import DiffusersBackend
from flux_api.engine.prompt_cache import PromptCache
from flux_api.engine.tuning import Tuner
from flux_api.models.catalog import MODEL_INFO
from tests.engine.test_engine import FAMILIES, TINY, draw, family, start
from tests.support.complete import complete
from tests.support.tiny_checkpoints import build

CPU = torch.device("cpu")


@contextmanager
def encodings(backend, name):
    """How often the last text encoder of ``name`` runs meanwhile: a list that grows."""
    pipeline = backend.sets.use(name, print).load("generate", (), print).pipeline
    encoder = getattr(pipeline, "text_encoder_2", None) or pipeline.text_encoder
    seen = []
    hook = encoder.register_forward_hook(lambda *_: seen.append(1))
    yield seen
    hook.remove()


# The embedded model and klein's base are guided away from the empty prompt, which was
# encoded with the first picture.
@pytest.mark.parametrize(
    ("name", "prompts"), [("tiny", 2), ("klein", 1), ("klein-base", 2)]
)
def test_n_pictures_and_a_repeat_encode_once(name, prompts, tmp_path):
    if name == "tiny":
        models, wanted = MODEL_INFO, {"num_inference_steps": 2}
    else:
        _, task, row, wanted = FAMILIES["klein"]
        if name == "klein-base":
            row = replace(row, guidance_scale=4.0, num_inference_steps=2)
        models = {name: family(build(name, tmp_path / name), task, row)}
    manager, backend = start(models, name, 0)
    info = models[name]
    asked = {"prompt": "a red heart", "seed": 3} | wanted
    with encodings(backend, name) as seen:
        several = draw(manager, info, name, n=4, **asked)
        assert len(seen) == 1
        again = draw(manager, info, name, n=4, **asked)
        assert len(seen) == 1
        draw(manager, info, name, **asked | {"prompt": "a blue heart"})
        assert len(seen) == 2
    manager, backend = start(models, name, 0, prompt_cache_bytes=0)
    with encodings(backend, name) as seen:
        without = draw(manager, info, name, n=4, **asked)
        assert len(seen) == 4 * prompts
    for one, other, plain in zip(several, again, without, strict=True):
        assert np.array_equal(one, other)
        assert np.array_equal(one, plain)


def test_other_weights_and_other_lengths_are_other_prompts():
    backend = DiffusersBackend(MODEL_INFO, TINY)
    keys = []
    backend.prompts.get = lambda key, encode, device: keys.append(key) or encode()
    backend.load(print)
    call = complete(TINY, MODEL_INFO[TINY], prompt="a cat")
    weights, prompt, length = keys[0]
    assert weights[0] == TINY
    assert weights[1] == MODEL_INFO[TINY].base_model
    assert weights[2] == call.loras == ()
    assert isinstance(prompt, str)
    assert length > 0


def test_what_a_transformer_is_tuned_with_is_what_is_drawn_next():
    tuner = Tuner("speed", CPU, compiler="no-such-compiler")
    backend = DiffusersBackend(MODEL_INFO, TINY, tuner=tuner)
    keys = []
    backend.prompts.get = lambda key, encode, device: keys.append(key) or encode()
    backend.load(print)
    assert len(keys) > 1
    assert len({weights for weights, *_ in keys}) == 1


def made(number, size=4):
    """Embeddings of ``size`` floats."""
    return (torch.full((size,), float(number)),)


def test_the_cache_holds_the_newest_within_its_bytes():
    cache = PromptCache(32)  # two of them
    for number in (1, 2, 1, 3):
        cache.get(number, lambda n=number: made(n), CPU)
    # 2 was used longest ago.
    assert cache.get(1, lambda: made(9), CPU)[0][0] == 1
    assert cache.get(2, lambda: made(8), CPU)[0][0] == 8


def test_what_is_larger_than_the_cache_is_not_kept():
    cache = PromptCache(15)
    for number in (1, 2):
        assert cache.get("key", lambda n=number: made(n), CPU)[0][0] == number


def test_what_is_as_large_as_the_cache_is_kept():
    cache = PromptCache(16)
    for _ in range(2):
        assert cache.get("key", lambda: made(1), CPU)[0][0] == 1
    assert cache.get("key", lambda: made(2), CPU)[0][0] == 1


def test_work_in_place_does_not_reach_what_is_kept():
    cache = PromptCache(100)
    for _ in range(2):
        cache.get("key", lambda: made(1), CPU)[0].zero_()
    assert cache.get("key", lambda: made(9), CPU)[0][0] == 1
