"""Previews are fitted once a VAE, and a fit is used for that VAE alone."""

from __future__ import annotations

import os
import shutil

import pytest
import torch
from diffusers import AutoencoderKL

from flux_api.loading import preview_fits
from flux_api.loading.latent_preview import SIDE, fit
from flux_api.loading.model_sets import ModelSets
from flux_api.loading.placement import Placement
from flux_api.loading.preview_fits import FILE, PreviewFits, encoder_hash
from flux_api.models.catalog import MODEL_INFO
from flux_api.models.info import ModelInfo
from flux_api.models.sources import Folder

TINY = MODEL_INFO["tiny"].base_model.path


@pytest.fixture
def vae():
    """The embedded model's."""
    return AutoencoderKL.from_pretrained(TINY / "vae")


@pytest.fixture
def fitted(monkeypatch):
    """The VAEs that were fitted anew: a list that grows. A fit, which takes seconds, is
    the number of it instead."""
    seen = []

    def noted(vae):
        seen.append(vae)
        return torch.full((4, 3 * SIDE * SIDE), float(len(seen)))

    monkeypatch.setattr(preview_fits, "fit", noted)
    return seen


def test_the_shipped_fit_is_what_would_be_fitted(vae, fitted):
    shipped = PreviewFits(None).get(vae, TINY / FILE)
    assert fitted == []
    assert torch.allclose(shipped, fit(vae), rtol=0, atol=1e-4)


def test_a_fit_is_kept_from_start_to_start(vae, fitted, tmp_path):
    for _ in range(2):
        found = PreviewFits(tmp_path / "previews").get(vae, None)
        assert (len(fitted), found.max()) == (1, 1)


def test_a_decoder_trained_further_changes_nothing(vae):
    before = encoder_hash(vae)
    with torch.no_grad():
        vae.decoder.conv_in.weight.mul_(2)
    assert encoder_hash(vae) == before
    assert encoder_hash(vae.to(torch.bfloat16)) == before


def other_weight(vae):
    with torch.no_grad():
        vae.encoder.conv_in.weight[0, 0, 0, 0] += 1


def other_scale(vae):
    vae.register_to_config(scaling_factor=0.5)


@pytest.mark.parametrize("change", [other_weight, other_scale])
def test_another_encoder_is_fitted_anew(vae, fitted, tmp_path, change):
    fits = PreviewFits(tmp_path)
    fits.get(vae, None)
    change(vae)
    found = fits.get(vae, TINY / FILE)
    assert (len(fitted), found.max()) == (2, 2)


@pytest.mark.parametrize("damage", [b"", b"{}", None], ids=["empty", "short", "cut"])
def test_a_damaged_file_is_fitted_anew(vae, fitted, tmp_path, damage):
    file = tmp_path / FILE
    whole = (TINY / FILE).read_bytes()
    file.write_bytes(whole[:-100] if damage is None else damage)
    PreviewFits(None).get(vae, file)
    assert len(fitted) == 1


@pytest.mark.parametrize(
    "made", [torch.zeros(65, 5), torch.zeros(192), torch.full((65, 192), torch.nan)]
)
def test_a_file_of_other_numbers_is_fitted_anew(vae, fitted, tmp_path, made):
    preview_fits.write_fit(tmp_path / FILE, encoder_hash(vae), made)
    PreviewFits(None).get(vae, tmp_path / FILE)
    assert len(fitted) == 1


def test_a_folder_that_cannot_be_written_stops_nobody(vae, fitted, tmp_path):
    (tmp_path / "file").write_text("in the way")
    PreviewFits(tmp_path / "file" / "previews").get(vae, None)
    assert len(fitted) == 1


def test_a_file_that_cannot_be_written_stops_nobody(vae, fitted, tmp_path):
    # A folder in its place, as root may write whatever else there is.
    name = f"{encoder_hash(vae)[:32]}.{os.getpid()}.part"
    (tmp_path / name).mkdir()
    PreviewFits(tmp_path).get(vae, None)
    assert len(fitted) == 1


def test_a_set_uses_the_file_in_its_folder(fitted, tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(TINY, folder)
    info = ModelInfo(
        base_model=Folder(folder),
        tasks=MODEL_INFO["tiny"].tasks,
        sizes=MODEL_INFO["tiny"].sizes,
    )
    for expected in (0, 1):
        sets = ModelSets({"mine": info}, lambda *_: Placement(torch.device("cpu")))
        sets.use("mine", print).load("generate", (), print)
        assert len(fitted) == expected
        (folder / FILE).unlink(missing_ok=True)
