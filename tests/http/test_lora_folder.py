"""A LoRA folder that is empty, or away for a moment."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest
from PIL import Image

from flux_api import create_app
from flux_api.core import Lora
from flux_api.errors import Unavailable
from flux_api.http.marking import mark
from flux_api.images.codec import encode_image
from flux_api.queue.manager import PipelineManager
from flux_api.settings import Settings
from tests.queue.test_results import a_job


@pytest.fixture
def folder(tmp_path):
    """A LoRA folder, with nothing in it."""
    made = tmp_path / "loras"
    made.mkdir()
    return made


@pytest.fixture
def context(folder):
    """What views work with where this is the LoRA folder."""
    settings = Settings.from_env({"FLUX_LORA_DIR": str(folder)})
    manager = PipelineManager(threading.Event().wait)
    return create_app(settings, manager=manager).extensions["flux_api"]


def test_an_empty_folder_is_no_fault_and_one_that_is_away_is(context, folder):
    assert context.lora_files == {}
    folder.rmdir()
    with pytest.raises(Unavailable, match="cannot be read at the moment") as caught:
        _ = context.lora_files
    assert caught.value.retry_after
    folder.mkdir()
    assert context.lora_files == {}


def test_a_picture_is_finished_though_the_folder_went_away_meanwhile(context, folder):
    (folder / "ink.safetensors").write_bytes(b"weights")
    request = replace(a_job().request, loras=(Lora("ink", 0.5),))
    file = encode_image(Image.new("RGB", (8, 8)), "png", 100)

    def loras():
        _, recipe = mark(context, request, {"seed": 1}, file, 100)
        return json.loads(recipe)["loras"]

    [told] = loras()
    assert (told["name"], told["adapter_weight"], len(told["sha256"])) == (
        "ink",
        0.5,
        64,
    )
    (folder / "ink.safetensors").unlink()
    folder.rmdir()
    # Of what it was is nothing left to be said.
    assert loras() == [{"name": "ink", "adapter_weight": 0.5}]
