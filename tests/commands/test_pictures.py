"""``generate``, ``edit``, ``vary`` and ``jobs`` against a running server."""

from __future__ import annotations

import io
import json
import os
import threading

import numpy as np
import pytest
import requests
from PIL import Image
from safetensors.numpy import save_file

from tests.commands.program import run
from tests.support.pictures import make_png
from tests.support.servers import ROOT, free_port, run_api, wait_for
from tests.support.wire import stats

# 1280x800 pixels.
LARGE = ROOT / "docs" / "images" / "page-en.png"
# What a shell hands on where it was typed in another encoding than the terminal's.
ODD = os.fsdecode("\u8d64\u3044\u30cf\u30fc\u30c8".encode("shift_jis"))


@pytest.fixture
def ask(fake, tmp_path):
    """The program in an empty folder, told of the server by FLUX_SERVER."""

    def ask(*arguments, **more):
        return run(tmp_path, *arguments, FLUX_SERVER=fake.url, **more)

    return ask


def requests_of(fake):
    """What the server was asked to draw, in the order that it began."""
    return stats(fake)["requests"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_every_option_arrives_and_the_file_is_what_was_asked_for(ask, fake, tmp_path):
    done = ask(
        *("generate", "a heart", "-o", "heart.webp", "--seed", 7, "--size", "128x64"),
        *("--steps", 3, "--guidance", 2.5, "--model", "tiny"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"heart.webp\n"
    assert b"128x64, seed 7, 3 steps" in done.stderr
    # Nobody looks: what moves a cursor would only stand in a log.
    assert b"\x1b" not in done.stderr
    with Image.open(tmp_path / "heart.webp") as image:
        assert (image.format, image.size) == ("WEBP", (128, 64))
    [asked] = requests_of(fake)
    assert asked["prompt"] == "a heart" and asked["seed"] == 7
    assert (asked["num_inference_steps"], asked["guidance_scale"]) == (3, 2.5)
    # Nobody looks: no work is spent on previews.
    assert asked["partial_images"] == 0


def test_several_pictures_of_several_prompts_each_get_a_name(ask, fake, tmp_path):
    done = ask("generate", "a cat", "ねこ", "-n", 2, "--seed", 5, "--json")
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(line["seed"] for line in told) == [5, 5, 6, 6]
    assert {line["model"] for line in told} == {"tiny"}
    expected = ["a-cat-2.png", "a-cat.png", "ねこ-2.png", "ねこ.png"]
    assert sorted(line["file"] for line in told) == expected == names(tmp_path)
    # Made-up names write nothing over.
    assert ask("generate", "a cat").stdout == b"a-cat-3.png\n"
    # A name that was given means that file.
    assert ask("generate", "a dog", "-o", "a-cat.png", "-n", 2).returncode == 0
    assert {"a-cat-1.png", "a-cat.png"} < set(names(tmp_path))


def test_a_folder_is_made_and_its_files_are_named(ask, tmp_path):
    done = ask("generate", "a cat", "a dog", "-o", "new/pets/", "--format", "jpg")
    assert done.returncode == 0, done.stderr
    assert names(tmp_path / "new" / "pets") == ["a-cat.jpg", "a-dog.jpg"]
    with Image.open(tmp_path / "new" / "pets" / "a-cat.jpg") as image:
        assert image.format == "JPEG"
    (tmp_path / "file").touch()
    refused = ask("generate", "a cat", "-o", "file/")
    assert refused.returncode == 2 and b"no folder" in refused.stderr


def test_each_input_is_edited_for_itself_within_the_mask(ask, fake, tmp_path):
    for name, size in (("one.png", (96, 64)), ("two.png", (64, 96))):
        (tmp_path / name).write_bytes(make_png(size))
    (tmp_path / "out").mkdir()
    done = ask("edit", "one.png", "two.png", "make it blue", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert names(tmp_path / "out") == ["one-edit.png", "two-edit.png"]
    asked = requests_of(fake)
    assert sorted(request["images"] for request in asked) == [[[64, 96]], [[96, 64]]]
    assert {request["prompt"] for request in asked} == {"make it blue"}
    mask = Image.new("RGBA", (96, 64), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (10, 10, 40, 40))
    mask.save(tmp_path / "mask.png")
    done = ask("edit", "one.png", "a hat", "--mask", "mask.png")
    assert done.returncode == 0, done.stderr
    assert requests_of(fake)[-1]["mask"] == [0, 255]


def test_a_model_that_takes_several_pictures_gets_the_references(fake_multi, tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(make_png((64, 64 + 16 * number)))
    done = run(
        tmp_path,
        *("edit", "0.png", "like these", "--ref", "1.png", "--ref", "2.png"),
        *("--server", fake_multi.url),
    )
    assert done.returncode == 0, done.stderr
    assert [side for _, side in requests_of(fake_multi)[-1]["images"]] == [64, 80, 96]


def test_each_picture_is_made_larger(ask, fake, tmp_path):
    (tmp_path / "wide.png").write_bytes(make_png((96, 64)))
    (tmp_path / "tall.png").write_bytes(make_png((64, 96)))
    done = ask("upscale", "wide.png", "tall.png", "-s", 4, "--prompt", "a cat")
    assert done.returncode == 0, done.stderr
    for name, size in (("wide-4x.png", (384, 256)), ("tall-4x.png", (256, 384))):
        with Image.open(tmp_path / name) as image:
            assert image.size == size
    asked = requests_of(fake)
    assert {(one["mode"], one["prompt"]) for one in asked} == {("upscale", "a cat")}
    done = ask("upscale", "wide.png", "-o", "large.webp", "--json", "--seed", 7)
    told = json.loads(done.stdout)
    assert (told["file"], told["width"], told["seed"]) == ("large.webp", 192, 7)


def test_pictures_go_through_pipes(ask, fake):
    made = ask("generate", "a cat", "-o", "-", "--format", "jpeg", "--size", "64x64")
    assert Image.open(io.BytesIO(made.stdout)).format == "JPEG"
    assert made.stderr.startswith(b"standard output  64x64, seed ")
    varied = ask("vary", "-", "-o", "-", stdin=made.stdout)
    assert varied.returncode == 0, varied.stderr
    assert Image.open(io.BytesIO(varied.stdout)).format == "PNG"
    assert requests_of(fake)[-1]["mode"] == "variation"


@pytest.mark.parametrize("command", [["edit", "make it blue"], ["vary"], ["upscale"]])
def test_files_in_other_encodings_are_sent_and_named(ask, tmp_path, command):
    # As they come out of archives that were made on a Japanese Windows.
    given = os.fsdecode("\u732b.png".encode("shift_jis"))
    out = "\u72ac.png".encode("shift_jis")
    (tmp_path / given).write_bytes(make_png((96, 64)))
    arguments = [command[0], given, *command[1:], "-o", os.fsdecode(out)]
    done = ask(*arguments)
    assert done.returncode == 0, done.stderr
    # A pipe gets the name that the file has.
    assert done.stdout == out + b"\n" and (tmp_path / os.fsdecode(out)).exists()
    told = json.loads(ask(*arguments, "--json").stdout)
    assert told["file"] == os.fsdecode(out)


def test_json_has_letters_as_they_are(ask):
    done = ask("generate", "a cat", "-o", "\u732b.png", "--json")
    assert done.returncode == 0, done.stderr
    assert "\u732b.png".encode() in done.stdout
    assert json.loads(done.stdout)["file"] == "\u732b.png"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["generate", ODD], "prompt"),
        (["generate", "a cat", "--negative-prompt", ODD], "negative_prompt"),
        (["upscale", str(LARGE), "--prompt", ODD], "prompt"),
    ],
)
def test_words_that_are_no_text_are_refused(ask, tmp_path, arguments, name):
    done = ask(*arguments)
    assert done.returncode == 2
    message = f"flux-api: Invalid '{name}': the text is not UTF-8.\n"
    assert done.stderr.decode() == message
    assert names(tmp_path) == []


def test_loras_are_sent_by_name_and_weight(tmp_path):
    folder = tmp_path / "loras"
    folder.mkdir()
    save_file({"x": np.zeros(1, np.float32)}, folder / "pixel:art.safetensors")
    save_file({"x": np.zeros(1, np.float32)}, folder / "ink.safetensors")
    with run_api(app="tests.support.fake_app:app", FLUX_LORA_DIR=folder) as server:
        server.wait_ready()
        done = run(
            tmp_path,
            *("generate", "x", "--lora", "pixel:art:0.5", "--lora", "ink"),
            FLUX_SERVER=server.url,
        )
        assert done.returncode == 0, done.stderr
        assert requests_of(server)[-1]["loras"] == [["pixel:art", 0.5], ["ink", 1.0]]
        unknown = run(
            tmp_path, "generate", "x", "--lora", "nobody:1", FLUX_SERVER=server.url
        )
        assert unknown.returncode == 2 and b"'nobody'" in unknown.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["generate"], 2, "Missing argument 'PROMPT...'"),
        (["generate", "x", "--size", "63x64"], 2, "try 64x64"),
        (["generate", "x", "--steps", "900"], 2, "Invalid '--steps'"),
        (["generate", "x", "--guidance", "-1"], 2, "Invalid '--guidance'"),
        (["generate", "x", "--model", "nope"], 2, "offers no 'nope': one of tiny"),
        (["generate", "x", "--model", "tinny"], 2, "Did you mean 'tiny'?"),
        (["generate", "x", "-o", "x.gif"], 2, ".webp"),
        (["generate", "x", "-o", "x.png", "--format", "jpeg"], 2, "x.png"),
        (["generate", "x", "-o", "none/x.png"], 2, "no folder none"),
        (["generate", "x", "-o", "none/x/", "--size", "63x64"], 2, "try 64x64"),
        (["generate", "x", "-n", "2", "-o", "-"], 2, "one picture"),
        (["generate", "x", "-o", "-", "--json"], 2, "standard output"),
        (["generate", "x", "--server", "ftp://x"], 2, "not a server's address"),
        (["edit", "lost.png", "x"], 2, "lost.png"),
        (["upscale", "lost.png"], 2, "lost.png"),
        (["upscale", "."], 2, "'.' is a directory"),
        (["upscale", str(LARGE), "-s", "3"], 2, "'2', '4'"),
        (["upscale", str(LARGE), "-s", "4"], 2, "try scale=2"),
        (["generate", "fail=pipeline"], 1, "no usable picture"),
    ],
)
def test_what_is_wrong_is_said_and_has_its_exit_code(
    ask, tmp_path, arguments, code, words
):
    done = ask(*arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert done.stdout == b"" and names(tmp_path) == []


def test_where_a_server_stores_them_their_urls_are_told(fake_with_files, tmp_path):
    done = run(
        *(tmp_path, "generate", "a cat", "-n", 2, "--json"),
        FLUX_SERVER=fake_with_files.url,
    )
    assert done.returncode == 0, done.stderr
    for line in map(json.loads, done.stdout.splitlines()):
        stored = requests.get(line["url"], timeout=10).content
        assert stored == (tmp_path / line["file"]).read_bytes()


def test_one_failure_leaves_the_other_pictures(ask, tmp_path):
    done = ask("generate", "a cat", "fail=memory", "--json")
    assert done.returncode == 1
    assert names(tmp_path) == ["a-cat.png"]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    [failed] = [line for line in lines if "error" in line]
    assert failed["error"]["code"] == "insufficient_storage"


def test_no_server_and_no_flux_server_have_their_own_code(tmp_path):
    nobody = run(tmp_path, "generate", "x", "--server", f"localhost:{free_port()}")
    assert nobody.returncode == 3
    assert b"Connection refused" in nobody.stderr


def test_a_key_opens_the_server(tmp_path):
    with run_api(
        app="tests.support.fake_app:app", FLUX_API_KEYS="me:sk-open-sesame"
    ) as server:
        server.wait_ready()
        without = run(tmp_path, "generate", "x", "--server", server.url)
        assert without.returncode == 2
        assert b"FLUX_KEY" in without.stderr
        place = {"FLUX_SERVER": f"{server.url}/v1/", "FLUX_KEY": "sk-open-sesame"}
        done = run(tmp_path, "generate", "x", **place)
        assert done.returncode == 0, done.stderr
        listed = run(tmp_path, "jobs", "--json", **place)
        [job] = [json.loads(line) for line in listed.stdout.splitlines()]
        assert (job["state"], job["mode"]) == ("done", "generate")


def test_a_full_queue_and_a_loading_server_are_waited_for(tmp_path):
    load = tmp_path / "load"
    load.write_text("hold")
    with run_api(
        app="tests.support.fake_app:app", FAKE_LOAD=load, FLUX_MAX_QUEUE=1
    ) as server:
        answers = []
        prompts = [f"picture {number} pause=0.02" for number in range(6)]
        thread = threading.Thread(
            target=lambda: answers.append(
                run(tmp_path, "generate", *prompts, FLUX_SERVER=server.url)
            )
        )
        thread.start()
        status = f"{server.url}/v1/status"
        wait_for(lambda: requests.get(status, timeout=5).ok, 30, server)
        load.write_text("")
        thread.join()
        assert answers[0].returncode == 0, answers[0].stderr
        assert len(answers[0].stdout.splitlines()) == 6


def test_a_server_whose_model_cannot_be_loaded_is_not_waited_for(tmp_path):
    load = tmp_path / "load"
    load.write_text("fail")
    with run_api(app="tests.support.fake_app:app", FAKE_LOAD=load) as server:
        done = run(tmp_path, "generate", "x", FLUX_SERVER=server.url)
        assert done.returncode == 3
        assert b"damaged" in done.stderr


def cells(head, row):
    """What begins below each word of the head."""
    return {word: row[head.index(word) :].split()[0] for word in head.split()[:-1]}


def test_jobs_are_listed_saved_and_cancelled(ask, fake, fake_without_results, tmp_path):
    form = {"prompt": "hold", "size": "64x64"}
    headers = {"Prefer": "respond-async", "X-Job-Id": "to-be-stopped"}
    url = f"{fake.url}/v1/images/generations"
    assert requests.post(url, data=form, headers=headers, timeout=10).status_code == 202
    head, *rows = ask("jobs").stdout.decode().splitlines()
    [row] = [row for row in rows if row.startswith("to-be-stopped")]
    told = cells(head, row)
    assert (told["MODE"], told["MODEL"], told["SIZE"]) == ("generate", "tiny", "64x64")
    # In seconds, and it has just come.
    assert int(told["AGE"]) < 100 and row.endswith(" s")
    stopped = ask("jobs", "cancel", "to-be-stopped", "not-there")
    assert stopped.returncode == 2
    assert stopped.stdout == b"to-be-stopped  cancelled\n"
    assert b"not-there" in stopped.stderr
    told = ask("generate", "x", "-n", 2, "-o", "x.webp", "--json").stdout
    made = json.loads(told.splitlines()[0])
    one = ask("generate", "x", "-o", "one.png", "--json").stdout
    piped = ask("jobs", "save", json.loads(one)["job_id"], "-o", "-")
    assert piped.stdout == (tmp_path / "one.png").read_bytes()
    saved = ask("jobs", "save", made["job_id"], "-o", ".")
    assert saved.returncode == 0, saved.stderr
    both = ask("jobs", "save", "not-there", made["job_id"], "-o", "both/")
    assert both.returncode == 2 and b"not-there" in both.stderr
    assert len(names(tmp_path / "both")) == 2
    again = [tmp_path / line for line in saved.stdout.decode().split()]
    originals = [tmp_path / "x-1.webp", tmp_path / "x-2.webp"]
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in originals]
    assert ask("generate", "fail=pipeline").returncode == 1
    head, newest, before, *_ = ask("jobs").stdout.decode().splitlines()
    assert cells(head, newest)["STATE"] == "failed"
    assert newest.endswith("The model made no usable picture.")
    step, steps = cells(head, before)["STEPS"].split("/")
    assert cells(head, before)["STATE"] == "done" and step == steps
    # What keeps no pictures has jobs all the same.
    place = {"FLUX_SERVER": fake_without_results.url}
    assert run(tmp_path, "jobs", **place).returncode == 0
    nowhere = run(tmp_path, "jobs")
    assert nowhere.returncode == 2 and b"FLUX_SERVER" in nowhere.stderr
