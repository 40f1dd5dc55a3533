"""What fits where: bytes from configurations, plans, quantized layers, offloading."""

from __future__ import annotations

import sys
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from benchmarks import random_weights
from benchmarks.random_weights import write_checkpoint
from flux_api.core import Lora
from flux_api.engine.pipeline_call import PipelineCall
from flux_api.engine.prompt_cache import PromptCache
from flux_api.engine.steps import decode, denoise, encode_prompt
from flux_api.errors import BadSetting
from flux_api.factory import check_machine
from flux_api.loading import memory
from flux_api.loading.file_weights import Weights
from flux_api.loading.footprint import GIB, footprint_of
from flux_api.loading.memory import choose_placement
from flux_api.loading.model_sets import ModelSets
from flux_api.loading.placement import Placement, check_placement, choose_device
from flux_api.loading.plan import Machine
from flux_api.loading.quantization import quantize
from flux_api.models.catalog import MODEL_INFO
from flux_api.models.lora_files import LoraFolder
from flux_api.models.sources import Folder
from flux_api.models.toml_file import load_models
from flux_api.settings import Settings
from tests.loading.test_loras import draw, weights
from tests.support.complete import complete
from tests.support.servers import run_api
from tests.support.tiny_sets import BASES, write_lora, write_sets

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
MOVING = ("model", "group", "sequential")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Checkpoints of all sets."""
    return tmp_path_factory.mktemp("sets")


@pytest.fixture(scope="module")
def models(folder):
    """The sets over them."""
    return load_models(write_sets(folder), MODEL_INFO)


# -- bytes ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", BASES)
def test_bytes_from_configurations_are_those_of_the_files(models, name):
    info = models[name]
    footprint = footprint_of(info)
    counted = {}
    for key, part in footprint.parts.items():
        counted[key] = part.bytes_in("none", 4)
    for key, size in counted.items():
        source, name = key
        assert size == stored_bytes(source.path / name), key


def stored_bytes(folder):
    """The bytes of the parameters in a component's safetensors file, float32. What
    normalises a VAE's latents are statistics, not parameters."""
    total = 0
    for path in Path(folder).glob("*.safetensors"):
        with safe_open(path, framework="numpy") as file:
            for key in list(file.keys()):
                if "running_" not in key and "num_batches" not in key:
                    assert file.get_slice(key).get_dtype() == "F32"
                    total += 4 * int(np.prod(file.get_slice(key).get_shape()))
    return total


def test_shared_components_are_counted_once(models):
    parts = footprint_of(models["flux1"]).parts
    assert sum(name == "text_encoder_2" for _, name in parts) == 1
    assert sum(name == "transformer" for _, name in parts) == 3


def test_every_shipped_set_is_known_without_a_download():
    expected = {
        "klein-4b": 15,
        "klein-9b": 32,
        "flux2-dev": 104,
        "flux1": 77,
        "schnell": 31,
        "flux3-klein": 36,
    }
    for name, gib in expected.items():
        total = footprint_of(MODEL_INFO[name]).total("none") / GIB
        assert total == pytest.approx(gib, rel=0.04), name


def test_a_checkpoint_that_is_neither_here_nor_known_has_no_footprint(tmp_path):
    (tmp_path / "m.toml").write_text("tiny.base_model = 'somebody/unknown'")
    assert footprint_of(load_models(tmp_path / "m.toml", MODEL_INFO)["tiny"]) is None


def test_quantized_bytes_are_those_that_bitsandbytes_needs(models):
    part = footprint_of(models["klein-4b"]).parts
    part = next(p for (_, name), p in part.items() if name == "transformer")
    for quantization in ("nf4", "int8"):
        pipeline = load(models, "klein-4b", quantization).pipeline
        held = sum(held_bytes(m) for m in pipeline.transformer.modules())
        predicted = part.bytes_in(quantization, 2)
        assert held == pytest.approx(predicted, rel=0.03), quantization


def test_what_is_small_stays_whole(models):
    pipeline = load(models, "flux1", "nf4").pipeline
    large = {type(m).__name__ for m in pipeline.text_encoder_2.modules()}
    assert "Linear4bit" in large
    parts = footprint_of(models["flux1"]).parts
    for name in ("text_encoder", "vae"):
        kinds = {type(m).__name__ for m in getattr(pipeline, name).modules()}
        assert "Linear4bit" not in kinds, name
        part = next(p for (_, own), p in parts.items() if own == name)
        assert part.bytes_in("nf4", 2) == part.bytes_in("none", 2), name


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_layer_takes_its_numbers_and_their_scales(quantization):
    layer = torch.nn.Linear(256, 96, bias=False, dtype=torch.bfloat16)
    weights = Weights(layer.weight.numel(), 96, 0, layer.weight.numel(), True)
    quantized = torch.nn.Sequential(layer)
    quantize(quantized, quantization, CPU)
    assert held_bytes(quantized[0]) == weights.bytes_in(quantization, 2)


@pytest.mark.parametrize(
    ("offload", "waiting"),
    [
        ("none", set()),
        ("text", {"text_encoder", "prompt_upsampler"}),
        *((one, {"text_encoder", "prompt_upsampler", "vae"}) for one in MOVING),
    ],
)
def test_what_waits_in_the_hosts_memory_and_what_moves_by_itself(offload, waiting):
    placement = Placement(CPU, offload=offload)
    names = ("text_encoder", "prompt_upsampler", "vae")
    assert {name for name in names if placement.waits(name)} == waiting
    assert placement.offloads == (offload in MOVING)


def held_bytes(module):
    """Bytes of a module's own parameters and of what quantization keeps beside."""
    total = 0
    for parameter in module.parameters(recurse=False):
        total += parameter.numel() * parameter.element_size()
        state = getattr(parameter, "quant_state", None)
        scales = state.absmax if state is not None else getattr(parameter, "SCB", None)
        if scales is not None:
            total += scales.numel() * scales.element_size()
    return total


# -- plans ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quantization", "offload"),
    [
        *(("nf4", "group"), ("nf4", "sequential"), ("int8", "model")),
        *(("int8", "group"), ("fp8", "group"), ("fp8", "sequential")),
    ],
)
def test_what_cannot_be_moved_is_refused_by_name(quantization, offload):
    with pytest.raises(BadSetting, match=f"FLUX_OFFLOAD={offload!r}.*{quantization}"):
        check_placement(quantization, offload, torch.device("cuda"))


def test_a_build_for_a_gpu_without_a_driver_works_on_the_cpu(monkeypatch):
    """It names its accelerator all the same, unless it is asked for one that works."""

    def current(check_available=False):
        return None if check_available else torch.device("cuda")

    monkeypatch.setattr(torch.accelerator, "current_accelerator", current)
    assert choose_device() == CPU


def test_without_a_gpu_nothing_is_planned():
    said = []
    info = MODEL_INFO["klein-4b"]
    placement = choose_placement("klein-4b", info, Settings(), CPU, said.append)
    assert placement == Placement(CPU) and not said


def test_a_gpu_is_looked_at_and_the_choice_is_said(monkeypatch):
    machine = Machine(16 * GIB, 32 * GIB, "A Card")
    monkeypatch.setattr(memory, "look_at_machine", lambda _: machine)
    info, device, said = MODEL_INFO["flux1"], torch.device("cuda"), []
    chosen = choose_placement("flux1", info, Settings(), device, said.append)
    assert (chosen.quantization, chosen.offload) == ("nf4", "none")
    assert chosen.resident == 1
    assert len(said) == 1
    assert "1 of its checkpoints at a time" in said[0]
    assert "16.0 GiB free on A Card" in said[0] and "76.7 GiB of weights" in said[0]
    manual = Settings(memory="manual", offload="group")
    chosen = choose_placement("flux1", info, manual, device, said.append)
    assert (chosen.quantization, chosen.offload) == ("none", "group")
    assert len(said) == 1


# -- quantization and offloading, for real ---------------------------------------------


def load(models, name, quantization="none", offload="none", loras=None, asked=()):
    """A set's ready pipeline on the CPU."""
    sets = ModelSets(
        models,
        lambda *_: Placement(CPU, quantization, offload),
        loras=LoraFolder(loras),
    )
    return sets.use(name, print).load("generate", asked, print)


def picture(models, name, ready, task="generate"):
    """One small picture as a tensor."""
    info = models[name]
    wanted = {"prompt": "a heart", "seed": 1, "num_inference_steps": 2}
    request = complete(name, info, task, size=(64, 64), **wanted)
    call = PipelineCall(request, info, info.tasks[task], 1)
    pipeline = ready.pipeline
    kwargs = encode_prompt(
        pipeline, call.prepare(pipeline, ready.prior), PromptCache(0), None, CPU
    )
    latents = denoise(pipeline, kwargs, pipeline.transformer, pipeline.vae)
    return decode(pipeline, pipeline.vae, latents)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
@pytest.mark.parametrize("name", ["klein-4b", "schnell", "flux3-klein-direct"])
def test_quantized_layers_draw_nearly_the_same(models, name, quantization):
    ready = load(models, name, quantization)
    kinds = {type(m).__name__ for m in ready.pipeline.transformer.modules()}
    assert {"nf4": "Linear4bit", "int8": "Linear8bitLt"}[quantization] in kinds
    texts = getattr(ready.pipeline, "text_encoder_2", ready.pipeline.text_encoder)
    assert kinds & {type(m).__name__ for m in texts.modules()}
    whole = picture(models, name, load(models, name))
    packed = picture(models, name, ready).float()
    assert 0 < (whole - packed).abs().mean() < 0.15


def test_quantized_server_draws_and_takes_loras(folder, models, tmp_path):
    write_lora(tmp_path / "pencil.safetensors", family="klein", seed=9)
    info = tmp_path / "models.toml"
    # Its first picture is of the default size: a CPU takes long for it.
    info.write_text(
        f'[klein-4b]\nbase_model = "{folder / "klein"}"\nsizes.default = [256, 256]\n'
    )
    settings = {"MODEL_INFO": info, "FLUX_MODEL": "klein-4b"}
    settings |= {"FLUX_QUANTIZATION": "nf4", "FLUX_LORA_DIR": tmp_path}
    with run_api(imports={}, **settings) as server:
        server.wait_ready()
        before, _ = draw(server, "klein-4b")
        with_lora, applied = draw(server, "klein-4b", "pencil:2")
        assert weights(applied) == {"pencil": 2.0}
        assert (with_lora != before).any()
        assert (draw(server, "klein-4b")[0] == before).all()


@pytest.mark.parametrize("offload", ["text", "model", "group"])
@pytest.mark.parametrize("name", ["klein-4b", "flux1", "flux3-klein"])
def test_offloaded_parts_draw_the_same(models, name, offload):
    # From the CPU to the CPU: the hooks are real, the moves are not. (Sequential
    # offloading needs a second device: accelerate itself fails without.)
    sets = ModelSets(models, lambda *_: Placement(CPU, "none", offload))
    loaded = sets.use(name, print)
    plain = ModelSets(models, lambda *_: Placement(CPU)).use(name, print)
    expected = picture(models, name, plain.load("generate", (), print))
    # Text encoders come and go within the forward that reads a prompt.
    assert loaded.exclusive == (offload != "text" or "flux3" in name)
    for _ in range(2):
        ready = loaded.load("generate", (), print)
        moved = picture(models, name, ready)
        ready.release()
        # Weights that were moved lie elsewhere, and some CPUs round by alignment.
        assert torch.allclose(moved, expected, rtol=0, atol=1e-5)
        # Another pipeline over the same parts takes the moving over, and gives it back.
        loaded.load(list(models[name].tasks)[-1], (), print)


def test_dtype_is_chosen_by_component(models, folder, tmp_path):
    file = tmp_path / "m.toml"
    text = (folder / "models.toml").read_text()
    text += '\n[half]\nlike = "klein-4b"\ndtype = {text_encoder = "bfloat16"}\n'
    file.write_text(text)
    pipeline = load(load_models(file, MODEL_INFO), "half").pipeline
    assert pipeline.text_encoder.dtype == torch.bfloat16
    assert pipeline.transformer.dtype == pipeline.vae.dtype == torch.float32


def test_large_pictures_are_decoded_in_tiles_where_memory_is_short(models):
    sets = ModelSets(models, lambda *_: Placement(CPU, tiling=True))
    vae = sets.use("klein-4b", print).load("generate", (), print).pipeline.vae
    assert vae.use_tiling and vae.use_slicing


def test_tasks_of_one_family_share_their_weights(models):
    loaded = ModelSets(models, lambda *_: Placement(CPU)).use("flux1", print)
    edit = loaded.load("edit", (), print).pipeline
    generate = loaded.load("generate", (), print).pipeline
    fill = loaded.load("inpaint", (), print).pipeline
    variation = loaded.load("variation", (), print)
    for name in ("text_encoder", "text_encoder_2", "vae"):
        assert getattr(edit, name) is getattr(generate, name) is getattr(fill, name)
    assert variation.pipeline.transformer is generate.transformer
    assert variation.prior.text_encoder_2 is generate.text_encoder_2
    assert edit.transformer is not generate.transformer
    klein = ModelSets(models, lambda *_: Placement(CPU)).use("klein-4b", print)
    one, other = (klein.load(t, (), print).pipeline for t in ("edit", "inpaint"))
    assert one.transformer is other.transformer
    assert one.transformer.dtype == torch.float32


@pytest.mark.parametrize("quantization", ["none", "nf4"])
@pytest.mark.parametrize(("copies", "loads"), [(None, 1), (0, 3)])
def test_checkpoints_beyond_those_with_room_wait_or_go(
    models, copies, loads, quantization
):
    """One at a time on the device, and with or without memory for those that wait:
    the same pictures, and text encoders that are loaded once."""
    placement = Placement(CPU, quantization, resident=1, copies=copies)
    loaded = ModelSets(models, lambda *_: placement).use("flux1", print)
    said, pictures = [], {}
    for task in ("generate", "inpaint", "generate", "inpaint", "generate"):
        ready = loaded.load(task, (), said.append)
        if task == "inpaint":
            other = weakref.ref(ready.pipeline.transformer)
        else:
            drawn = picture(models, "flux1", ready)
            first = pictures.setdefault(task, drawn)
            # As above: weights may lie elsewhere.
            assert torch.allclose(drawn, first, rtol=0, atol=1e-5)
        del ready
    assert (other() is None) == (copies == 0)
    for part, times in (("transformer", loads), ("text_encoder_2", 1)):
        begun = [line for line in said if line.startswith(f"loading the {part} of ")]
        assert sum("dev" in line for line in begun) == times, said


def test_an_evicted_set_is_gone_before_the_next_one_comes(models):
    sets = ModelSets(models, lambda *_: Placement(CPU), most=1)
    ready = sets.use("klein-4b", print).load("generate", (), print)
    gone = weakref.ref(ready.pipeline.transformer)
    del ready
    said = []
    sets.use("schnell", said.append)
    assert said == ["unloading klein-4b"]
    assert gone() is None
    assert sets.names == ("schnell",)


def test_a_lora_stays_on_its_own_task(models, tmp_path):
    write_lora(tmp_path / "a.safetensors", seed=5)
    sets = ModelSets(models, lambda *_: Placement(CPU), loras=LoraFolder(tmp_path))
    loaded = sets.use("flux1", print)
    layer = loaded.load("edit", (), print).pipeline.transformer.transformer_blocks[0]
    sample = torch.ones(1, 1, layer.attn.to_q.in_features)
    plain = layer.attn.to_q(sample)
    loaded.load("edit", (Lora("a", 1.0),), print)
    assert (layer.attn.to_q(sample) != plain).any()
    loaded.load("generate", (), print)
    assert (layer.attn.to_q(sample) == plain).all()


def test_random_checkpoints_of_the_memory_benchmark_draw(models, tmp_path):
    for name, pipeline in (
        ("klein-4b", "Flux2KleinPipeline"),
        ("flux1", "FluxPipeline"),
    ):
        info = models[name]
        folder = write_checkpoint(info.base_model, pipeline, tmp_path / name)
        tasks = {"generate": replace(info.tasks["generate"], loras=())}
        made = {name: replace(info, base_model=Folder(folder), tasks=tasks)}
        assert picture(made, name, load(made, name)).shape == (3, 64, 64)


def test_random_weights_are_a_set_that_the_server_takes(models, tmp_path, monkeypatch):
    """All of flux1, its three transformers in the files of one."""
    tiny, priors = models["flux1"], random_weights.write_prior

    def write(source, pipeline, folder):
        assert str(source) == "black-forest-labs/FLUX.1-dev"
        return write_checkpoint(tiny.base_model, pipeline, folder)

    def write_prior(source, folder):
        assert str(source) == "black-forest-labs/FLUX.1-Redux-dev"
        return priors(tiny.tasks["variation"].prior, folder)

    monkeypatch.setattr(random_weights, "write_checkpoint", write)
    monkeypatch.setattr(random_weights, "write_prior", write_prior)
    words = random_weights.write_set("flux1", tmp_path).split()
    settings = dict(word.split("=") for word in words)
    assert settings["FLUX_MODEL"] == "flux1"
    info = load_models(Path(settings["MODEL_INFO"]), MODEL_INFO)["flux1"]
    assert info.base_model == Folder(tmp_path / "FLUX.1-dev")
    # Nothing of it would be downloaded.
    assert not any(row.loras for row in info.tasks.values())
    loaded = ModelSets({"flux1": info}, lambda *_: Placement(CPU)).use("flux1", print)
    made = {task: loaded.load(task, (), print) for task in info.tasks}
    assert made["variation"].prior.image_encoder is not None
    one, other, fill = (
        made[task].pipeline.transformer for task in ("generate", "edit", "inpaint")
    )
    assert fill.x_embedder.in_features == 6 * one.x_embedder.in_features
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name])
        if not name.startswith("x_embedder."):
            assert torch.equal(weight, fill.state_dict()[name])
    real = [p for p in tmp_path.rglob("*.safetensors") if not p.is_symlink()]
    links = [path for path in real if "Kontext" in str(path)]
    assert not links, "one of them is written once more"


# -- what cannot be done here ---------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"offload": "model"}, "FLUX_OFFLOAD='model'.*no GPU"),
        ({"quantization": "fp8"}, "FLUX_QUANTIZATION='fp8'.*requirements-fp8.txt"),
    ],
)
def test_what_this_machine_cannot_do_is_a_start_up_error(settings, words):
    if torch.cuda.is_available():
        pytest.skip("this machine can")
    with pytest.raises(BadSetting, match=words):
        check_machine(Settings(**settings))


@pytest.mark.parametrize("error", [RuntimeError("no kernel"), NotImplementedError()])
def test_a_bitsandbytes_without_kernels_is_told(monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr("flux_api.loading.quantization.quantize", fail)
    words = "FLUX_QUANTIZATION='int8'.*cannot do it on this machine's cpu.*take none"
    with pytest.raises(BadSetting, match=words):
        check_placement("int8", "none", CPU)
    check_placement("none", "none", CPU)


def test_a_missing_bitsandbytes_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(BadSetting, match="bitsandbytes is missing.*requirements.txt"):
        check_placement("nf4", "none", CPU)
