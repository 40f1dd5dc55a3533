"""What waits on the lock of the device: nothing that can be done without the device."""

from __future__ import annotations

import contextlib
import threading

import pytest
from PIL import Image

from flux_api.engine.backend import DiffusersBackend
from flux_api.engine.shared_forward import ForwardBatcher
from flux_api.models.catalog import MODEL_INFO
from flux_api.queue.tasks import Callbacks, Picture
from tests.engine.test_engine import FAMILIES, TINY, build, family, noise, outcome
from tests.engine.test_engine import start as start_backend
from tests.support.complete import complete
from tests.support.submitting import submit

PHOTO = (4000, 3000)
MASK = Image.linear_gradient("L").resize(PHOTO)


class Holders(threading.local):
    """Whether this thread holds the device."""

    held = False


@pytest.fixture
def resized(monkeypatch):
    """From how many pixels pictures are resized, by whether the device is held."""
    here, found = Holders(), {True: [], False: []}
    taken, resize = ForwardBatcher.taken, Image.Image.resize

    @contextlib.contextmanager
    def noted_taken(batcher):
        with taken(batcher):
            here.held = True
            try:
                yield
            finally:
                here.held = False

    def noted(image, *args, **kwargs):
        made = resize(image, *args, **kwargs)
        if made.size != image.size:
            found[here.held].append(image.width * image.height)
        return made

    monkeypatch.setattr(ForwardBatcher, "taken", noted_taken)
    monkeypatch.setattr(Image.Image, "resize", noted)
    return found


def edit(manager, info, name, **wanted):
    """Two pictures out of a photo."""
    photo = noise(1, (400, 300)).resize(PHOTO)
    wanted = {"num_inference_steps": 2, "size": (96, 64), "n": 2, **wanted}
    request = complete(name, info, prompt="a cat", images=(photo,), seed=1, **wanted)
    job = submit(manager, request)
    outcome(job)
    return job


def photos(found):
    """How often a whole photo was resized."""
    return found.count(PHOTO[0] * PHOTO[1])


@pytest.mark.parametrize("wanted", [{}, {"mask_image": MASK}], ids=["edit", "masked"])
def test_a_photo_is_shrunk_once_per_request_and_by_nobody_who_holds_the_device(
    resized, wanted
):
    manager, _ = start_backend(MODEL_INFO, TINY, 0)
    for sizes in resized.values():
        sizes.clear()
    edit(manager, MODEL_INFO[TINY], TINY, **wanted)
    # The photo itself beforehand; picture and mask at two sizes each.
    assert photos(resized[False]) == (4 if wanted else 1)
    assert resized[True] == []


def test_a_reference_goes_straight_to_the_size_at_which_it_is_read(resized, tmp_path):
    checkpoint, task, row, _ = FAMILIES["klein edit"]
    models = {"klein": family(build(checkpoint, tmp_path / "klein"), task, row)}
    manager, _ = start_backend(models, "klein", 0)
    for sizes in resized.values():
        sizes.clear()
    edit(manager, models["klein"], "klein")
    assert photos(resized[False]) == 1
    # Cut to whole patches by the pipeline.
    assert all(pixels <= 1024 * 1024 for pixels in resized[True])


def test_a_newcomer_prepares_while_the_device_is_held():
    """Between two steps of another's picture, whatever its own is like."""
    backend = DiffusersBackend(MODEL_INFO, TINY, batch_tokens=0)
    backend.load(lambda _: None)
    inside, go_on = threading.Event(), threading.Event()

    def hold(*_):
        inside.set()
        go_on.wait()

    info = MODEL_INFO[TINY]
    first = complete(TINY, info, prompt="a dog", seed=1, num_inference_steps=2)
    photo = noise(1, (400, 300)).resize(PHOTO)
    newcomer = complete(TINY, info, prompt="a cat", images=(photo,), seed=1)
    callbacks = Callbacks(lambda: None, hold, lambda *_: None, lambda _: None)
    picture = Picture(first, 0, "first")
    runs = threading.Thread(target=backend.run, args=(picture, callbacks))
    runs.start()
    assert inside.wait(30)
    prepares = threading.Thread(target=backend.prepare, args=(newcomer,))
    prepares.start()
    prepares.join(30)
    try:
        assert not prepares.is_alive()
    finally:
        go_on.set()
        runs.join(30)
