"""The engine over real pipelines: shared forwards, cancellation, memory, determinism.

In this process, over tiny random checkpoints of the families and the embedded model.
"""

from __future__ import annotations

import concurrent.futures
import threading
import traceback

import numpy as np
import pytest
import torch
from PIL import Image

from flux_api.core import Completed, Failed, PartialImage, Progress
from flux_api.engine.backend import DiffusersBackend
from flux_api.engine.drawing import preview_due
from flux_api.engine.shared_forward import ForwardBatcher, PositionIds
from flux_api.errors import Cancelled
from flux_api.images.previews import show_preview
from flux_api.loading.device import Pace, free_memory, is_lost
from flux_api.models.catalog import MODEL_INFO, ModelInfo, TaskDefaults
from flux_api.models.sizes import SizeRules
from flux_api.models.sources import Folder
from flux_api.queue.manager import PipelineManager
from flux_api.queue.tasks import BackendBroken
from tests.support.complete import complete
from tests.support.scrape import forwards
from tests.support.submitting import submit
from tests.support.tiny_checkpoints import build

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = "tiny"


def start(models, default, batch_tokens, **options):
    """A running manager and its backend."""
    backend = DiffusersBackend(models, default, batch_tokens=batch_tokens, **options)
    manager = PipelineManager(lambda: backend)
    backend.load(lambda _: None)
    manager.start()
    ready = threading.Event()
    while manager.not_ready is not None:
        ready.wait(0.01)
    return manager, backend


@pytest.fixture(scope="module")
def serial():
    """The embedded model, one picture at a time."""
    return start(MODEL_INFO, TINY, 0)


def transformer_of(backend, name=TINY):
    """The module behind the gate."""
    loaded = backend.sets.use(name, print)
    return loaded.load("generate", (), print).pipeline.transformer


def request_of(info, name=TINY, **wanted):
    """A complete request."""
    return complete(name, info, **wanted)


def outcome(job):
    """The job's pictures as arrays."""
    ended = job.wait(120)
    assert isinstance(ended, Completed), getattr(ended, "error", ended)
    return [np.asarray(result.image).astype(int) for result in ended.results]


def draw(manager, info, name=TINY, **wanted):
    """One request's pictures as arrays."""
    return outcome(submit(manager, request_of(info, name, **wanted)))


def noise(seed, size=(64, 64)):
    """A picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3))
    return Image.fromarray(pixels.astype(np.uint8))


def guided(pipeline, **options):
    """The row of a FLUX.1 pipeline."""
    return TaskDefaults(
        pipeline=pipeline,
        num_inference_steps=4,
        guidance_scale=3.5,
        guidance_parameter="guidance_scale",
        **options,
    )


SIZES = SizeRules(default=(64, 64))
STEPS = [3, 5, 8, 4, 6, 2]
LEFT = Image.fromarray(np.repeat([[255] * 32 + [0] * 32], 64, 0).astype(np.uint8))


def family(folder, mode, row):
    """A set of one task over the checkpoint in ``folder``."""
    tasks = {mode: row}
    return ModelInfo(base_model=Folder(folder), tasks=tasks, sizes=SIZES)


FAMILIES = {
    "flux1": ("dev", "generate", guided("FluxPipeline"), {}),
    "kontext": (
        "kontext",
        "edit",
        guided("FluxKontextPipeline"),
        {"images": (noise(1),)},
    ),
    "fill": (
        "fill",
        "inpaint",
        guided("FluxFillPipeline"),
        {"images": (noise(1),), "mask_image": LEFT},
    ),
    "klein": (
        "klein",
        "generate",
        TaskDefaults(
            pipeline="Flux2KleinPipeline", num_inference_steps=4, guidance_scale=1.0
        ),
        {},
    ),
    "klein edit": (
        "klein",
        "edit",
        TaskDefaults(
            pipeline="Flux2KleinPipeline", num_inference_steps=4, guidance_scale=1.0
        ),
        {"images": (noise(2),)},
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_requests_at_different_steps_share_forwards(name, tmp_path):
    checkpoint, task, row, wanted = FAMILIES[name]
    models = {name: family(build(checkpoint, tmp_path / checkpoint), task, row)}
    manager, backend = start(models, name, 100_000)
    asked = [
        {"prompt": f"a cat {i}", "num_inference_steps": steps, "seed": i, **wanted}
        for i, steps in enumerate(STEPS)
    ]
    begun = forwards()
    alone = [draw(manager, models[name], name, **one) for one in asked]
    before = forwards()
    assert before - begun == sum(STEPS)
    jobs = [submit(manager, request_of(models[name], name, **one)) for one in asked]
    together = [outcome(job) for job in jobs]
    assert forwards() - before <= sum(STEPS) / 2
    for one, other in zip(alone, together, strict=True):
        assert np.abs(one[0] - other[0]).max() <= 1


def test_pictures_of_another_shape_keep_their_own_positions(tmp_path):
    """Wide and tall have equally many tokens; FLUX.2's transformer would take the
    first one's position ids for both. Its attention is made to look at them."""
    info = family(build("klein", tmp_path / "klein"), "generate", FAMILIES["klein"][2])
    manager, backend = start({"klein": info}, "klein", 100_000)
    with torch.no_grad():
        for name, weight in transformer_of(backend, "klein").named_parameters():
            if "attn" in name and "norm" not in name:
                weight.mul_(30)
    shapes = [{"size": (64, 128)}, {"size": (128, 64)}]
    asked = [
        {"prompt": "a cat", "seed": seed, "num_inference_steps": 4, **shape}
        for seed, shape in enumerate(shapes * 2)
    ]
    alone = [draw(manager, info, "klein", **one) for one in asked]
    before = forwards()
    jobs = [submit(manager, request_of(info, "klein", **one)) for one in asked]
    for job, picture in zip(jobs, alone, strict=True):
        assert np.abs(outcome(job)[0] - picture[0]).max() <= 1
    # Those of one shape still share.
    assert forwards() - before < 4 * len(asked)


def test_a_picture_looks_for_its_type_once(tmp_path, monkeypatch):
    """FLUX.2's pipelines ask at each step, and diffusers goes through all modules."""
    info = family(build("klein", tmp_path / "klein"), "generate", FAMILIES["klein"][2])
    manager, backend = start({"klein": info}, "klein", 0)
    transformer, asked = transformer_of(backend, "klein"), []
    kind, dtype = type(transformer), transformer.dtype
    monkeypatch.setattr(kind, "dtype", property(lambda _: asked.append(1) or dtype))
    draw(manager, info, "klein", prompt="a cat", seed=1, num_inference_steps=6)
    assert len(asked) == 1


def test_pictures_of_one_request_share_forwards_within_the_budget():
    manager, backend = start(MODEL_INFO, TINY, 64)
    info, before = MODEL_INFO[TINY], forwards()
    three = draw(manager, info, prompt="a cat", seed=7, n=3, guidance_scale=1)
    # Two of 16 tokens and 16 of text fit in 64; any two of the three at each time.
    steps = info.tasks["generate"].num_inference_steps
    assert steps * 3 / 2 <= forwards() - before < steps * 3
    alone = draw(manager, info, prompt="a cat", seed=9, guidance_scale=1)
    assert np.abs(three[2] - alone[0]).max() <= 1


@pytest.mark.parametrize("batch_tokens", [0, 64], ids=["single", "shared"])
def test_a_short_request_takes_turns_with_ten_long_pictures(batch_tokens):
    """It shares the device with them instead of waiting for one, or for all that fill
    the forwards, and is the same picture as alone."""
    manager, backend = start(MODEL_INFO, TINY, batch_tokens)
    info = MODEL_INFO[TINY]
    short = {"prompt": "a cat", "seed": 3, "num_inference_steps": 4}
    alone = draw(manager, info, **short)
    ten = {"prompt": "a dog", "seed": 4, "num_inference_steps": 60}
    long = request_of(info, n=10, **ten)
    jobs = [submit(manager, long, caller="long") for _ in range(2)]
    for event in jobs[0].events(60):
        if isinstance(event, Progress) and event.step == 10:
            break
    before = forwards()
    together = draw(manager, info, **short)
    # Two forwards a step: its own eight, as many of each that runs, and a few before
    # it came; to wait for one of the others would take a hundred.
    assert forwards() - before <= 8 * (4 if batch_tokens else 3) + 8
    assert np.abs(together[0] - alone[0]).max() <= (1 if batch_tokens else 0)
    for job in jobs:
        manager.cancel(job)


def test_without_batching_the_bytes_are_equal_under_any_load(serial):
    manager, _ = serial
    info = MODEL_INFO[TINY]
    alone = draw(manager, info, prompt="a dog", seed=5)
    jobs = [
        submit(manager, request_of(info, prompt="a dog", seed=seed), caller=str(seed))
        for seed in (1, 5, 2)
    ]
    assert np.array_equal(outcome(jobs[1])[0], alone[0])
    pair = draw(manager, info, prompt="a dog", seed=4, n=2)
    assert np.array_equal(pair[1], alone[0])


def test_cancelled_run_stops_within_a_step_and_leaves_no_trace(serial):
    manager, backend = serial
    info = MODEL_INFO[TINY]
    before = draw(manager, info, prompt="a fox", seed=3)
    job = submit(
        manager, request_of(info, prompt="a cat", seed=1, num_inference_steps=200)
    )
    for event in job.events(30):
        if isinstance(event, Progress) and event.step == 3:
            manager.cancel(job)
            at_cancel = forwards()
            break
    assert isinstance(job.wait(1), Failed)
    assert isinstance(job.outcome.error, Cancelled)
    while manager.running:
        threading.Event().wait(0.01)
    # Guidance makes two forwards a step.
    assert forwards() - at_cancel <= 4
    after = draw(manager, info, prompt="a fox", seed=3)
    assert np.array_equal(before[0], after[0])


def test_previews_come_early_and_look_like_the_picture(serial):
    manager, _ = serial
    info = MODEL_INFO[TINY]
    job = submit(
        manager, request_of(info, prompt="a red heart", seed=3, partial_images=3)
    )
    previews = []
    for event in job.events(60):
        if isinstance(event, PartialImage):
            previews.append(event)
    assert [p.number for p in previews] == [0, 1, 2]
    shown = [show_preview(event.preview) for event in previews]
    assert all(max(image.size) == 256 for image in shown)
    final = job.outcome.results[0].image.resize((256, 256))
    error = np.asarray(final).astype(int) - np.asarray(shown[-1])
    flat = np.asarray(final).astype(int) - 128
    assert np.abs(error).mean() < np.abs(flat).mean() / 2


def test_previews_are_spread_over_the_run():
    due = [[preview_due(s, 12, n) for s in range(1, 13)] for n in (0, 1, 3)]
    assert due[0] == [None] * 12
    assert due[1].index(0) == 5
    assert [due[2].index(n) + 1 for n in range(3)] == [3, 6, 9]


@pytest.fixture
def faulty(serial, monkeypatch):
    """Make the transformer's next ``count`` forwards do something else."""
    manager, backend = serial
    transformer = transformer_of(backend)
    real = transformer.forward

    def install(instead, count):
        left = [count]

        def forward(*args, **kwargs):
            if left[0] > 0:
                left[0] -= 1
                return instead(real, *args, **kwargs)
            return real(*args, **kwargs)

        monkeypatch.setattr(transformer, "forward", forward)

    return install


def out_of_memory(*args, **kwargs):
    """What CUDA raises."""
    raise torch.OutOfMemoryError("CUDA out of memory")


def not_a_number(real, *args, **kwargs):
    """Latents gone to NaN."""
    return (real(*args, **kwargs)[0] * float("nan"),)


def test_out_of_memory_once_is_survived(serial, faulty):
    manager, _ = serial
    faulty(out_of_memory, 1)
    assert len(draw(manager, MODEL_INFO[TINY], prompt="a cat", seed=1)) == 1


def test_out_of_memory_always_is_507_and_the_next_works(serial, faulty):
    manager, _ = serial
    faulty(out_of_memory, 2)
    job = submit(manager, request_of(MODEL_INFO[TINY], prompt="a cat", seed=1))
    ended = job.wait(60)
    assert isinstance(ended, Failed)
    assert (ended.error.status, ended.error.should_retry) == (507, False)
    assert len(draw(manager, MODEL_INFO[TINY], prompt="a cat", seed=1)) == 1


def test_no_memory_to_decode_repeats_the_decoding_alone(serial, monkeypatch):
    manager, backend = serial
    info = MODEL_INFO[TINY]
    start = forwards()
    expected = draw(manager, info, prompt="a cat", seed=1)
    vae = backend.sets.use(TINY, print).load("generate", (), print).pipeline.vae
    real, before = vae.decoder.forward, forwards()
    left = [out_of_memory]

    def forward(*args, **kwargs):
        return (left.pop() if left else real)(*args, **kwargs)

    monkeypatch.setattr(vae.decoder, "forward", forward)
    again = draw(manager, info, prompt="a cat", seed=1)
    assert np.array_equal(expected[0], again[0])
    assert forwards() - before == before - start > 0


def test_nan_once_is_made_again_the_same(serial, faulty):
    manager, _ = serial
    expected = draw(manager, MODEL_INFO[TINY], prompt="a cat", seed=1)
    faulty(not_a_number, 1)
    again = draw(manager, MODEL_INFO[TINY], prompt="a cat", seed=1)
    assert np.array_equal(expected[0], again[0])


def test_nan_twice_is_an_error_and_never_a_black_picture(serial, faulty):
    manager, _ = serial
    faulty(not_a_number, 10**6)
    job = submit(manager, request_of(MODEL_INFO[TINY], prompt="a cat", seed=1))
    ended = job.wait(60)
    assert isinstance(ended, Failed)
    assert (ended.error.status, ended.error.code) == (500, "generation_failed")


@pytest.mark.parametrize("number", ["nan", "inf"])
def test_half_a_picture_that_is_no_number_is_no_picture(serial, monkeypatch, number):
    manager, backend = serial
    expected = draw(manager, MODEL_INFO[TINY], prompt="a cat", seed=1)
    vae = backend.sets.use(TINY, print).load("generate", (), print).pipeline.vae
    real, spoilt = vae.decoder.forward, [True]

    def forward(*args, **kwargs):
        sample = real(*args, **kwargs)
        if spoilt:
            spoilt.pop()
            sample[:, :, sample.shape[2] // 2 :] = float(number)
        return sample

    monkeypatch.setattr(vae.decoder, "forward", forward)
    again = draw(manager, MODEL_INFO[TINY], prompt="a cat", seed=1)
    assert np.array_equal(expected[0], again[0])
    spoilt += [True, True]
    job = submit(manager, request_of(MODEL_INFO[TINY], prompt="a cat", seed=1))
    ended = job.wait(60)
    assert isinstance(ended, Failed)
    assert (ended.error.status, ended.error.code) == (500, "generation_failed")


def test_what_fails_in_two_ways_is_tried_in_both(serial, monkeypatch):
    manager, backend = serial
    expected = draw(manager, MODEL_INFO[TINY], prompt="a cat", seed=1)
    transformer = transformer_of(backend)
    real, faults = transformer.forward, [out_of_memory, not_a_number]

    def forward(*args, **kwargs):
        if faults:
            return faults.pop(0)(real, *args, **kwargs)
        return real(*args, **kwargs)

    monkeypatch.setattr(transformer, "forward", forward)
    again = draw(manager, MODEL_INFO[TINY], prompt="a cat", seed=1)
    assert faults == []
    assert np.array_equal(expected[0], again[0])


def three_at_once(error):
    """Three calls that share a forward, of which the second raises ``error``: their
    outcomes, and the sizes of the forwards that ran."""
    batcher = ForwardBatcher()
    batcher.budget = 100
    sizes = []

    def module(hidden_states, return_dict):
        sizes.append(len(hidden_states))
        if (hidden_states == 2).any():
            raise error
        return (hidden_states + 1,)

    def one(number):
        with batcher.taken():
            together.wait(10)
            hidden_states = torch.full((1, 4, 2), float(number))
            kwargs = {"hidden_states": hidden_states, "return_dict": False}
            return batcher.forward(module, kwargs, PositionIds())[0].max().item()

    together = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(one, number) for number in (1, 2, 3)]
        threading.Timer(0.5, together.set).start()
    return [one.exception() or one.result() for one in asked], sizes


# Of a kernel that is called for the first time where the card is full.
FULL = "CUDA error: out of memory"


def test_what_a_library_has_no_memory_for_is_out_of_memory(monkeypatch):
    """CUDA, cuBLAS and cuDNN say so in errors of no type of their own; a second try is
    made, and the process lives."""
    manager, backend = start(MODEL_INFO, TINY, 0)
    transformer = transformer_of(backend)
    real, failures = transformer.forward, []

    def forward(*args, **kwargs):
        if failures:
            said = failures.pop()
            own = said == FULL
            raise torch.AcceleratorError(said) if own else RuntimeError(said)
        return real(*args, **kwargs)

    monkeypatch.setattr(transformer, "forward", forward)
    request = request_of(MODEL_INFO[TINY], prompt="a cat", seed=1)
    for said in (
        [FULL, "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling cublasCreate"],
        ["CUDA error: CUBLAS_STATUS_ALLOC_FAILED\nx", "CUDNN_STATUS_ALLOC_FAILED"],
        [
            "GET was unable to find an engine to execute this computation",
            "Unable to find a valid cuDNN algorithm to run convolution",
        ],
    ):
        failures += said
        failed = submit(manager, request).wait(60)
        assert failed.error.status == 507
        assert not failures
    assert draw(manager, MODEL_INFO[TINY], prompt="a cat", seed=1)
    assert manager.not_ready is None


@pytest.mark.parametrize("error", [ValueError("wrong"), torch.OutOfMemoryError()])
def test_one_that_fails_in_a_shared_forward_fails_alone(error):
    outcomes, sizes = three_at_once(error)
    assert outcomes == [2, error, 4]
    assert sizes[0] == 3
    assert sorted(sizes[1:]) == [1, 1, 1]
    # What it computed before it failed is not held by its frames.
    frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert ("module" in frames) == isinstance(error, ValueError)


def test_a_lost_device_is_lost_for_all_that_share_a_forward():
    error = torch.AcceleratorError("CUDA error: an illegal memory access")
    assert three_at_once(error) == ([error] * 3, [3])


def test_shared_forward_without_memory_falls_back_to_single_ones(monkeypatch):
    manager, backend = start(MODEL_INFO, TINY, 100_000)
    transformer = transformer_of(backend)
    real = transformer.forward

    def forward(*args, **kwargs):
        if kwargs["hidden_states"].shape[0] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*args, **kwargs)

    monkeypatch.setattr(transformer, "forward", forward)
    info = MODEL_INFO[TINY]
    two = draw(manager, info, prompt="a cat", seed=1, n=2, num_inference_steps=2)
    assert len(two) == 2


LOST = {
    "accelerator": torch.AcceleratorError("CUDA error: an illegal memory access"),
    "library": RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED, illegal"),
}


@pytest.mark.parametrize("kind", LOST)
def test_a_lost_device_is_told_and_ends_the_process(kind, monkeypatch):
    def lose(*args, **kwargs):
        raise LOST[kind]

    if kind == "library":
        # Only a look at the device tells that such an error was its end.
        monkeypatch.setattr("flux_api.loading.device.is_lost", lambda device: True)
    backend = DiffusersBackend(MODEL_INFO, TINY, batch_tokens=0)
    ended = threading.Event()
    manager = PipelineManager(
        lambda: backend,
        step_timeout=0.5,
        exit_process=lambda status: (ended.set(), threading.Event().wait()),
    )
    manager.start()
    pause = threading.Event()
    while manager.not_ready is not None:
        pause.wait(0.01)
    transformer = transformer_of(backend)
    monkeypatch.setattr(transformer, "forward", lose)
    job = submit(manager, request_of(MODEL_INFO[TINY], prompt="a cat", seed=1))
    outcome = job.wait(60)
    assert isinstance(outcome, Failed)
    assert outcome.error.status == 503
    assert "illegal" not in outcome.error.message
    assert ended.wait(30)
    assert "illegal" in manager.not_ready


@pytest.mark.parametrize("kind", LOST)
def test_a_device_lost_while_weights_are_loaded_is_no_fault_of_theirs(
    kind, monkeypatch
):
    def lose(*args, **kwargs):
        raise LOST[kind]

    monkeypatch.setattr("flux_api.loading.components.load_folder_part", lose)
    monkeypatch.setattr("flux_api.loading.device.is_lost", lambda device: True)
    with pytest.raises(BackendBroken, match="illegal"):
        DiffusersBackend(MODEL_INFO, TINY, batch_tokens=0).load(print)


def test_a_device_is_lost_when_the_smallest_task_fails():
    assert not is_lost(torch.device("cpu"))
    assert is_lost(torch.device("meta"))


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (torch.OutOfMemoryError("no room"), False),
        (RuntimeError("CUDA error: out of memory"), False),
        (RuntimeError("CUDA error: an illegal memory access"), True),
    ],
    ids=["full", "full for a library", "broken"],
)
def test_a_full_device_is_not_a_lost_one(monkeypatch, error, lost):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(torch, "zeros", fail)
    assert is_lost(torch.device("cuda")) == lost


@pytest.mark.parametrize("said", [FULL, "CUDA error: CUBLAS_STATUS_ALLOC_FAILED"])
def test_a_full_device_is_not_lost(said, monkeypatch):
    def fail(*args, **kwargs):
        raise torch.AcceleratorError(said)

    monkeypatch.setattr(torch, "zeros", fail)
    assert not is_lost(torch.device("cuda"))


def test_only_what_cuda_pinned_is_given_back(monkeypatch):
    """On Apple's devices to ask for it ends the process, and torch 2.11 has no word
    for it."""
    asked = []
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "empty_cache", lambda: None)
    monkeypatch.setattr(
        torch.accelerator, "empty_host_cache", lambda: asked.append(1), raising=False
    )
    for has_cuda in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda has=has_cuda: has)
        free_memory()
        assert len(asked) == has_cuda
    monkeypatch.delattr(torch.accelerator, "empty_host_cache")
    free_memory()


def test_a_card_too_full_to_load_on_is_told_and_tried_again(monkeypatch):
    """Not by a new process, which would find it as full."""
    manager, backend = start(MODEL_INFO, TINY, 0)
    backend.sets.drop(TINY)

    def fail(*args, **kwargs):
        raise torch.AcceleratorError(FULL)

    with monkeypatch.context() as patch:
        patch.setattr("flux_api.loading.components.load_folder_part", fail)
        failed = submit(manager, request_of(MODEL_INFO[TINY], prompt="a cat")).wait(60)
        assert failed.error.status == 503
        assert manager.not_ready is None
    assert draw(manager, MODEL_INFO[TINY], prompt="a cat", seed=1)


def test_the_host_stays_one_step_ahead_of_an_accelerator(monkeypatch):
    done = []

    class Event:
        def __init__(self, device):
            assert device.type == "meta"
            self.number = sum(word.startswith("record") for word in done)

        def record(self):
            done.append(f"record {self.number}")

        def synchronize(self):
            done.append(f"wait {self.number}")

    monkeypatch.setattr(torch, "Event", Event)
    pace = Pace(torch.device("meta"))
    for _ in range(3):
        pace.step()
    assert done == ["record 0", "record 1", "wait 0", "record 2", "wait 1"]
    Pace(torch.device("cpu")).step()
    assert len(done) == 5
