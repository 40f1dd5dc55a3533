"""An input picture is encoded once, and what is drawn is the same to the byte."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest

from flux_api.metrics.instruments import REGISTRY
from flux_api.models.catalog import MODEL_INFO
from tests.engine.test_engine import FAMILIES, LEFT, TINY, draw, family, noise, start
from tests.support.tiny_checkpoints import build

# Kontext's reference, a picture that is drawn over with noise, and one with a mask.
TINY_TASKS = {
    "edit": {"prompt": "a cat"},
    "variation": {},
    "inpaint": {"prompt": "a cat", "mask_image": LEFT},
}
EDITS = ("kontext", "fill", "klein edit")
OTHER = noise(9)


def models_of(name, folder):
    """The models, the name and what is asked for."""
    if name in TINY_TASKS:
        wanted = {"num_inference_steps": 2, "images": (noise(1),)}
        return MODEL_INFO, TINY, wanted | TINY_TASKS[name]
    checkpoint, task, row, wanted = FAMILIES[name]
    models = {name: family(build(checkpoint, folder / checkpoint), task, row)}
    return models, name, {"prompt": "a cat"} | wanted


@contextmanager
def encodings(backend, name):
    """How often the VAE of ``name`` encodes meanwhile: a list that grows."""
    loaded = backend.sets.use(name, print)
    task = next(iter(backend._models[name].tasks))
    vae, seen = loaded.load(task, (), print).pipeline.vae, []
    hook = vae.encoder.register_forward_hook(lambda *_: seen.append(1))
    yield seen
    hook.remove()


def lookups(word):
    """How many pictures were found, or missed, so far."""
    return REGISTRY.get_sample_value(f"flux_cache_{word}_total", {"cache": "pictures"})


@pytest.mark.parametrize("name", [*TINY_TASKS, *EDITS])
def test_n_pictures_and_a_repeat_encode_an_input_once(name, tmp_path):
    models, model, wanted = models_of(name, tmp_path)
    info, asked = models[model], {"seed": 3} | wanted
    manager, backend = start(models, model, 0)
    with encodings(backend, model) as seen:
        hits = lookups("hits")
        several = draw(manager, info, model, n=3, **asked)
        once = len(seen)
        assert once > 0
        assert lookups("hits") - hits == 2 * once
        again = draw(manager, info, model, n=3, **asked | {"seed": 3})
        assert len(seen) == once
        draw(manager, info, model, **asked | {"images": (OTHER,)})
        assert len(seen) == 2 * once
    manager, backend = start(models, model, 0, prompt_cache_bytes=0)
    with encodings(backend, model) as seen:
        without = draw(manager, info, model, n=3, **asked)
        assert len(seen) == 3 * once
    for one, other, plain in zip(several, again, without, strict=True):
        assert np.array_equal(one, other)
        assert np.array_equal(one, plain)
