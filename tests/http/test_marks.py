"""What a finished picture's file says of its guidance, as other tools read it."""

from __future__ import annotations

import re
import threading
from dataclasses import replace

import pytest
from PIL import Image

from flux_api import create_app
from flux_api.core import ImageResult
from flux_api.http.marking import mark
from flux_api.http.pictures import describe
from flux_api.images.codec import encode_image
from flux_api.queue.manager import PipelineManager
from flux_api.settings import Settings
from tests.queue.test_results import a_job

MODELS = ("tiny", "klein-base-4b", "flux1", "klein-4b")


@pytest.fixture(scope="module")
def context():
    """What views work with where several models write their prompts."""
    environ = {"FLUX_METADATA": "prompt", "FLUX_MODELS": ",".join(MODELS)}
    manager = PipelineManager(threading.Event().wait)
    app = create_app(Settings.from_env(environ), manager=manager)
    return app.extensions["flux_api"]


@pytest.mark.parametrize(
    ("model", "guidance", "told"),
    [
        # Each with a second forward without the prompt: that is what they call CFG.
        ("tiny", 3.5, ["CFG scale: 3.5"]),
        ("klein-base-4b", 4.0, ["CFG scale: 4"]),
        # This one has learned it.
        ("flux1", 2.5, ["CFG scale: 1", "Distilled CFG Scale: 2.5"]),
        ("klein-4b", None, ["CFG scale: 1"]),
    ],
)
def test_guidance_is_told_by_the_name_that_tools_know(context, model, guidance, told):
    request = replace(a_job().request, model=model, guidance_scale=guidance)
    picture = Image.new("RGB", (8, 8))
    facts = describe(request, ImageResult(picture, 1))
    file, _ = mark(context, request, facts, encode_image(picture, "png", 100), 100)
    found = re.findall(rb"(?:Distilled )?CFG [Ss]cale: [0-9.]+", file.data)
    assert [text.decode() for text in found] == told
