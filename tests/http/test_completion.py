"""Defaults filled in, at their bounds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flux_api.http import completion
from flux_api.models.catalog import MODEL_INFO
from tests.support.complete import complete

TINY = MODEL_INFO["tiny"]


def with_steps(count):
    """A model whose own number of steps is ``count``."""
    task = replace(TINY.tasks["generate"], num_inference_steps=count)
    return replace(TINY, tasks={"generate": task})


@pytest.mark.parametrize(
    ("own", "quality", "steps"),
    [(4, "low", 2), (1, "low", 1), (4, None, 4), (4, "max", 12), (100, "max", 200)],
)
def test_quality_takes_a_share_of_the_models_steps_within_what_may_be(
    own, quality, steps
):
    made = complete("own", with_steps(own), prompt="a cat", quality=quality)
    assert made.num_inference_steps == steps


@pytest.mark.parametrize("count", [1, 10])
def test_every_random_seed_is_one_that_javascript_can_send_back(monkeypatch, count):
    monkeypatch.setattr(completion.secrets, "randbelow", lambda below: below - 1)
    made = complete("tiny", TINY, prompt="a cat", n=count)
    assert made.seed_of(count - 1) == 2**32 - 1
