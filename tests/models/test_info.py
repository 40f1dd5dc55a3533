"""What a set makes of a request: strength, size of its work, tiles, and refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PIL import Image

from flux_api.errors import InvalidRequest
from flux_api.models.catalog import MODEL_INFO
from flux_api.models.hosted import find_hosted
from flux_api.models.sources import Folder, Repository
from flux_api.models.upscale_tiles import tiles_of
from flux_api.models.upscaling import with_upscale
from tests.support.complete import complete

PHOTO = Image.new("RGB", (640, 480))
SCHNELL = MODEL_INFO["schnell"]


@pytest.mark.parametrize(
    ("asked", "steps", "strength"),
    [(0.0, 4, 0.25), (0.1, 4, 0.25), (0.5, 4, 0.5), (0.1, 20, 0.1), (1, 1, 1.0)],
)
def test_however_little_is_to_change_a_step_is_made(asked, steps, strength):
    """diffusers refuses to make none."""
    made = complete(
        *("schnell", SCHNELL, "variation"),
        images=(PHOTO,),
        strength=asked,
        num_inference_steps=steps,
    )
    assert made.strength == strength


@pytest.mark.parametrize(("own", "strength"), [(0.0, 0.25), (0.1, 0.25), (0.5, 0.5)])
def test_the_sets_own_strength_makes_a_step_too(own, strength):
    task = replace(SCHNELL.tasks["variation"], strength=own)
    assert task.choose_strength(None, 4) == task.choose_strength(own, 4) == strength


def test_a_strength_is_the_sets_own_or_has_no_place():
    own = complete("schnell", SCHNELL, "variation", images=(PHOTO,))
    assert own.strength == SCHNELL.tasks["variation"].strength
    with pytest.raises(InvalidRequest, match="takes no strength for that"):
        complete("schnell", SCHNELL, prompt="a", strength=0.5)


@pytest.mark.parametrize(
    ("name", "images", "words"),
    [
        ("schnell", 2, "takes at most 1 input image, but got 2"),
        ("klein-4b", 11, "takes at most 10 input images, but got 11"),
    ],
)
def test_too_many_pictures_are_told_how_many_there_may_be(name, images, words):
    task = MODEL_INFO[name].tasks["edit"]
    task.check(task.max_images, None)
    with pytest.raises(InvalidRequest, match=words) as refused:
        task.check(images, None)
    assert refused.value.limits == {"maximum": task.max_images, "given": images}


@pytest.mark.parametrize(
    ("name", "mode", "images", "size", "tokens"),
    [
        # 16x16 pixels each, and the text.
        ("klein-4b", "generate", 0, (1024, 512), 64 * 32 + 512),
        ("klein-4b", "edit", 2, (1024, 512), 3 * 64 * 32 + 512),
        # At the one size that it works at; its text is as short as nothing.
        ("tiny", "generate", 0, (512, 512), 16),
        ("tiny", "edit", 1, (512, 512), 2 * 16),
        # A tile at a time, and no reference.
        ("klein-4b", "upscale", 1, (2048, 1024), 64 * 64 + 512),
        ("tiny", "upscale", 1, (2048, 1024), 16),
    ],
)
def test_the_work_of_a_forward_is_that_of_all_it_looks_at(
    name, mode, images, size, tokens
):
    info = with_upscale(MODEL_INFO[name])
    made = complete(name, info, mode, images=(PHOTO,) * images, size=size, prompt="a")
    assert info.tokens(made) == tokens


def test_of_a_set_with_several_checkpoints_its_own_is_the_first():
    """A task comes before whose transformer is another one."""
    flux1 = MODEL_INFO["flux1"]
    tasks = {name: flux1.tasks[name] for name in ("edit", "inpaint", "generate")}
    turned = replace(flux1, tasks=tasks)
    assert list(turned.bases)[0] == turned.base_model
    assert turned.bases[turned.base_model] == tasks["generate"]
    assert len(turned.bases) == 3
    # None of its tasks is over it any more.
    alone = replace(flux1, tasks={"edit": tasks["edit"]})
    assert list(alone.bases) == [tasks["edit"].base_model]
    redux = Repository("black-forest-labs/FLUX.1-Redux-dev")
    assert set(flux1.sources) == {*flux1.bases, redux}


LARGER = [
    name for name, info in MODEL_INFO.items() if "upscale" in with_upscale(info).tasks
]


@pytest.mark.parametrize("name", LARGER)
def test_a_tile_changes_in_a_few_steps_and_by_a_part(name):
    """One step alone draws over what is there. A small model, which knows whole things,
    changes no more than that takes."""
    info = with_upscale(MODEL_INFO[name])
    task = info.tasks["upscale"]
    steps = task.strength * task.num_inference_steps
    assert steps >= 2 and task.strength <= 0.5
    if info.native_size is not None:
        assert steps == 2
    assert (task.prompt, task.max_images) == ("", 1)


def test_what_an_operator_says_of_upscaling_stays():
    own = replace(SCHNELL.tasks["edit"], strength=0.9)
    info = replace(SCHNELL, tasks={"edit": SCHNELL.tasks["edit"], "upscale": own})
    assert with_upscale(info) is info


@pytest.mark.parametrize("native", [None, 64, 512])
@pytest.mark.parametrize("size", [(64, 64), (640, 480), (2048, 1000), (4096, 4096)])
def test_tiles_share_enough_that_no_seam_shows(size, native):
    """An eighth of them, and as many pixels as models need to settle."""
    tiling = tiles_of(size, native)
    assert tiling.overlap >= max(24, tiling.tile / 8)
    assert tiling.tile % 16 == 0 and tiling.tile >= (native or 1024)
    # All that there is, up to the next of the models' grid.
    left, upper, right, lower = min(tiling.boxes)[:2] + max(tiling.boxes)[2:]
    assert (left, upper) == (0, 0)
    assert (right - size[0], lower - size[1]) == (-size[0] % 16, -size[1] % 16)
    # A small model is not asked for thousands.
    assert native is None or len(tiling.boxes) <= 49


def test_a_hosted_name_finds_one_that_does_its_task():
    """Where nothing of its family is here, and the default cannot."""
    models = {name: MODEL_INFO[name] for name in ("flux3-klein", "schnell")}
    found = find_hosted("flux-pro-1.0-fill", models, "flux3-klein", {})
    assert found == "schnell"
    assert "inpaint" not in models["flux3-klein"].tasks


def test_folders_are_shown_by_their_last_part_alone(tmp_path):
    assert str(Folder(tmp_path / "mine")) == "mine"
