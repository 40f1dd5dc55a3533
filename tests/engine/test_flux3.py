"""FLUX 3 beneath the server: each of its blocks, and the transformer by itself."""

from __future__ import annotations

import importlib
import inspect

import pytest
import torch
from diffusers import modular_pipelines
from diffusers.modular_pipelines import ModularPipelineBlocks

from flux_api.engine.backend import DiffusersBackend
from flux_api.engine.tuning import Tuner
from flux_api.errors import Cancelled
from flux_api.loading.components import load
from flux_api.loading.placement import Placement
from flux_api.models.catalog import MODEL_INFO
from flux_api.models.toml_file import load_models
from flux_api.queue.tasks import Callbacks, Picture
from tests.support.complete import complete
from tests.support.scrape import forwards
from tests.support.tiny_checkpoints import build, flux3_transformer

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


MODULES = (
    *("before_denoise", "decoders", "denoise", "encoders", "inputs"),
    *("modular_blocks_flux3", "modular_blocks_flux3_distilled", "prompt_upsampler"),
)


def block_classes():
    """Every block of the family, public or not."""
    found = set()
    for name in MODULES:
        module = importlib.import_module(f"diffusers.modular_pipelines.flux3.{name}")
        for value in vars(module).values():
            if inspect.isclass(value) and issubclass(value, ModularPipelineBlocks):
                found.add(value)
    # A loop's wrapper alone has no steps: its subclasses do.
    ours = (
        c
        for c in found
        if c.__name__.startswith("Flux3") and not c.__name__.endswith("LoopWrapper")
    )
    return sorted(ours, key=lambda block_class: block_class.__name__)


def test_every_block_is_made_and_says_what_it_takes():
    classes = block_classes()
    assert len(classes) > 25
    for block_class in classes:
        block = block_class()
        assert block.description, block_class
        assert all(spec.name for spec in block.expected_components), block_class
        inputs = [value.name for value in block.inputs]
        assert len(inputs) == len(set(inputs)), block_class


@pytest.mark.parametrize("flow_map", [True, False])
@pytest.mark.parametrize("references", [0, 6])
def test_transformer_runs_on_random_tensors(flow_map, references):
    torch.manual_seed(0)
    transformer = flux3_transformer(flow_map=flow_map).eval()
    tokens, words = 16, 5
    arguments = {
        "hidden_states": torch.randn(2, tokens, 128),
        "encoder_hidden_states": torch.randn(2, words, 128),
        "timestep": torch.tensor([0.7, 0.3]),
        "img_ids": torch.zeros(tokens, 4),
        "txt_ids": torch.zeros(words, 4),
    }
    if flow_map:
        arguments["target_timestep"] = torch.tensor([0.5, 0.1])
    if references:
        arguments["image_cond_hidden_states"] = torch.randn(2, references, 128)
        arguments["image_cond_ids"] = torch.ones(references, 4)
    with torch.no_grad():
        velocity = transformer(**arguments, return_dict=False)[0]
        arguments["timestep"] = torch.tensor([0.9, 0.3])
        other = transformer(**arguments, return_dict=False)[0]
    assert velocity.shape == (2, tokens, 128)
    assert torch.isfinite(velocity).all()
    # The first sample has another time, the second is as it was.
    assert not torch.equal(velocity[0], other[0])
    assert torch.equal(velocity[1], other[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny FLUX 3 Image Klein."""
    return build("flux3-klein", tmp_path_factory.mktemp("flux3") / "klein")


def pipeline(folder, tmp_path, name):
    """The loaded pipeline of the set ``name`` over ``folder``."""
    (tmp_path / "m.toml").write_text(f'{name}.base_model = "{folder}"')
    info = load_models(tmp_path / "m.toml", MODEL_INFO)[name]
    return load(info, info.tasks["generate"], {}, Placement(CPU), print)


def test_the_upsampler_is_a_block_that_a_set_can_leave_out(folder, tmp_path):
    with_it = pipeline(folder, tmp_path, "flux3-klein")
    without = pipeline(folder, tmp_path, "flux3-klein-direct")
    assert "prompt_upsampler" in with_it.blocks.sub_blocks
    assert "prompt_upsampler" not in without.blocks.sub_blocks
    assert not hasattr(without, "prompt_upsampler")


class Watched:
    """Callbacks that count ``checks`` before the first step, and end at ``stop``."""

    def __init__(self, stop=0):
        self.checks, self.stop, self.stepped = 0, stop, False

    def check(self):
        self.checks += not self.stepped
        if self.checks == self.stop:
            raise Cancelled("Nobody waits.")

    def on_step(self, *_):
        self.stepped = True

    @property
    def callbacks(self):
        return Callbacks(self.check, self.on_step, print, lambda _: None)


TOKENS = 40


@pytest.fixture
def upsampled(folder, tmp_path):
    """The sets, of which flux3-klein writes ``TOKENS`` tokens first, and a request to
    it."""
    (tmp_path / "m.toml").write_text(
        f'flux3-klein.base_model = "{folder}"\n'
        f"flux3-klein.tasks.generate.arguments.max_new_tokens = {TOKENS}"
    )
    models = load_models(tmp_path / "m.toml", MODEL_INFO)
    wanted = {"size": (64, 64), "prompt": "a duck", "num_inference_steps": 1}
    return models, complete("flux3-klein", models["flux3-klein"], **wanted)


def test_the_upsampler_shows_life_at_each_token_and_stops_there(upsampled):
    models, request = upsampled
    backend = DiffusersBackend(models, "flux3-klein", batch_tokens=0)
    whole, stopped = Watched(), Watched(stop=TOKENS // 2)
    backend.run(Picture(request, 0, "whole"), whole.callbacks)
    # A random upsampler writes as many as it may.
    assert whole.checks >= TOKENS
    before = forwards()
    with pytest.raises(Cancelled):
        backend.run(Picture(request, 0, "stopped"), stopped.callbacks)
    assert stopped.checks == TOKENS // 2 and forwards() == before


def test_the_upsampler_shows_life_while_its_set_is_tuned(upsampled):
    models, request = upsampled
    tuner = Tuner("speed", CPU, compiler="no-such-compiler")
    backend = DiffusersBackend(models, "flux3-klein", batch_tokens=0, tuner=tuner)
    watched = Watched()
    backend.run(Picture(request, 0, "first"), watched.callbacks)
    # Once for the transformer's arguments, once for the picture.
    assert watched.checks >= 2 * TOKENS


def test_no_code_of_a_checkpoint_is_run(folder, tmp_path):
    # A repository of blocks of its own would name them like this.
    (folder / "config.json").write_text(
        '{"auto_map": {"ModularPipelineBlocks": "b.B"}}'
    )
    (folder / "b.py").write_text("raise SystemExit('code of the checkpoint')")
    made = pipeline(folder, tmp_path, "flux3-klein-direct")
    assert type(made) is modular_pipelines.Flux3DistilledModularPipeline
