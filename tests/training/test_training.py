"""The trainer in seconds: a few steps on made-up pictures, resume, export, judge."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training import __main__ as everything
from training import data as training_data
from training import flow, model, prepare, vae
from training.batches import Sampler
from training.clock import Clock, learning_rate
from training.drawing import Artist
from training.export import SUMS, export_pipeline
from training.latents import encode_all, measure_latents
from training.measure import nearest_op, psnr
from training.pictures import OPS, apply_op, colour_of, on_white
from training.ranks import launch
from training.texts import ORDERS, STYLES, Writer, load_prompts

TINY = Path(__file__).parents[2] / "models" / "tiny"
NAMES = ("red ball", "blue box", "green leaf", "moon", "house", "key")
LOOKS = ("noto", "twemoji", "flat")

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    # Compiled code in torch's own libraries, seen on loading diffusers.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight"),
]


def draw(index, size=64):
    """A coloured block on a transparent ground, another place for each index."""
    rgba = np.zeros((size, size, 4), np.uint8)
    rgba[..., :3] = 255
    top, left = 8 + 5 * index % 24, 6 + 7 * index % 20
    block = (slice(top, top + 24), slice(left, left + 32))
    rgba[block] = (40 * index % 256, 230 - 30 * index % 200, 90, 255)
    return rgba


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data folder as training.prepare leaves it."""
    folder = tmp_path_factory.mktemp("data")
    words = {
        f"1f60{n}": {"name": name, "tags": ["toy"], "group": "objects"}
        for n, name in enumerate(NAMES)
    }
    folder.joinpath("words.json").write_text(json.dumps(words))
    rows = [(code, style) for style in LOOKS for code in words]
    np.savez(
        folder / "emoji64.npz",
        images=np.stack([draw(index) for index in range(len(rows))]),
        code=[code for code, _ in rows],
        style=[style for _, style in rows],
    )
    return folder


@pytest.fixture(scope="module")
def start(folder, tmp_path_factory):
    """An untrained pipeline in the smallest shape."""
    data = training_data.load_data(folder, 64, list(LOOKS), None)
    torch.manual_seed(0)
    autoencoder = vae.new_vae(64, vae.choose_channels(64))
    mean, deviation = measure_latents(autoencoder, data)
    autoencoder.register_to_config(scaling_factor=1 / deviation, shift_factor=mean)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(model.SIZES, "least", (1, 1, 1))
        pipeline = model.new_pipeline(autoencoder, data.words, "least")
    path = tmp_path_factory.mktemp("start")
    pipeline.save_pretrained(path)
    return path


@pytest.fixture
def make_run(folder, start, tmp_path):
    """A flow training run whose state is kept under a name."""

    def make(name, start=start):
        options = ["--data", str(folder), "--styles", ",".join(LOOKS), "--batch", "4"]
        options += ["--init", str(start), "--latents", str(tmp_path / "latents.pt")]
        options += ["--state", str(tmp_path / name), "--budget", "1e9"]
        chosen = flow.parse_options(options)
        pipeline = model.load_pipeline(start)
        data = training_data.load_data(folder, 64, list(LOOKS), None)
        latents = encode_all(pipeline.vae, data, chosen.latents)
        sampler = Sampler(data, latents, random.Random(1))
        loss = flow.FlowLoss(pipeline, latents.values, compiled=False)
        return flow.Run(chosen, sampler, loss)

    return make


def advance(run, steps):
    for _ in range(steps):
        run.advance(run.clock.tick())


def test_resuming_is_exact(make_run):
    straight = make_run("straight.pt")
    advance(straight, 8)
    stopped = make_run("stopped.pt")
    advance(stopped, 4)
    stopped.save()
    resumed = make_run("stopped.pt")
    assert resumed.step == 4
    advance(resumed, 4)
    for mine, other in zip(straight.parameters, resumed.parameters, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=0)
    for mine, other in zip(
        straight.average.values, resumed.average.values, strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=0, atol=0)


def test_loss_falls(make_run):
    run = make_run("falls.pt")
    run.options.rate = 3e-3
    advance(run, 50)
    losses = torch.stack(run.seen["generate"])
    assert losses[-8:].mean() < losses[:8].mean()


def test_a_step_without_a_finite_gradient_is_skipped(make_run):
    run = make_run("skipped.pt")
    run.advance(0.0)
    before = [parameter.detach().clone() for parameter in run.parameters]
    run.parameters[0].register_hook(lambda gradient: gradient * float("nan"))
    run.advance(0.0)
    assert run.guard.skipped == 1
    assert all(map(torch.equal, before, run.parameters))
    assert all(value.isfinite().all() for value in run.average.values)


def test_a_file_moves_the_end_of_a_run(make_run):
    run = make_run("moved.pt")
    assert run.spend() < 0.1
    run.clock.spent = 50.0
    run.options.state.with_suffix(".budget").write_text("100\n")
    assert 0.5 <= run.spend() < 0.6


def test_export_loads_in_all_pipelines(make_run, tmp_path):
    run = make_run("export.pt")
    advance(run, 2)
    target = tmp_path / "export"
    export_pipeline(run.loss.pipeline, run.average.values, target)
    check_sums(target)
    artist = Artist(target, steps=2)
    image, mask = on_white(draw(1)), Image.new("L", (64, 64), 255)
    drawn = [
        *artist.generate(["a red ball"], [1]),
        *artist.edit([image], ["mirror it"], [1]),
        *artist.vary([image], ["a red ball"], [1]),
        *artist.fill([image], [mask], ["a red ball"], [1]),
    ]
    assert [picture.size for picture in drawn] == [(64, 64)] * 4


def test_a_run_goes_on_from_an_export(make_run, tmp_path):
    first = make_run("first.pt")
    advance(first, 2)
    export_pipeline(first.loss.pipeline, first.average.values, tmp_path / "export")
    further = make_run("further.pt", start=tmp_path / "export")
    for mine, learnt in zip(further.parameters, first.average.values, strict=True):
        assert torch.equal(mine, learnt.bfloat16().float())
    advance(further, 2)
    assert all(value.isfinite().all() for value in further.average.values)


def test_decoder_training_leaves_the_encoder(folder, start, tmp_path):
    before = vae.AutoencoderKL.from_pretrained(start / "vae")
    options = ["--data", str(folder), "--styles", ",".join(LOOKS), "--batch", "2"]
    options += ["--init", str(start / "vae"), "--decoder-only", "--budget", "0.5"]
    options += ["--state", str(tmp_path / "vae.pt"), "--out", str(tmp_path / "vae")]
    vae.main(options)
    after = vae.AutoencoderKL.from_pretrained(tmp_path / "vae")
    pairs = zip(before.encoder.parameters(), after.encoder.parameters(), strict=True)
    assert all(torch.equal(old, new) for old, new in pairs)
    pairs = zip(before.decoder.parameters(), after.decoder.parameters(), strict=True)
    assert not all(torch.equal(old, new) for old, new in pairs)


def test_evaluation_wordings_are_not_trained_on():
    writer = Writer(random.Random(3))
    prompts = load_prompts()
    fixed = {entry["prompt"] for entry in prompts["generate"] + prompts["styles"]}
    wordings = {wording for kind in prompts["edits"].values() for wording in kind}
    names = {entry["concept"] for entry in prompts["generate"]}
    for name in names:
        concept = {"name": name, "tags": ["thing"]}
        for style in STYLES:
            assert writer.caption(concept, style) not in fixed
    words = {"c": "{}", "s": "{}", "n": "{}"}
    for kind in ORDERS:
        for _ in range(300):
            assert writer.instruction(kind, **words) not in wordings


def test_held_out_pictures_are_not_trained_on(folder, monkeypatch):
    monkeypatch.setattr(training_data, "KNOWN_TO_START", 2)
    data = training_data.load_data(folder, 64, list(LOOKS), None)
    assert data.held_out.sum() == len(NAMES) - 2
    latents = encode_all(
        vae.new_vae(64, vae.choose_channels(64)), data, folder / "unused.pt"
    )
    assert not data.held_out[latents.rows].any()


def test_a_pause_costs_no_budget(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    clock = Clock(budget=100, _last=0.0)
    now[0] = 10.0
    assert clock.tick() == 0.1
    now[0] = 5000.0
    assert clock.tick() == 0.3


def test_learning_rate_rises_stays_and_falls():
    rates = [learning_rate(1.0, 1000, share, 0.4) for share in (0, 0.5, 0.8, 1)]
    assert rates == pytest.approx([1, 1, 0.5, 0.005])
    assert learning_rate(1.0, 0, 0, 0.4) == pytest.approx(0.01)


@pytest.mark.parametrize("op", [op for op in OPS if not op.startswith("paint")])
def test_each_operation_is_nearest_to_itself(op):
    rgba = draw(3)
    rgba[20:26, 10:14, :3] = (250, 240, 0)
    made = apply_op(rgba, op)
    assert psnr(made, apply_op(rgba, op)) > 60
    assert nearest_op(rgba, made, op) == op


def test_painting_changes_the_main_colour():
    rgba = draw(0)
    rgba[rgba[..., 3] > 0, :3] = (210, 30, 30)
    assert colour_of(rgba) == "red"
    rgba[..., :3] = np.asarray(apply_op(rgba, "paint_blue"))
    assert colour_of(rgba) == "blue"


def check_sums(folder):
    lines = folder.joinpath(SUMS).read_text().splitlines()
    listed = dict(reversed(line.split("  ")) for line in lines)
    files = [f for f in folder.rglob("*") if f.suffix in (".json", ".safetensors")]
    assert {str(f.relative_to(folder)) for f in files} == set(listed)
    for name, digest in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def test_committed_checkpoint_is_whole_and_small():
    if not (TINY / SUMS).exists():
        pytest.skip("no export of this trainer is committed yet")
    check_sums(TINY)
    files = [file for file in TINY.rglob("*") if file.is_file()]
    assert all(file.stat().st_mode & 0o444 == 0o444 for file in files)
    assert max(file.stat().st_size for file in files) <= 16 * 2**20
    assert sum(file.stat().st_size for file in files) <= 32 * 2**20
    assert "CC-BY-4.0" in (TINY / "NOTICE").read_text()


@pytest.mark.parametrize("init", [None, TINY])
def test_the_one_command_runs_all_stages(folder, start, tmp_path, monkeypatch, init):
    """Only the training itself is left out; every option is one that its stage has."""
    ran, flows = [], []

    def pretend(count, stage, arguments):
        ran.append(stage)
        parse = {"training.vae": vae, "training.flow": flow}[stage].parse_options
        options = parse(arguments)
        assert options.budget > 0
        if stage == "training.vae":
            shutil.copytree(start / "vae", options.out)
        else:
            assert model.load_pipeline(options.init).vae.config.shift_factor
            flows.append(options)

    monkeypatch.setattr(everything, "launch", pretend)
    monkeypatch.setattr(everything, "prepare_data", lambda *given: None)
    monkeypatch.setattr(everything, "_python", lambda stage, *given: ran.append(stage))
    monkeypatch.setitem(model.SIZES, "least", (1, 1, 1))
    shutil.copytree(folder, tmp_path / "data")
    plan = everything.Plan(",".join(LOOKS), None, 1, 2, 2, "least")
    options = Namespace(init=init, budget=1, rate=2e-4, size=64, work=tmp_path)
    everything.run_all(options, plan)
    stages = ("flow", "export", "unseen", "known_words", "evaluate", "grids")
    # An export's autoencoder stays: the flow's weights are made for its latents.
    stages = stages if init else ("vae", *stages)
    assert ran == [f"training.{stage}" for stage in stages]
    assert flows[0].rate == 2e-4
    assert flows[0].state.parent == tmp_path / ("tiny" if init else "new")
    assert flows[0].latents.parent == flows[0].state.parent


WORKER = """
import sys, torch
from training import ranks
ranks.start_rank()
weights = [torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(2))]
weights[0].grad = torch.full((3,), 1.0 + 2 * ranks.RANK)
ranks.average_gradients(weights)
assert weights[0].grad.tolist() == [2.0] * 3, weights[0].grad
assert weights[1].grad.tolist() == [0.0] * 2
assert ranks.agree(float(ranks.RANK)) == 0
ranks.stop_rank()
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="made for ranks on a CPU")
def test_two_ranks_agree(tmp_path, monkeypatch):
    tmp_path.joinpath("averaging_worker.py").write_text(WORKER)
    here = [str(tmp_path), str(Path(__file__).parents[2])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(here))
    launch(2, "averaging_worker", [])


def test_a_failing_rank_is_reported(tmp_path, monkeypatch):
    tmp_path.joinpath("failing_worker.py").write_text("raise SystemExit(3)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(SystemExit, match="failing_worker failed"):
        launch(2, "failing_worker", [])


def test_pictures_are_drawn_from_packages(tmp_path, monkeypatch):
    pytest.importorskip("resvg_py", reason="only the trainer's requirements have it")
    entry = {"label": "Red ball", "hexcode": "1F534-FE0F", "group": 8, "tags": ["Dot"]}
    component = {"label": "light skin", "hexcode": "1F3FB", "group": 2}
    svg = '<rect x="4" y="4" width="8" height="8" fill="#f00"/>'
    files = {
        "emojibase/en/data.json": json.dumps([entry, component]),
        "emojilib/dist/emoji-en-US.json": json.dumps({"\U0001f534": ["round_thing"]}),
        "noto/icons.json": json.dumps({"icons": {"red-ball": {"body": svg}}}),
        "noto/chars.json": "{}",
    }
    for name, content in files.items():
        path = tmp_path / "packages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (tmp_path / "packages/3d/assets").mkdir(parents=True)
    Image.new("RGBA", (128, 64), (0, 0, 255, 255)).save(
        tmp_path / "packages/3d/assets/1f534.webp", lossless=True
    )
    packages = {path.name: path for path in (tmp_path / "packages").iterdir()}
    monkeypatch.setattr(prepare, "fetch_packages", lambda folder: packages)

    target = prepare.prepare_data(tmp_path, 32, ["noto", "3d"])

    words = json.loads((tmp_path / "words.json").read_text())
    tags = ["dot", "round thing"]
    assert words == {"1f534": {"name": "red ball", "tags": tags, "group": "symbols"}}
    with np.load(target) as stored:
        ball, wide = stored["images"]
        assert stored["style"].tolist() == ["noto", "3d"]
    assert ball[16, 16].tolist() == [255, 0, 0, 255]
    assert ball[0, 0].tolist() == [255, 255, 255, 0]
    # Not square: centred, and white shows where nothing is.
    assert wide[16, 16].tolist() == [0, 0, 255, 255]
    assert wide[2, 16].tolist() == [255, 255, 255, 0]
