"""``flux-api recipe``: what a picture says, and the same picture once more."""

from __future__ import annotations

import hashlib
import json

import pytest
import requests
from PIL import Image

from flux_api.images.codec import encode_image
from flux_api.images.metadata import Metadata, add_metadata
from flux_api.images.recipe import make_xmp, read_recipe
from tests.commands.program import run
from tests.support.pictures import make_png
from tests.support.wire import drawn, make_mask


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def ask(fake_multi, tmp_path):
    """The program in a folder with pictures, told of a server that takes several."""
    (tmp_path / "one.png").write_bytes(make_png())
    (tmp_path / "two.png").write_bytes(make_png(color="blue"))

    def ask(*arguments, **more):
        return run(tmp_path, *arguments, FLUX_SERVER=fake_multi.url, **more)

    return ask


def draw(server, folder, name, files=(), **fields):
    """A picture of the server as a file of the folder."""
    route = "edits" if files else "generations"
    answer = requests.post(
        f"{server.url}/v1/images/{route}",
        data={"seed": 300, "size": "64x96", "steps": 2} | fields,
        files=[("image[]", ("picture.png", data)) for data in files] or None,
        headers={"Accept": "image/*"},
        timeout=60,
    )
    assert answer.ok, answer.text
    (folder / name).write_bytes(answer.content)


def test_a_recipe_is_shown_with_what_lacks(ask, fake_multi, tmp_path):
    draw(fake_multi, tmp_path, "made.png", [make_png()], prompt="a cat")
    done = ask("recipe", "made.png")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == read_recipe((tmp_path / "made.png").read_bytes())
    assert f"--prompt TEXT, whose SHA-256 is {sha256(b'a cat')}" in done.stderr.decode()
    assert (
        f"--input FILE, whose SHA-256 is {sha256(make_png())}" in done.stderr.decode()
    )


@pytest.mark.parametrize("file_format", ["png", "jpeg", "webp"])
def test_the_same_is_made_once_more(ask, fake_multi, tmp_path, file_format):
    files = [make_png(color="blue"), make_png()]
    more = {} if file_format == "png" else {"output_compression": 60}
    draw(
        *(fake_multi, tmp_path, "made", files),
        prompt="a cat",
        output_format=file_format,
        **more,
    )
    first = drawn(fake_multi)
    again = ["recipe", "made", "--again", "--prompt", "a cat"]
    # Found by their hashes, in whatever order.
    again += ["--input", "one.png", "--input", "two.png"]
    done = ask(*again)
    assert done.returncode == 0, done.stderr
    assert b"the same pixels" in done.stderr
    assert drawn(fake_multi) == first
    made = (tmp_path / done.stdout.decode().strip()).read_bytes()
    assert made == (tmp_path / "made").read_bytes()


def test_what_lacks_is_named_and_nothing_is_drawn(ask, fake_multi, tmp_path):
    draw(fake_multi, tmp_path, "made.png", [make_png()], prompt="a cat")
    before = drawn(fake_multi)
    again = ["recipe", "made.png", "--again"]
    for arguments, words in (
        ([], f"--prompt is missing: its SHA-256 has to be {sha256(b'a cat')}"),
        (["--prompt", "a dog"], "--prompt is another one"),
        (["--prompt", "\udc90"], "--prompt is another one"),
        (["--prompt", "a cat"], f"--input FILE with the SHA-256 {sha256(make_png())}"),
        (["--prompt", "a cat", "--input", "two.png"], "not of this recipe: two.png"),
        (["--prompt", "a cat", "--negative-prompt", "x"], "asks for no --negative"),
        (
            ["--prompt", "a cat", "--input", "one.png", "--mask", "two.png"],
            "not of this recipe: two.png",
        ),
    ):
        done = ask(*again, *arguments)
        assert done.returncode == 2, arguments
        assert words in done.stderr.decode()
    assert drawn(fake_multi) == before


def test_the_mask_is_asked_for_and_counts(ask, fake_multi, tmp_path):
    mask = make_mask((96, 64), (10, 10, 40, 40))
    (tmp_path / "mask.png").write_bytes(mask)
    answer = requests.post(
        f"{fake_multi.url}/v1/images/edits",
        data={"prompt": "a hat", "seed": 300, "steps": 2},
        files=[("image[]", make_png()), ("mask", mask)],
        headers={"Accept": "image/*"},
        timeout=60,
    )
    (tmp_path / "made.png").write_bytes(answer.content)
    wanted = f"--mask FILE, whose SHA-256 is {sha256(mask)}"
    assert wanted in ask("recipe", "made.png").stderr.decode()
    again = ["recipe", "made.png", "--again", "--prompt", "a hat"]
    again += ["--input", "one.png"]
    for arguments in ([], ["--mask", "two.png"]):
        done = ask(*again, *arguments)
        assert done.returncode == 2
        assert f"--mask FILE with the SHA-256 {sha256(mask)}" in done.stderr.decode()
    sent = make_png()
    for arguments, stdin in (
        ([*again, "--mask", "mask.png"], b""),
        ([*again, "--mask", "-"], mask),
        ([*again[:-1], "-", "--mask", "mask.png"], sent),
    ):
        done = ask(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        assert b"the same pixels" in done.stderr


def test_what_a_terminal_would_obey_is_shown_as_text(ask, tmp_path):
    recipe = {"recipe": 1, "mode": "generate", "prompt": "a\x9b31m\u202eb\x7f猫"}
    save_made(tmp_path, recipe)
    shown = ask("recipe", "made.png").stdout.decode()
    assert r"a\u009b31m\u202eb\u007f猫" in shown
    assert json.loads(shown) == recipe


def test_a_recipe_of_a_later_version_is_said(ask, tmp_path):
    save_made(tmp_path, {"recipe": 2, "mode": "generate"})
    done = ask("recipe", "made.png")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"made.png: the recipe was written by a later version" in done.stderr


def save_made(folder, recipe):
    """A file with that recipe, whoever wrote it."""
    plain = encode_image(Image.new("RGB", (64, 64)))
    file = add_metadata(plain, Metadata(make_xmp("generate", recipe)))
    (folder / "made.png").write_bytes(file.data)


def test_of_a_picture_without_a_prompt_the_negative_one_is_asked_for(ask, tmp_path):
    wanted = sha256(b"a dog")
    recipe = {"recipe": 1, "mode": "generate", "negative_prompt_sha256": wanted}
    save_made(tmp_path, recipe)
    done = ask("recipe", "made.png", "--again")
    assert done.returncode == 2
    told = f"--negative-prompt is missing: its SHA-256 has to be {wanted}"
    assert told in done.stderr.decode()


def test_a_model_and_a_lora_that_are_not_here_are_named(ask, tmp_path):
    recipe = {"recipe": 1, "mode": "generate", "model": "klein-4b", "prompt": "a cat"}
    ink = {"name": "ink", "adapter_weight": 1.0}
    for other, words in (
        (recipe, "this server offers no 'klein-4b'"),
        (recipe | {"model": "tiny", "loras": [ink]}, "There is no LoRA named 'ink'"),
    ):
        save_made(tmp_path, other)
        done = ask("recipe", "made.png", "--again")
        assert done.returncode == 2
        assert words in done.stderr.decode()


def test_a_stripped_and_a_re_saved_file_say_so(ask, fake_multi, tmp_path):
    draw(fake_multi, tmp_path, "made.png", prompt="a cat")
    with Image.open(tmp_path / "made.png") as image:
        # Pillow carries XMP on where it is told to.
        image.save(tmp_path / "kept.webp", xmp=image.info["xmp"])
        image.info = {}
        image.save(tmp_path / "stripped.png")
    done = ask("recipe", "stripped.png")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"stripped.png holds no recipe" in done.stderr
    done = ask("recipe", "kept.webp")
    assert done.returncode == 0
    assert b"kept.webp was saved by another program since" in done.stderr


def test_another_format_is_other_pixels_and_said(ask, fake_multi, tmp_path):
    draw(fake_multi, tmp_path, "made.png", prompt="a cat")
    again = ["recipe", "made.png", "--again", "--prompt", "a cat", "-o", "new.jpg"]
    done = ask(*again)
    assert done.returncode == 0, done.stderr
    assert b"not the same pixels: output_format differ" in done.stderr
    alone = ask("recipe", "made.png", "--prompt", "a cat", "-o", "x.png")
    assert b"--prompt goes with --again" in alone.stderr
