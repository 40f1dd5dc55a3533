"""A larger decoder starts as the model's own, learns, and is shown beside it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file

from training import data as training_data
from training import larger, larger_sheet

TINY = Path(__file__).parents[2] / "models" / "tiny"
NAMES = ("red ball", "blue box", "green leaf", "moon", "house", "key")
LOOKS = ("noto", "twemoji", "flat")

pytestmark = [
    # Compiled code in torch's own libraries, seen on loading diffusers.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight"),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Pictures of coloured blocks in three styles, as the data of 128x128."""
    monkeypatch.setattr(training_data, "KNOWN_TO_START", 0)
    pictures, codes, styles = [], [], []
    for index, _ in enumerate(NAMES):
        for look in LOOKS:
            rgba = np.full((128, 128, 4), (255, 255, 255, 0), np.uint8)
            rgba[20 + 8 * index : 80, 30:90] = (40 * index, 200, 90, 255)
            pictures.append(rgba)
            codes.append(f"{index:x}")
            styles.append(look)
    np.savez(tmp_path / "emoji128.npz", images=pictures, code=codes, style=styles)
    words = {
        f"{index:x}": {"name": name, "tags": [], "group": "objects"}
        for index, name in enumerate(NAMES)
    }
    tmp_path.joinpath("words.json").write_text(json.dumps(words))
    tmp_path.joinpath("concepts.txt").write_text("\n".join(NAMES))
    return tmp_path


def given(folder):
    return [
        *("--data", str(folder), "--styles", ",".join(LOOKS)),
        *("--concepts", str(folder / "concepts.txt")),
    ]


def test_a_larger_decoder_starts_as_the_given_one():
    vae = AutoencoderKL.from_pretrained(TINY / "vae")
    torch.manual_seed(0)
    latents = torch.randn(2, 16, 8, 8)
    with torch.no_grad():
        made = larger.larger_vae(vae).decoder(latents)
        wanted = vae.decoder(latents)
    assert made.shape == (2, 3, 128, 128)
    off = torch.nn.functional.avg_pool2d(made, 2) - wanted
    assert off.abs().mean() < 0.1 * wanted.abs().mean()


def test_a_larger_decoder_trains_and_is_measured(folder, monkeypatch, capsys):
    out, state = folder / "decoder.safetensors", folder / "state.pt"
    trial = ["--budget", "2", "--batch", "2", "--state", str(state), "--out", str(out)]
    larger.main([*given(folder), *trial])
    weights = load_file(out)
    untrained = larger.larger_vae(AutoencoderKL.from_pretrained(TINY / "vae"))
    before = untrained.decoder.state_dict()
    assert weights.keys() == before.keys()
    assert any(not torch.equal(weights[name], before[name]) for name in before)

    monkeypatch.setattr(larger_sheet, "PROMPTS", ("a red heart",))
    monkeypatch.setattr(larger_sheet, "JAPANESE_PROMPTS", {"赤いハート": ""})
    monkeypatch.setattr(larger_sheet, "EDITED", 1)
    sheet = folder / "sheet.png"
    shown = ["--decoder", str(out), "--out", str(sheet)]
    monkeypatch.setattr(sys, "argv", ["larger_sheet", *given(folder), *shown])
    larger_sheet.main()
    lines = capsys.readouterr().out
    assert "its own decoder, enlarged: PSNR" in lines
    assert "the larger decoder: PSNR" in lines
    width = larger_sheet.COLUMNS * (2 * 128 + larger_sheet.GAP)
    with Image.open(sheet) as drawn:
        assert drawn.size == (width, 128 + larger_sheet.HEAD)  # four pairs, one row
