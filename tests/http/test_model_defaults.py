"""Defaults filled in, at their bounds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PIL import Image

from flux_api.errors import InvalidRequest
from flux_api.http import model_defaults
from flux_api.http.model_defaults import check_size
from flux_api.http.parameters import Parameters
from flux_api.models.catalog import MODEL_INFO
from flux_api.models.sizes import SizeRules
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
    monkeypatch.setattr(model_defaults.secrets, "randbelow", lambda below: below - 1)
    made = complete("tiny", TINY, prompt="a cat", n=count)
    assert made.seed_of(count - 1) == 2**32 - 1


def edit(picture, **asked):
    """The size of an edit of a picture of this size, one side asked for."""
    parameters = Parameters.read({"prompt": "a cat"} | asked)
    inputs = model_defaults.Inputs((Image.new("RGB", picture),))
    made = model_defaults.complete_request("tiny", TINY, "edit", parameters, inputs)
    return made.width, made.height


def test_the_open_side_of_an_edit_follows_its_picture():
    assert edit((768, 512), width=384) == (384, 256)
    assert edit((768, 512), height=256) == (384, 256)
    # Of a line there is nothing to be seen; one side is as small as may be.
    assert edit((2000, 1), width=128) == (128, 64)
    assert edit((1, 2000), height=128) == (64, 128)


@pytest.mark.parametrize("side", ["width", "height"])
@pytest.mark.parametrize("pixels", [0, -64])
def test_a_side_of_nothing_is_refused_beside_a_picture_too(side, pixels):
    with pytest.raises(InvalidRequest, match="must be multiples of 16") as refused:
        edit((96, 64), **{side: pixels})
    assert refused.value.param == side


@pytest.mark.parametrize(
    ("asked", "given"),
    [({"width": 65}, "65x?"), ({"height": 65}, "?x65"), ({"size": "65x64"}, "65x64")],
    ids=str,
)
def test_a_side_that_was_left_open_is_told_as_such(asked, given):
    with pytest.raises(InvalidRequest) as refused:
        check_size(TINY, Parameters.read(asked))
    assert refused.value.limits["given"] == given


def test_a_side_left_open_is_no_fault_of_the_other():
    """Beside the default height this width would be too large; an input picture may
    yet say a smaller one."""
    sizes = SizeRules(default=(512, 512), max_pixels=512 * 512)
    wide = replace(TINY, sizes=sizes)
    check_size(wide, Parameters.read({"width": 512}))
    check_size(wide, Parameters.read({"width": 2048}))
    with pytest.raises(InvalidRequest):
        check_size(wide, Parameters.read({"width": 2048, "height": 512}))
