"""Weights that are loaded for a picture, and what is told meanwhile."""

from __future__ import annotations

import pytest
import torch

from flux_api.engine.backend import DiffusersBackend
from flux_api.errors import Cancelled, Unavailable
from flux_api.models.catalog import MODEL_INFO
from flux_api.queue.tasks import Callbacks, Picture
from tests.engine.test_engine import TINY
from tests.support.complete import complete

pytestmark = pytest.mark.usefixtures("one_thread")


class Watched:
    """Callbacks that note when loading begins and ends, and each sign of life that is
    asked for meanwhile; nobody waits any more where it is ``left``."""

    def __init__(self, *, left=False):
        self.told, self._left = [], left

    def _check(self):
        if self.told and self.told[-1] is True and self._left:
            raise Cancelled("Nobody waits.")

    @property
    def callbacks(self):
        return Callbacks(
            self._check, lambda *_: None, lambda *_: None, self.told.append
        )


def run(watched):
    """A picture of a backend that has loaded nothing yet."""
    backend = DiffusersBackend(MODEL_INFO, TINY, batch_tokens=0)
    request = complete(TINY, MODEL_INFO[TINY], prompt="a cat", num_inference_steps=1)
    return backend.run(Picture(request, 0, "job"), watched.callbacks)


@pytest.mark.parametrize("left", [False, True], ids=["waited for", "left"])
def test_loading_begins_and_ends_once_and_goes_on_for_others(left):
    """What is half loaded is loaded to its end all the same."""
    watched = Watched(left=left)
    assert run(watched).image.size == MODEL_INFO[TINY].sizes.default
    assert watched.told == [True, False]


@pytest.mark.parametrize(
    "place", ["components.load_folder_part", "loaded_set.LoadedSet.load"]
)
def test_loading_that_fails_for_want_of_memory_has_ended(place, monkeypatch):
    def fail(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(f"flux_api.loading.{place}", fail)
    watched = Watched()
    with pytest.raises(Unavailable, match="memory"):
        run(watched)
    assert watched.told == [True, False]
