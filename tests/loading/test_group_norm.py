"""Group norms whose sums are split give what torch's own give."""

from __future__ import annotations

import pytest
import torch

from flux_api.loading.group_norm import is_split, split, unsplit


def norm_of(dtype):
    """A group norm whose weights count."""
    torch.manual_seed(1)
    norm = torch.nn.GroupNorm(8, 32, eps=1e-6).to(dtype)
    with torch.no_grad():
        norm.weight.normal_(1, 0.3)
        norm.bias.normal_()
    return norm


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("mean", [0.0, 50.0])
@pytest.mark.parametrize(
    ("dtype", "most"), [(torch.float32, 2e-3), (torch.bfloat16, 2**-6)]
)
def test_pictures_come_out_as_from_torch(order, batch, mean, dtype, most):
    norm = norm_of(dtype)
    pictures = (torch.randn(batch, 32, 24, 16) * 2 + mean).to(dtype)
    pictures = pictures.to(memory_format=order)
    with torch.no_grad():
        exact = norm(pictures)
        assert split(norm)
        near = norm(pictures)
    assert near.dtype == exact.dtype and near.shape == exact.shape
    assert ((near - exact).abs() <= most * exact.abs().clamp(min=1)).all()


def test_tokens_do_too():
    """As the attention of a VAE has them."""
    norm, tokens = norm_of(torch.float32), torch.randn(2, 32, 100)
    with torch.no_grad():
        exact = norm(tokens)
        split(norm)
        assert torch.allclose(norm(tokens), exact, atol=1e-5)


def test_flat_pictures_stay_finite():
    norm = norm_of(torch.float32)
    split(norm)
    with torch.no_grad():
        flat = norm(torch.full((1, 32, 8, 8), 3.0))
    bias = norm.bias.detach().reshape(1, -1, 1, 1).expand_as(flat)
    assert torch.allclose(flat, bias, atol=1e-2)


def test_it_is_taken_back_to_the_last_bit():
    parts = torch.nn.Sequential(norm_of(torch.float32), torch.nn.SiLU())
    pictures = torch.randn(1, 32, 8, 8)
    with torch.no_grad():
        before = parts(pictures)
        assert split(parts) and is_split(parts)
        unsplit(parts)
        assert not is_split(parts)
        assert (parts(pictures) == before).all()


def test_what_has_no_group_norms_is_left_alone():
    parts = torch.nn.Sequential(torch.nn.SiLU(), torch.nn.GroupNorm(2, 4, affine=False))
    assert not split(parts)
    assert not is_split(parts)
