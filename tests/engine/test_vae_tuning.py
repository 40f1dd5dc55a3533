"""How a VAE decodes on a card: as it was quickest when it was tried."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKL

from flux_api.engine import vae_tuning
from flux_api.engine.trial import is_faster
from flux_api.engine.vae_tuning import tune_vae
from flux_api.loading.group_norm import is_split

CARD = torch.device("cuda")


@pytest.fixture
def vae():
    torch.manual_seed(1)
    return AutoencoderKL(block_out_channels=(32,), latent_channels=4).eval()


def decode(vae):
    torch.manual_seed(2)
    with torch.no_grad():
        return vae.decode(torch.randn(1, 4, 8, 8), return_dict=False)[0]


def order_of(vae):
    """That of its first convolution of more than one channel."""
    weight = vae.decoder.conv_in.weight
    return (
        "channels last"
        if weight.is_contiguous(memory_format=torch.channels_last)
        else "rows"
    )


def tune(vae, monkeypatch, *seconds):
    """Whether it is quicker where the trials take so long."""
    found = iter(seconds)

    def next_seconds(*_):
        one = next(found)
        if isinstance(one, Exception):
            raise one
        return one

    monkeypatch.setattr(vae_tuning, "decoding_seconds", next_seconds)
    return tune_vae(vae, CARD, is_faster, lambda: None)


@pytest.mark.parametrize(
    ("seconds", "order"),
    [((1.0, 0.5, 0.6), "rows"), ((1.0, 0.6, 0.5), "channels last")],
)
def test_the_quickest_way_is_kept(seconds, order, vae, monkeypatch):
    before = decode(vae)
    assert tune(vae, monkeypatch, *seconds)
    assert (is_split(vae), order_of(vae)) == (True, order)
    assert torch.allclose(decode(vae), before, atol=1e-4)
    # Another checkpoint that shares it does not try again.
    assert tune(vae, monkeypatch)


@pytest.mark.parametrize(
    "seconds",
    [(1.0, 0.99, 1.5), (1.0, 0.5, torch.OutOfMemoryError("full"))],
    ids=["hardly quicker", "no memory to try in"],
)
def test_it_decodes_as_before_otherwise(seconds, vae, monkeypatch):
    before = decode(vae)
    if isinstance(seconds[-1], Exception):
        with pytest.raises(torch.OutOfMemoryError):
            tune(vae, monkeypatch, *seconds)
    else:
        assert not tune(vae, monkeypatch, *seconds)
    assert (is_split(vae), order_of(vae)) == (False, "rows")
    assert (decode(vae) == before).all()


def test_a_cpu_tries_nothing(vae):
    assert not tune_vae(vae, torch.device("cpu"), is_faster, lambda: None)
    assert not is_split(vae)
