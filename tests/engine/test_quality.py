"""How alike two pictures are, by the formulas of the literature written out."""

from __future__ import annotations

import numpy as np
import pytest

from flux_api.engine.quality import compare, psnr, ssim

SIDE = 11


def pictures(height):
    """Two of noise, the second half like the first."""
    chance = np.random.default_rng(height)
    one, other = chance.integers(0, 256, (2, height, SIDE, 3))
    return [p.astype(np.uint8) for p in (one, (one + other) // 2)]


def wang(x, y):
    """SSIM of one window of one colour: Wang et al., 2004, equation 13, with weights of
    1.5 pixels around its middle, K1 = 0.01 and K2 = 0.03."""
    far = np.arange(SIDE) - SIDE // 2
    weights = np.exp(-np.add.outer(far**2, far**2) / (2 * 1.5**2))
    weights /= weights.sum()
    mx, my = (weights * x).sum(), (weights * y).sum()
    vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
    both = (weights * (x - mx) * (y - my)).sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    alike = (2 * mx * my + c1) * (2 * both + c2)
    return alike / ((mx**2 + my**2 + c1) * (vx + vy + c2))


@pytest.mark.parametrize("height", [SIDE, SIDE + 2])
def test_ssim_is_the_mean_over_colours_and_windows(height):
    one, other = (p.astype(float) for p in pictures(height))
    expected = [
        wang(one[top : top + SIDE, :, colour], other[top : top + SIDE, :, colour])
        for top in range(height - SIDE + 1)
        for colour in range(3)
    ]
    assert ssim(*pictures(height)) == pytest.approx(np.mean(expected))


def test_several_pictures_are_as_alike_as_they_are_on_average():
    one, other = pictures(SIDE)
    found = compare([one, one], [one, other])
    assert found == pytest.approx(
        ((psnr(one, one) + psnr(one, other)) / 2, (1 + ssim(one, other)) / 2)
    )
