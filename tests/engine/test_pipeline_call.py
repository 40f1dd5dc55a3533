"""A request in a pipeline's words, and the sizes of what it gives back."""

from __future__ import annotations

import dataclasses

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from flux_api.engine.pipeline_call import PipelineCall
from flux_api.engine.prompt_cache import PromptCache
from flux_api.engine.steps import encode_prompt, first_call
from flux_api.models.catalog import MODEL_INFO
from tests.engine.test_engine import FAMILIES, TINY, draw, family, start
from tests.support.complete import complete
from tests.support.tiny_checkpoints import build

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_works_at_the_size_that_is_asked_for(name, tmp_path):
    """In tokens of 16x16 pixels; Kontext's pipeline would take a megapixel instead."""
    checkpoint, task, row, wanted = FAMILIES[name]
    folder = build(checkpoint, tmp_path / checkpoint)
    pipeline = getattr(diffusers, row.pipeline).from_pretrained(folder)
    info = family(folder, task, row)
    request = complete(name, info, prompt="a cat", size=(64, 128), **wanted)
    call = PipelineCall(request, info, row, 1)
    assert call.token_grid == (4, 8)
    prepared = call.prepare(pipeline)
    # The model's own: the pipelines' defaults are those of undistilled ones.
    assert prepared["guidance_scale"] == row.guidance_scale
    kwargs = encode_prompt(pipeline, prepared, PromptCache(0), None, CPU)
    tokens = first_call(pipeline, kwargs, pipeline.vae)["hidden_states"].shape[1]
    # A picture that is looked at, of 64x64, comes behind the one that is drawn.
    assert tokens == 4 * 8 + (4 * 4 if task == "edit" else 0)


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((96, 64), (96, 64)),
        ((1024, 512), (256, 128)),
        ((512, 1024), (128, 256)),
        ((16, 8192), (1, 256)),
        ((8192, 16), (256, 1)),
    ],
)
def test_a_preview_has_the_shape_asked_for_in_256_pixels(size, shown):
    info = MODEL_INFO[TINY]
    request = complete(TINY, info, prompt="a cat")
    request = dataclasses.replace(request, width=size[0], height=size[1])
    call = PipelineCall(request, info, info.tasks["generate"], 1)
    assert call.preview(Image.new("RGB", (64, 64))).size == shown


@pytest.mark.parametrize(
    ("checkpoint", "guidance_scale", "read"),
    [("klein-base", 4.0, True), ("klein-base", 1.0, False), ("klein", 4.0, False)],
)
def test_klein_reads_a_negative_prompt_where_it_is_guided(
    checkpoint, guidance_scale, read, tmp_path
):
    """Its pipeline takes the embeddings of one alone; undistilled sets read them."""
    folder = build(checkpoint, tmp_path / checkpoint)
    row = dataclasses.replace(
        FAMILIES["klein"][2],
        guidance_scale=guidance_scale,
        num_inference_steps=2,
        negative_prompt=True,
    )
    info = family(folder, "generate", row)
    manager, _ = start({"klein": info}, "klein", 0)
    asked = {"prompt": "a cat", "seed": 1, "size": (64, 64)}
    plain, away = (
        draw(manager, info, "klein", **asked, negative_prompt=text)[0]
        for text in ("", "a fish")
    )
    assert np.array_equal(plain, away) is not read
