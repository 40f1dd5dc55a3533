"""The plan on a card: what stays there, what comes and goes, and what is drawn."""

from __future__ import annotations

import contextlib

import pytest

from flux_api.loading.footprint import footprint_of
from flux_api.loading.plan import RESERVE, Machine, plan_memory
from flux_api.models.catalog import MODEL_INFO
from flux_api.models.toml_file import load_models
from tests.engine.test_families import draw
from tests.support.tiny_sets import write_lora, write_sets

pytest.importorskip("tests.gpu.simulated", reason="there is no simulated GPU")

from tests.gpu.card_server import run_on, worker
from tests.gpu.simulated import Card

# A real card is not filled to the last byte.
pytestmark = pytest.mark.usefixtures("simulated")
TASKS = ("generate", "edit", "inpaint", "variation", "edit", "generate")


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Checkpoints of klein-4b and flux1, and the sets over them."""
    folder = tmp_path_factory.mktemp("sets")
    path = write_sets(folder, ("klein-4b", "flux1"), 256)
    (folder / "loras").mkdir()
    write_lora(folder / "loras" / "pencil.safetensors", seed=5)
    return path, load_models(path, MODEL_INFO)


@contextlib.contextmanager
def start(card, path, name="flux1", **settings):
    """The server with its own plan for ``card``, ready."""
    settings = {"FLUX_MODEL": name, "MODEL_INFO": path} | settings
    settings |= {"FLUX_MEMORY": "auto", "FLUX_LORA_DIR": path.parent / "loras"}
    with run_on(card, **settings) as server:
        yield server.wait_ready()


def needed(models, name, quantization, offload):
    """The bytes of a card that has just enough for a set held so, with one checkpoint
    at a time where it has several."""
    plan = plan_memory(
        footprint_of(models[name]),
        Machine(0, 1 << 50),
        quantization=quantization,
        offload=offload,
    )
    return plan.peak + RESERVE


def test_the_checkpoint_not_used_for_longest_leaves_the_card(sets, tmp_path):
    """With its LoRAs, and comes back the same."""
    path, models = sets
    small = Card(tmp_path / "card")
    small.limit = needed(models, "flux1", "none", "text")
    with start(small, path) as server:
        assert "offload text, 1 of its checkpoints at a time" in server.output
        used, first = [], {}
        for task in TASKS:
            picture = draw(server, "flux1", task)[1]
            assert (first.setdefault(task, picture) == picture).all(), task
            used.append(worker(small)["used"])
        one = footprint_of(models["flux1"]).of_bases("none")[0]
        # From one task to another the card holds one transformer, and the variation's
        # prior from then on.
        assert max(used[:3]) - min(used[:3]) < one / 2
        assert abs(used[-1] - used[3]) < one / 2
        # What waits does so in pinned memory: nothing is moved back to it.
        before = worker(small)
        changed = draw(server, "flux1", "edit", loras="pencil:2")[1]
        after = worker(small)
        assert after["to_card"] - before["to_card"] > one
        assert after["unpinned"] - before["unpinned"] < one / 2
        assert after["to_host"] - before["to_host"] < one / 2
        assert (changed != first["edit"]).any()
        for task in ("generate", "edit"):
            assert (draw(server, "flux1", task)[1] == first[task]).all()


def test_a_text_encoder_comes_for_a_new_prompt_alone(sets, tmp_path):
    """And the transformer stays where it is."""
    path, models = sets
    small = Card(tmp_path / "card")
    footprint = footprint_of(models["klein-4b"])
    small.limit = needed(models, "klein-4b", "none", "text")
    [encoder], [transformer] = footprint.of_texts("none"), footprint.of_bases("none")
    with start(small, path, "klein-4b") as server:
        assert "quantization none, offload text" in server.output
        moved = []
        for prompt in ("a duck", "a duck", "a heron", "a duck"):
            before = worker(small)["to_card"]
            draw(server, "klein-4b", "generate", prompt=prompt)
            moved.append(worker(small)["to_card"] - before)
        assert min(moved[0], moved[2]) - moved[1] > encoder / 2
        assert moved[3] == moved[1] < transformer / 2
        assert worker(small)["used"] < transformer + encoder


def test_a_second_server_takes_what_the_first_one_leaves(sets, tmp_path):
    """It plans for that, and both draw the same."""
    path, models = sets
    both, footprint = Card(tmp_path / "card"), footprint_of(models["klein-4b"])
    whole, texts = (
        plan_memory(footprint, Machine(0, 1 << 50), quantization="none", offload=o)
        for o in ("none", "text")
    )
    with start(both, path, "klein-4b") as first:
        assert "quantization none, offload none" in first.output
        picture = draw(first, "klein-4b", "generate")[1]
        used = worker(both)["used"]
        both.limit = used + RESERVE + (whole.peak + texts.peak) // 2
        with start(both, path, "klein-4b") as second:
            assert "quantization none, offload text" in second.output
            assert used < both.used <= both.limit
            for server in (second, first, second):
                assert (draw(server, "klein-4b", "generate")[1] == picture).all()


def test_a_card_before_ampere_draws_in_numbers_that_it_has(sets, tmp_path):
    old = Card(tmp_path / "card")
    with start(old, sets[0], SIMULATED_GPU_CAPABILITY="7.5") as server:
        assert "does not compute with bfloat16; flux1 runs in float16" in server.output
        assert draw(server, "flux1", "generate")[1].std() > 1
