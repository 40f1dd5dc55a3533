"""Compiled blocks: what they draw, also with LoRAs, and where they are left out."""

from __future__ import annotations

import logging
import weakref

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from flux_api.core import Lora
from flux_api.engine import tuning
from flux_api.engine.backend import DiffusersBackend
from flux_api.engine.quality import Quality, QualityGate
from flux_api.engine.tuning import Tuner
from flux_api.engine.verdicts import Verdicts
from flux_api.loading.attention import set_attention
from flux_api.loading.compiling import graphs
from flux_api.loading.device import free_memory
from flux_api.models.catalog import MODEL_INFO
from flux_api.models.upscaling import with_upscale
from flux_api.queue.tasks import Callbacks, Picture
from tests.mixed import CPU, Mixed, kinds, run
from tests.support.complete import complete
from tests.support.tiny_sets import write_lora

pytestmark = pytest.mark.usefixtures("one_thread")


class Counting:
    """A compiler that leaves the graphs to torch itself, and counts their ``runs``."""

    def __init__(self):
        self.runs = 0

    def __call__(self, graph, _):
        def run_graph(*args):
            self.runs += 1
            return graph(*args)

        return run_graph


@pytest.fixture(scope="module")
def compiler():
    """That of ``compiled``."""
    return Counting()


@pytest.fixture(scope="module")
def compiled(tmp_path_factory, compiler):
    """Two models whose graphs are made as always, and run by torch itself: making C++
    of them takes minutes, which ``make mixed`` has."""
    return Mixed(tmp_path_factory.mktemp("compiled") / "in", compiler)


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    """The same models as diffusers runs them."""
    return Mixed(tmp_path_factory.mktemp("exact") / "in", "", Tuner("exact", CPU))


def test_many_kinds_of_requests_compile_nothing_once_each_was_there(compiled):
    warm, end = run(compiled, 12)
    assert warm > 0
    assert end == warm


def test_compiled_blocks_draw_what_plain_ones_do_with_loras_too(compiled, exact):
    drawn = {}
    for kind in kinds():
        ours, theirs = (
            np.asarray(one.draw([kind | {"seed": 3}], 1)[0].results[0].image)
            for one in (compiled, exact)
        )
        assert np.abs(ours.astype(int) - theirs).max() <= 1, kind
        drawn[tuple(kind.values())] = ours
    for (model, lora, size), picture in drawn.items():
        if lora:
            assert (picture != drawn[model, None, size]).any(), "the LoRA counts"


def with_bias(path):
    """Make of the LoRA ``path`` one that changes a bias too."""
    tensors = load_file(path)
    up = next(key for key in tensors if key.endswith(".lora_B.weight"))
    bias = np.full(len(tensors[up]), 0.1, tensors[up].dtype)
    save_file(tensors | {up.replace("lora_B.weight", "diff_b"): bias}, path)


def test_loras_run_compiled_whatever_their_rank_and_others_plainly(
    compiled, exact, compiler
):
    for one in (compiled, exact):
        for rank in (1, 3, 7):
            write_lora(one.loras / f"rank{rank}.safetensors", rank=rank, seed=rank)
        with_bias(write_lora(one.loras / "bias.safetensors", seed=9))

    def run_of(lora):
        """How many graphs ran for a picture with ``lora``, which is as it should be."""
        wanted = [{"model": "flux1", "lora": lora, "size": (64, 64), "seed": 5}]
        before = compiler.runs
        picture, plain = (
            np.asarray(one.draw(wanted, 1)[0].results[0].image).astype(int)
            for one in (compiled, exact)
        )
        assert np.abs(picture - plain).max() <= 1, lora
        return compiler.runs - before

    alone = run_of(None)
    assert alone > 0
    before = graphs()
    assert [run_of(f"rank{rank}") for rank in (1, 3, 7)] == [alone] * 3
    assert graphs() == before, "one graph fits all ranks"
    assert run_of("bias") == 0
    assert run_of("rank3") == run_of(None) == alone


class WithOwn(Mixed):
    """Of two models the first has the LoRA ``one`` always on; ``draw_with`` those of a
    request."""

    own = (Lora("one", 0.8),)

    def complete(self, wanted):
        request = super().complete(wanted)
        object.__setattr__(request, "loras", wanted["loras"])
        return request

    def draw_with(self, *loras):
        """The picture's numbers."""
        wanted = {"model": "flux1", "lora": None, "size": (64, 64), "seed": 5}
        [ended] = self.draw([wanted | {"loras": loras}], 1)
        return np.asarray(ended.results[0].image).astype(int)


def test_own_loras_are_fused_while_they_are_all_that_is_on(
    tmp_path, compiler, caplog, monkeypatch
):
    monkeypatch.setattr(logging.getLogger("flux_api"), "propagate", True)
    caplog.set_level(logging.INFO, "flux_api")
    # Its own level: doctor, run before in this process, sets it.
    caplog.set_level(logging.INFO, "flux_api.loading")

    def times():
        """How often LoRAs were fused by now."""
        return caplog.text.count("LoRAs are fused into")

    theirs = WithOwn(tmp_path / "theirs", "", Tuner("exact", CPU))
    assert times() == 0, "exact is what diffusers gives"
    # The compiler of ``compiled``, whose graphs torch then has already.
    ours = WithOwn(tmp_path / "ours", compiler)
    assert times() == 1, "before the first caller"

    def draw(*loras):
        """The picture, which is as it should be."""
        picture, exact = (one.draw_with(*loras) for one in (ours, theirs))
        assert np.abs(picture - exact).max() <= 1, loras
        return picture

    styled = draw(*WithOwn.own)
    for others in (Lora("one", 0.0),), (*WithOwn.own, Lora("two", 1.0)), ():
        assert np.abs(draw(*others) - styled).max() > 1
    assert np.abs(draw(*WithOwn.own) - styled).max() <= 1
    assert times() == 1, "others take turns with it"


def load(tuner):
    """What a backend over the embedded model says of itself."""
    backend = DiffusersBackend(MODEL_INFO, "tiny", tuner=tuner, batch_tokens=0)
    backend.load(lambda _: None)
    return backend.performance


def test_without_a_compiler_the_transformer_stays_plain(caplog):
    said = load(Tuner("speed", CPU, compiler="no-such-compiler"))
    assert said["performance"] == "exact"
    assert said["performance_note"].startswith("nothing compiles here (")
    assert said["performance_note"] in caplog.text


def test_attention_that_breaks_is_not_drawn_with(monkeypatch):
    """A package may be another than diffusers knows, and fail in any way."""
    taken = []

    def take(transformer, way):
        taken.append(way)
        if way == "flash":
            raise AssertionError("of another version")
        set_attention(transformer, way)

    monkeypatch.setattr(tuning, "attention_ways", lambda _: ("native", "flash"))
    monkeypatch.setattr(tuning, "set_attention", take)
    assert load(Tuner("speed", CPU))["performance"] == "exact"
    assert taken == ["native", "flash", "native"]


def test_a_tuned_transformer_goes_with_its_set():
    tuner = Tuner("max", CPU, compiler="eager", is_worth_it=lambda *_: True)
    good = Quality(30.0, 0.9, exact_seconds=1.0, seconds=0.5)
    QualityGate(tuner.verdicts).keep("max", "tiny", MODEL_INFO["tiny"], good)
    backend = DiffusersBackend(MODEL_INFO, "tiny", tuner=tuner, batch_tokens=0)
    backend.load(lambda _: None)
    assert backend.performance["performance"] == "max"
    loaded = backend.sets.use("tiny", print).load("generate", (), print)
    gone = weakref.ref(loaded.pipeline.transformer)
    tuned = tuner.find(gone())
    assert tuned.level == "max"
    assert tuner.find(gone()).plain is tuned.plain, "what is shared is one object"
    del loaded, tuned
    backend.sets.drop("tiny")
    free_memory()
    assert gone() is None


@pytest.mark.parametrize("known", [False, True])
def test_max_is_measured_before_it_is_used(known):
    asked = []

    class Judged(DiffusersBackend):
        """One that is spared the minute."""

        def judge(self, levels, report):
            asked.extend(levels)

    tuner = Tuner("max", CPU, compiler="no-such-compiler")
    if known:
        good = Quality(30.0, 0.9, exact_seconds=1.0, seconds=0.5)
        QualityGate(tuner.verdicts).keep("max", "tiny", MODEL_INFO["tiny"], good)
    Judged(MODEL_INFO, "tiny", tuner=tuner, batch_tokens=0).load(lambda _: None)
    assert asked == ([] if known else ["max"])


def test_a_set_is_tuned_also_where_its_first_picture_is_made_larger():
    models = {"tiny": with_upscale(MODEL_INFO["tiny"])}
    tuner = Tuner("speed", CPU, compiler="no-such-compiler")
    backend = DiffusersBackend(models, "tiny", tuner=tuner, batch_tokens=0)
    picture = Image.new("RGB", (32, 32), "teal")
    wanted = {"images": (picture,), "size": (64, 64)}
    request = complete("tiny", models["tiny"], "upscale", **wanted)
    quiet = Callbacks(lambda: None, *[lambda *_: None] * 3)
    made = backend.run(Picture(request, 0, "first"), quiet)
    assert (made.image.size, made.performance) == ((64, 64), "exact")
    assert tuner.newest.notes[0].startswith("nothing compiles here (")


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")
def test_what_turns_out_slower_is_left_and_not_tried_again(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    verdicts = Verdicts(tmp_path, CPU)
    said = load(Tuner("speed", CPU, verdicts=verdicts, is_worth_it=lambda *_: False))
    assert list(tmp_path.rglob("*.so")), "what g++ made"
    assert said["performance"] == "exact"
    assert " ms: blocks stay plain" in said["performance_note"]
    before = graphs()
    again = Verdicts(tmp_path, CPU)
    assert load(Tuner("speed", CPU, verdicts=again)) == said
    assert graphs() == before
