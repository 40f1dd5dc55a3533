"""Previews: latents as a transformer sees them, and the pictures made of them."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch

from flux_api.loading.latent_preview import LONGEST, SIDE, LinearPreview, pack
from tests.support import tiny_checkpoints

SIZE = (64, 96)  # height, width


class AsPart:
    """Stands for a pipeline whose VAE is all that is asked for."""

    _patchify_latents = staticmethod(diffusers.Flux2KleinPipeline._patchify_latents)

    def __init__(self, vae):
        self.vae = vae


def flux1_latents(vae, pictures):
    """As FLUX.1's pipeline makes them of a picture."""
    pipeline = diffusers.FluxKontextPipeline
    latents = pipeline._encode_vae_image(AsPart(vae), pictures, None)
    return pipeline._pack_latents(latents, *latents.shape)


def flux2_latents(vae, pictures):
    """As FLUX.2's does."""
    pipeline = diffusers.Flux2KleinPipeline
    latents = pipeline._encode_vae_image(AsPart(vae), pictures, None)
    return pipeline._pack_latents(latents)


def flux2_vae():
    """With statistics that are not those of a new one, and some that are small."""
    vae = tiny_checkpoints._flux2_vae().eval()
    vae.register_to_config(batch_norm_eps=0.01)
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0, 0.1)
    return vae


@pytest.mark.parametrize(
    ("make", "expected"),
    [(tiny_checkpoints._flux1_vae, flux1_latents), (flux2_vae, flux2_latents)],
    ids=["flux1", "flux2"],
)
def test_a_map_is_fitted_to_the_latents_that_pipelines_make(make, expected):
    torch.manual_seed(0)
    vae, pictures = make().eval(), torch.rand(2, 3, *SIZE) * 2 - 1
    packed = pack(vae, pictures)
    assert packed.shape[:2] == (2, SIZE[0] // 16 * SIZE[1] // 16)
    with torch.no_grad():
        assert torch.allclose(packed, expected(vae, pictures), rtol=1e-4, atol=1e-5)


@pytest.fixture
def grey():
    """One whose picture is as bright as the latents' only channel says, -1 to 1."""
    weight = torch.zeros(2, 3 * SIDE * SIDE)
    weight[0] = 1
    return LinearPreview(weight)


@pytest.mark.parametrize(
    ("width", "height", "side"),
    [(1, 2, 8), (32, 20, 8), (33, 20, 4), (20, 64, 4), (65, 1, 2), (129, 300, 1)],
)
def test_a_preview_is_of_bounded_size_whatever_the_picture(grey, width, height, side):
    shown = grey.draw(torch.zeros(width * height + 5, 1), width, height)
    assert shown.size == (width * side, height * side)
    assert max(shown.size) <= max(LONGEST, width, height)


def test_each_token_is_shown_in_its_place(grey):
    tokens = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0, 9.0])[:, None]
    shown = np.asarray(grey.draw(tokens, 3, 2))[::SIDE, ::SIDE, 0]
    assert shown.tolist() == [[0, 63, 127], [191, 255, 255]]


def test_latents_that_are_no_numbers_are_shown_all_the_same(grey):
    shown = grey.draw(torch.full((4, 1), float("nan")), 2, 2)
    assert shown.getpixel((0, 0)) == (0, 0, 0)
