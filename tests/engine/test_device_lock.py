"""What waits on the lock of the device: nothing that can be done without the device."""

from __future__ import annotations

import contextlib
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.tokenization_utils_tokenizers import TokenizersBackend

from flux_api.core import PartialImage
from flux_api.engine.backend import DiffusersBackend
from flux_api.engine.shared_forward import ForwardBatcher
from flux_api.errors import StillWorking
from flux_api.images.previews import show_preview
from flux_api.models.catalog import MODEL_INFO, TaskDefaults
from flux_api.queue.tasks import Callbacks, Picture
from tests.engine.test_engine import FAMILIES, TINY, build, family, noise, outcome
from tests.engine.test_engine import start as start_backend
from tests.support.complete import complete
from tests.support.servers import wait_for
from tests.support.submitting import submit

PHOTO = (4000, 3000)
MASK = Image.linear_gradient("L").resize(PHOTO)


class Holders(threading.local):
    """Whether this thread holds the device."""

    held = False


@pytest.fixture
def holders(monkeypatch):
    """Says of each thread whether it holds the device."""
    here, taken = Holders(), ForwardBatcher.taken

    @contextlib.contextmanager
    def noted_taken(batcher):
        with taken(batcher):
            here.held = True
            try:
                yield
            finally:
                here.held = False

    monkeypatch.setattr(ForwardBatcher, "taken", noted_taken)
    return here


@pytest.fixture
def resized(holders, monkeypatch):
    """From how many pixels pictures are resized, by whether the device is held."""
    found, resize = {True: [], False: []}, Image.Image.resize

    def noted(image, *args, **kwargs):
        made = resize(image, *args, **kwargs)
        if made.size != image.size:
            found[holders.held].append(image.width * image.height)
        return made

    monkeypatch.setattr(Image.Image, "resize", noted)
    return found


@pytest.fixture
def tokenized(holders, monkeypatch):
    """The texts that tokenizers read, by whether the device is held."""
    found, read = {True: [], False: []}, TokenizersBackend._encode_plus

    def noted(tokenizer, text, *args, **kwargs):
        found[holders.held].append(text)
        return read(tokenizer, text, *args, **kwargs)

    monkeypatch.setattr(TokenizersBackend, "_encode_plus", noted)
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


def test_a_preview_is_scaled_by_who_reads_it(resized):
    manager, _ = start_backend(MODEL_INFO, TINY, 0)
    for sizes in resized.values():
        sizes.clear()
    info = MODEL_INFO[TINY]
    asked = {"prompt": "a cat", "size": (96, 64), "partial_images": 2}
    job = submit(manager, complete(TINY, info, images=(noise(1),), **asked))
    # Until its end: then they are gone.
    previews = [event for event in job.events(30) if isinstance(event, PartialImage)]
    assert len(previews) == 2
    assert resized[True] == []
    assert max(show_preview(previews[-1].preview).size) == 96


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


FLUX2 = TaskDefaults(
    pipeline="Flux2Pipeline",
    num_inference_steps=2,
    guidance_scale=4.0,
    guidance_parameter="guidance_scale",
)
READERS = {
    "tiny": {"negative_prompt": "a dog", "guidance_scale": 3.0},
    "flux1": {},
    "klein": {},
    "flux2": {},
}


@pytest.mark.parametrize("name", READERS)
def test_who_holds_the_device_tokenizes_nothing(tokenized, name, tmp_path):
    """And the picture is the one of a prompt that nobody read before."""
    families = FAMILIES | {"flux2": ("flux2-dev", "generate", FLUX2, {})}
    models = MODEL_INFO
    if name in families:
        checkpoint, task, row, _ = families[name]
        models = {name: family(build(checkpoint, tmp_path / name), task, row)}
    asked = {"prompt": "a red heart " * 9, "seed": 1, "n": 2} | READERS[name]
    request = complete(
        name, models[name], num_inference_steps=2, size=(64, 64), **asked
    )
    # Without embeddings of the picture before.
    options = {"batch_tokens": 0, "prompt_cache_bytes": 0}
    unread = DiffusersBackend(models, name, **options)
    unread.load(lambda _: None)
    quiet = Callbacks(lambda: None, *[lambda *_: None] * 3)
    plain = unread.run(Picture(request, 0, "unread"), quiet).image
    manager, _ = start_backend(models, name, **options)
    for texts in tokenized.values():
        texts.clear()
    first, _ = outcome(submit(manager, request))
    assert any("red heart" in str(text) for text in tokenized[False])
    assert tokenized[True] == []
    assert np.array_equal(first, np.asarray(plain))


def test_a_step_copies_nothing_from_the_device(monkeypatch):
    """What tells whether forwards can be shared is read once a picture; its pixels
    leave as the bytes that they are in a file."""
    manager, _ = start_backend(MODEL_INFO, TINY, 100_000)
    copied, copy = [], torch.Tensor.cpu
    monkeypatch.setattr(
        torch.Tensor, "cpu", lambda tensor: copied.append(tensor) or copy(tensor)
    )
    counts = []
    for steps in (3, 6):
        request = complete(
            TINY, MODEL_INFO[TINY], prompt="a cat", n=2, num_inference_steps=steps
        )
        outcome(submit(manager, request))
        pixels = [tensor for tensor in copied if tensor.shape[-1] == 3]
        assert [tensor.dtype for tensor in pixels if tensor.ndim == 3] == [
            torch.uint8
        ] * 2
        assert all(tensor.is_contiguous() for tensor in pixels)
        counts.append(len(copied))
        copied.clear()
    assert counts[0] == counts[1] > 2


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


def test_weights_stay_with_a_picture_that_begins_as_they_are_to_leave(monkeypatch):
    """It has a forward to do while they wait for the device: it lends that to them."""
    manager, backend = start_backend(MODEL_INFO, TINY, 4096)
    begun, told = threading.Event(), []
    forward = ForwardBatcher.forward

    def late(batcher, *given):
        begun.set()
        # Nobody else asks for the device here.
        wait_for(lambda: batcher._arriving or told, 20)
        return forward(batcher, *given)

    def leave():
        try:
            backend.sleep("host")
            told.append(None)
        except StillWorking as error:
            told.append(error)

    monkeypatch.setattr(ForwardBatcher, "forward", late)
    request = complete(TINY, MODEL_INFO[TINY], prompt="a cat", seed=1, size=(64, 64))
    job = submit(manager, request)
    assert begun.wait(60)
    sleeping = threading.Thread(target=leave)
    sleeping.start()
    sleeping.join(60)
    assert isinstance(told[0], StillWorking)
    assert not backend.sets.rests
    outcome(job)
