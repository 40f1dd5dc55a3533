"""Sizes at their very bounds."""

from __future__ import annotations

import pytest

from flux_api.errors import InvalidRequest
from flux_api.models.sizes import SizeRules

RULES = SizeRules(default=(512, 512), max_pixels=1024 * 1024)


@pytest.mark.parametrize("size", [(1024, 1024), (2048, 512), (64, 64), (64, 2048)])
def test_what_is_legal_stays_as_it_is(size):
    assert RULES.fit(size) == size
    assert RULES.choose(RULES.default, size, None) == size


@pytest.mark.parametrize("size", [(1040, 1024), (2064, 64), (48, 64), (72, 64)])
def test_what_is_not_is_refused_and_fitted_to_what_is(size):
    with pytest.raises(InvalidRequest):
        RULES.choose(RULES.default, size, None)
    width, height = RULES.fit(size)
    assert RULES.allows(width) and RULES.allows(height)
    assert width * height <= RULES.max_pixels


@pytest.mark.parametrize(
    ("size", "fitted"),
    [
        ((4096, 2048), (1456, 720)),
        ((8192, 64), (2048, 64)),
        ((640, 10_000), (128, 2048)),
        ((32, 16), (128, 64)),
        ((100, 300), (96, 304)),
    ],
)
def test_a_picture_keeps_its_shape_as_far_as_it_may(size, fitted):
    assert RULES.fit(size) == fitted


def test_any_shape_has_a_legal_size():
    for size in ((1, 10**6), (10**6, 1), (1, 1), (4096, 4096), (10**5, 10**5)):
        width, height = RULES.fit(size)
        assert RULES.allows(width) and RULES.allows(height), size
        assert width * height <= RULES.max_pixels, size


def test_a_limit_in_all_is_told_where_two_longest_sides_pass_it():
    assert str(SizeRules()) == "multiples of 16 from 64 to 2048"
    more = ", 1.0 megapixels in all at most"
    assert str(RULES) == "multiples of 16 from 64 to 2048" + more
