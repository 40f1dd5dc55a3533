"""FLUX_PERFORMANCE=max: steps that are left out, and layers in 8-bit floats."""

from __future__ import annotations

import copy
import threading
from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
import torch
from diffusers.hooks import FirstBlockCacheConfig
from diffusers.models.attention_dispatch import _AttentionBackendRegistry

from flux_api.core import Completed
from flux_api.engine import step_cache, tuning
from flux_api.engine.backend import DiffusersBackend
from flux_api.engine.quality import Quality, QualityGate
from flux_api.engine.step_cache import StepCache
from flux_api.engine.tuning import Tuner
from flux_api.loading.attention import set_attention
from flux_api.loading.fp8 import Fp8Linear, has_fp8, restore, to_fp8
from flux_api.models.info import ModelInfo, TaskDefaults
from flux_api.models.sizes import SizeRules
from flux_api.models.sources import Folder
from flux_api.queue.manager import PipelineManager
from tests.mixed import CPU
from tests.support.complete import complete
from tests.support.submitting import submit
from tests.support.tiny_checkpoints import build, flux1_transformer

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 20


def count_calls(transformer):
    """A list that grows by one for each block that runs."""
    calls = []
    for block in (
        *transformer.transformer_blocks,
        *transformer.single_transformer_blocks,
    ):
        block.attn.register_forward_hook(lambda *_: calls.append(1))
    return calls


def draw(pipeline, seed=1):
    """The latents of a stock pipeline's picture."""
    return pipeline(
        prompt="a cat",
        width=64,
        height=64,
        num_inference_steps=STEPS,
        generator=torch.Generator().manual_seed(seed),
        output_type="latent",
    ).images


class Cached:
    """A transformer behind a step cache, as a pipeline wants it."""

    def __init__(self, module):
        self.module = module
        self.forward = StepCache(module).sequence(module)

    def __getattr__(self, name):
        return getattr(self.module, name)

    def __call__(self, **kwargs):
        return self.forward(**kwargs)


def test_flux1_is_drawn_as_with_the_cache_of_diffusers(tmp_path, monkeypatch):
    # One that random weights reach too.
    monkeypatch.setattr(step_cache, "THRESHOLD", 0.5)
    pipeline = diffusers.FluxPipeline.from_pretrained(build("dev", tmp_path / "dev"))
    pipeline.set_progress_bar_config(disable=True)
    calls = count_calls(pipeline.transformer)
    whole = draw(pipeline)
    all_blocks = len(calls)
    pipeline.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.5))
    theirs = draw(pipeline)
    pipeline.transformer.disable_cache()
    their_blocks = len(calls) - all_blocks
    object.__setattr__(pipeline, "transformer", Cached(pipeline.transformer))
    assert (draw(pipeline) == theirs).all()
    assert len(calls) - all_blocks - their_blocks == their_blocks < all_blocks
    assert (whole != theirs).any()


@pytest.mark.parametrize(
    ("checkpoint", "pipeline"),
    [("dev", "FluxPipeline"), ("klein-base", "Flux2KleinPipeline")],
)
def test_pictures_in_turns_leave_out_the_steps_that_each_does_alone(
    checkpoint, pipeline, tmp_path, monkeypatch
):
    """klein-base is guided: it has two calls a step, with a memory each."""
    monkeypatch.setattr(step_cache, "THRESHOLD", 5.0)
    row = TaskDefaults(
        pipeline=pipeline,
        num_inference_steps=STEPS,
        guidance_scale=4.0,
        guidance_parameter="guidance_scale",
    )
    info = ModelInfo(
        base_model=Folder(build(checkpoint, tmp_path / checkpoint)),
        tasks={"generate": row},
        sizes=SizeRules(default=(64, 64)),
    )
    tuner = Tuner("max", CPU, compiler="no-such-compiler")
    # Random weights would be judged by 512x512 pictures first, for a minute.
    good = Quality(30.0, 0.9, exact_seconds=1.0, seconds=0.5)
    QualityGate(tuner.verdicts).keep("max", "m", info, good)
    backend = DiffusersBackend({"m": info}, "m", tuner=tuner, batch_tokens=9000)
    manager = PipelineManager(lambda: backend)
    manager.start()
    ready = threading.Event()
    while manager.not_ready is not None:
        ready.wait(0.01)
    loaded = backend.sets.use("m", print).load("generate", (), print)
    calls = count_calls(loaded.pipeline.transformer)

    def ask(seed, steps=STEPS):
        request = complete(
            "m",
            info,
            prompt=f"a cat {seed}",
            seed=seed,
            size=(64, 64),
            num_inference_steps=steps,
        )
        return submit(manager, request, caller=str(seed))

    def outcome(job):
        ended = job.wait(120)
        assert isinstance(ended, Completed), ended
        assert ended.results[0].performance == "max"
        return np.asarray(ended.results[0].image)

    alone = [outcome(ask(seed)) for seed in range(3)]
    run_alone = len(calls)
    together = [outcome(job) for job in [ask(seed) for seed in range(3)]]
    assert len(calls) == 2 * run_alone
    for one, other in zip(alone, together, strict=True):
        assert (one == other).all()
    # Of a few steps none is left out: all four blocks run in each call.
    outcome(ask(9, steps=4))
    few = len(calls) - 2 * run_alone
    assert few == 4 * 4 * (2 if checkpoint == "klein-base" else 1)
    assert run_alone < 3 * STEPS * few / 4


def test_layers_in_8_bits_are_near_the_whole_ones_and_go_back():
    torch.manual_seed(1)
    block = flux1_transformer().to(torch.bfloat16).single_transformer_blocks[0]
    whole = copy.deepcopy(block)
    seen = []
    block.proj_mlp.register_forward_hook(lambda *_: seen.append(1))
    originals = to_fp8(block)
    assert type(block.proj_mlp) is Fp8Linear
    assert block.proj_mlp.weight.dtype == torch.float8_e4m3fn
    tokens = torch.randn(2, 24, 32, dtype=torch.bfloat16)
    with torch.no_grad():
        near, exact = block.proj_mlp(tokens), whole.proj_mlp(tokens)
        error = (near - exact).float().norm() / exact.float().norm()
        assert 0 < error < 0.06
        # What hangs on a layer, as LoRAs do, still does.
        assert seen
        # What scales and shifts the whole picture is not rounded.
        assert type(block.norm.linear) is torch.nn.Linear
        restore(originals)
        assert (block.proj_mlp(tokens) == exact).all()
    assert not has_fp8(CPU)


class Card:
    """A transformer on a device of which each trial takes the next of ``seconds``, or
    fails with it."""

    def __init__(self, monkeypatch, *seconds):
        self.transformer = flux1_transformer().to(torch.bfloat16)
        self._seconds, self.offloads = iter(seconds), False
        monkeypatch.setattr(tuning.Trial, "seconds", lambda _: self._next())
        monkeypatch.setattr(tuning.Trial, "run", lambda *_: None)

    def _next(self):
        found = next(self._seconds)
        if isinstance(found, Exception):
            raise found
        return found

    def tune(self, wanted):
        """How it is to run, wanted so."""
        loaded = SimpleNamespace(
            pipeline=SimpleNamespace(transformer=self.transformer, vae=None),
            placement=SimpleNamespace(offloads=self.offloads),
        )
        kwargs = {"hidden_states": torch.zeros(1)}
        tuner, aim = Tuner("max", CPU, compiler="eager"), tuning.Aim("any", wanted)
        return tuner.tune(aim, loaded, kwargs, lambda: None)

    @property
    def short(self):
        """How many of its blocks have layers in 8 bits, of how many."""
        blocks = [
            *self.transformer.transformer_blocks,
            *self.transformer.single_transformer_blocks,
        ]
        kinds = [{type(one) for one in block.modules()} for block in blocks]
        return sum(Fp8Linear in found for found in kinds), len(kinds)


FULL = torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(
    ("seconds", "all_short", "note"),
    [
        # A plain block, compiled, once more, and in 8 bits.
        ((1.0, 0.5, 0.5, 0.3), True, None),
        (
            *((1.0, 0.5, 0.5, 0.6), False),
            "a block in 8-bit floats takes 600.00 ms and a whole one 500.00 ms: layers "
            "stay whole",
        ),
        ((1.0, 0.5, 0.5, FULL), False, "no memory to try 8-bit floats in"),
        ((1.0, 0.5, 0.5, KeyError()), False, "8-bit floats fail here (KeyError)"),
        ((1.0, FULL), False, "no memory to compile in: blocks stay plain"),
        (
            *((1.0, KeyError()), False),
            "nothing compiles here (KeyError): blocks stay plain",
        ),
    ],
    ids=["faster", "slower", "full", "fails", "full before", "fails before"],
)
def test_layers_are_in_8_bits_where_that_is_faster(
    seconds, all_short, note, monkeypatch
):
    monkeypatch.setattr(tuning, "has_fp8", lambda _: True)
    card = Card(monkeypatch, *seconds)
    tuned = card.tune("max")
    short, blocks = card.short
    assert short == (blocks if all_short else 0)
    assert tuned.notes == ((note,) if note else ())


def test_what_a_device_lacks_is_said(monkeypatch):
    card = Card(monkeypatch, 1.0, 0.5)
    note = "this device has no 8-bit floats: layers stay whole"
    assert card.tune("max").notes == (note,)
    card.offloads = True
    moved = card.tune("max")
    assert (moved.level, card.short[0]) == ("exact", 0)
    assert moved.notes == ("weights that are moved about are not compiled",)


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ({"native": 1.0, "one": 0.7, "two": 0.5, "three": 0.6}, "two"),
        ({"native": 1.0, "one": 0.99}, "native"),
        ({"native": 1.0, "one": ImportError()}, "native"),
        ({"native": RuntimeError(), "one": 0.5}, "one"),
    ],
    ids=["the quickest", "hardly quicker", "not installed", "its own fails"],
)
def test_attention_is_computed_in_the_way_that_is_clearly_quickest(
    seconds, best, monkeypatch
):
    taken = []
    monkeypatch.setattr(tuning, "attention_ways", lambda _: tuple(seconds))
    monkeypatch.setattr(tuning, "set_attention", lambda _, way: taken.append(way))
    # The trials of compiling find it as slow as before.
    card = Card(monkeypatch, *seconds.values(), 1.0, 1.0)
    assert card.tune("speed").level == ("exact" if best == "native" else "speed")
    assert taken == [*seconds, best]


def test_attention_is_chosen_for_one_transformer_alone():
    transformer, before = flux1_transformer(), _AttentionBackendRegistry._active_backend
    set_attention(transformer, "_native_math")
    attention = transformer.transformer_blocks[0].attn
    assert attention.processor._attention_backend == "_native_math"
    assert _AttentionBackendRegistry._active_backend == before == "native"
