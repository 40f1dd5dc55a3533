"""The program in a terminal: what a person sees, and Ctrl-C."""

from __future__ import annotations

import base64
import io
import os
import re
import shlex
import signal
import socket
import stat
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest
import requests
from click.testing import CliRunner
from PIL import Image

from flux_api.commands.program import program
from tests.commands.program import COMMAND, environment, run, terminal
from tests.support.pictures import make_png
from tests.support.servers import run_api, wait_for
from tests.support.terminal import in_terminal
from tests.support.wire import stats

BAR = r"\[[#-]{24}\] (\d+)/(\d+) steps"


def jobs_of(server):
    return requests.get(f"{server.url}/jobs", timeout=5).json()["data"]


def test_a_bar_with_steps_and_seconds_left_and_what_became_of_it(fake, tmp_path):
    with terminal(
        tmp_path,
        *("generate", "a cat pause=0.05", "-o", "cat.png", "--steps", 20),
        FLUX_SERVER=fake.url,
    ) as shown:
        shown.read_until(BAR + r"  \d+ s left")
        assert shown.wait() == 0
        assert f"{'#' * 24}] 20/20 steps" in shown.text
        line = r"\r\x1b\[Kcat\.png  512x512, seed \d+, 20 steps, \d+\.\d s\r\n"
        assert re.search(line, shown.text)
        # This terminal says of no way to show pictures.
        assert "\u2580" not in shown.text and "\x1b_G" not in shown.text
        # Its name is in that line, and nowhere else.
        assert shown.text.count("cat.png") == 1
        # The next prompt of the shell begins a line of its own.
        assert shown.text.endswith("\r\x1b[K")
    assert (tmp_path / "cat.png").exists()


def test_names_go_to_a_pipe_while_the_terminal_shows_the_rest(fake, tmp_path):
    with (
        (tmp_path / "list").open("wb") as file,
        terminal(
            tmp_path,
            *("generate", "a cat", "a dog", "--size", "64x64"),
            stdout=file,
            FLUX_SERVER=fake.url,
        ) as shown,
    ):
        shown.read_until(r"of 2 requests")
        assert shown.wait() == 0
    listed = (tmp_path / "list").read_text().split()
    assert sorted(listed) == ["a-cat.png", "a-dog.png"]


def test_previews_are_drawn_over_each_other_in_letters(fake, tmp_path):
    with terminal(
        tmp_path,
        *("generate", "a cat pause=0.1", "--size", "512x256", "--seed", 200),
        FLUX_SERVER=fake.url,
        COLORTERM="truecolor",
    ) as shown:
        assert shown.wait() == 0
    # Twice as wide as high: 40 letters of a half's height each, in ten rows.
    rows = re.findall(r"(?:\x1b\[[\d;]+m\x1b\[[\d;]+m\u2580)+\x1b\[0m", shown.text)
    assert {row.count("\u2580") for row in rows} == {40}
    # Three previews (the fake's are square) and the picture itself.
    assert len(rows) == 3 * 20 + 10
    assert "\x1b[48;2;200;0;99m" in rows[-1]
    # Over the one before, and the first over nothing that stood there.
    assert re.findall(r"\x1b\[(\d+)A", shown.text) == ["20"] * 3


@pytest.mark.parametrize(
    "program", [{"KITTY_WINDOW_ID": "1"}, {"TERM_PROGRAM": "ghostty"}]
)
def test_a_terminal_with_graphics_gets_the_picture_itself(fake, tmp_path, program):
    with terminal(
        tmp_path,
        *("generate", "a cat pause=0.1", "--size", "1024x1024", "--seed", 200),
        FLUX_SERVER=fake.url,
        **program,
    ) as shown:
        assert shown.wait() == 0
    assert "\u2580" not in shown.text
    commands = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", shown.text)
    assert all(len(data) <= 4096 for _, data in commands)
    starts = [n for n, (keys, _) in enumerate(commands) if "a=T" in keys]
    assert len(starts) == 4
    final = base64.b64decode("".join(data for _, data in commands[starts[-1] :]))
    with Image.open(io.BytesIO(final)) as image:
        assert image.format == "PNG" and max(image.size) == 512
        assert image.getpixel((0, 0)) == (200, 0, 99)


@pytest.mark.parametrize(
    "setting", [{"NO_COLOR": "1"}, {"TMUX": "1", "KITTY_WINDOW_ID": "1"}]
)
def test_no_picture_where_none_is_wanted_or_would_arrive(fake, tmp_path, setting):
    colours = {} if "TMUX" in setting else {"COLORTERM": "truecolor"}
    with terminal(
        tmp_path, "generate", "a cat", FLUX_SERVER=fake.url, **setting, **colours
    ) as shown:
        assert shown.wait() == 0
    assert "\u2580" not in shown.text and "\x1b_G" not in shown.text


def test_ctrl_c_cancels_the_jobs_on_the_server(fake, tmp_path):
    with terminal(
        tmp_path,
        *("generate", "hold one", "hold two", "--steps", 5),
        FLUX_SERVER=fake.url,
    ) as shown:
        wait_for(lambda: len([j for j in jobs_of(fake) if active(j)]) == 2, 30)
        shown.type("\x03")
        assert shown.wait() == 130
        assert "cancelled" in shown.text and "Traceback" not in shown.text
    assert [job["state"] for job in jobs_of(fake)][:2] == ["cancelled"] * 2
    assert list(tmp_path.iterdir()) == []


def active(job):
    return job["state"] in ("queued", "running")


def test_eight_are_sent_at_a_time(fake, tmp_path):
    prompts = [f"hold {number}" for number in range(10)]
    with terminal(tmp_path, "generate", *prompts, FLUX_SERVER=fake.url) as shown:
        wait_for(lambda: len([j for j in jobs_of(fake) if active(j)]) == 8, 30)
        arrived = [path for path, _ in stats(fake)["arrived"]]
        assert arrived.count("/v1/images/generations") == 8
        shown.type("\x03")
        assert shown.wait() == 130


def test_a_second_ctrl_c_does_not_wait_for_the_server(tmp_path):
    with (
        run_api(app="tests.support.fake_app:app") as server,
        terminal(tmp_path, "generate", "hold it", FLUX_SERVER=server.url) as shown,
    ):
        wait_for(lambda: any(map(active, jobs_of(server))), 30)
        os.killpg(server.process.pid, signal.SIGSTOP)
        shown.type("\x03")
        shown.read_until("stopping; Ctrl-C again")
        shown.type("\x03")
        assert shown.wait() == 130


def test_ctrl_c_ends_what_runs_and_what_waits_for_a_place(one_place, tmp_path):
    prompts = [f"hold {word}" for word in ("one", "two", "three", "four", "five")]

    def came():
        arrived = [path for path, _ in stats(one_place)["arrived"]]
        return arrived.count("/v1/images/generations")

    with terminal(tmp_path, "generate", *prompts, FLUX_SERVER=one_place.url) as shown:
        # One runs, one has the place; the others were refused, and will ask again.
        wait_for(lambda: came() >= len(prompts), 60)
        shown.type("\x03")
        assert shown.wait() == 130
        assert "stopped before it was sent" in shown.text
    assert not any(map(active, jobs_of(one_place)))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_cancel_too(fake, tmp_path, number):
    with terminal(tmp_path, "generate", "hold it", FLUX_SERVER=fake.url) as shown:
        wait_for(lambda: any(map(active, jobs_of(fake))), 30)
        shown.process.send_signal(number)
        assert shown.wait() == 128 + number
    assert not any(map(active, jobs_of(fake)))


def test_ctrl_c_ends_what_waits_for_an_answer(tmp_path):
    with (
        socket.create_server(("127.0.0.1", 0)) as nobody,
        (tmp_path / "list").open("wb") as file,
        terminal(
            tmp_path,
            "jobs",
            stdout=file,
            FLUX_SERVER=f"127.0.0.1:{nobody.getsockname()[1]}",
        ) as shown,
    ):
        connection, _ = nobody.accept()
        with connection:
            shown.type("\x03")
            assert shown.wait() == 130
        assert "flux-api: stopped" in shown.text and "Traceback" not in shown.text
    # A pipe is not for what went wrong.
    assert (tmp_path / "list").read_bytes() == b""


def test_in_process_the_model_is_loaded_before_ones_eyes(tmp_path):
    with terminal(
        tmp_path, "generate", "a red heart", "-o", "heart.png", "--seed", 7
    ) as shown:
        shown.read_until(r"loading \w+")
        shown.read_until(BAR)
        assert shown.wait() == 0
        assert "heart.png  512x512, seed 7, 12 steps" in shown.text
    with Image.open(tmp_path / "heart.png") as image:
        red, green, _ = image.convert("RGB").resize((1, 1)).getpixel((0, 0))
        assert red > green


def test_in_process_ctrl_c_ends_loading_and_drawing(tmp_path):
    with terminal(tmp_path, "generate", "a cat") as shown:
        shown.read_until("starting")
        shown.type("\x03")
        assert shown.wait() == 130
    with terminal(tmp_path, "generate", "a cat", "--steps", 200, "-n", 10) as shown:
        shown.read_until(BAR)
        shown.type("\x03")
        assert shown.wait() == 130
        assert "Traceback" not in shown.text
    assert list(tmp_path.iterdir()) == []


def test_a_picture_is_made_larger_before_ones_eyes(tmp_path):
    (tmp_path / "in.png").write_bytes(make_png((96, 64)))
    with terminal(
        tmp_path, "upscale", "in.png", "-s", 2, "--steps", 4, "--seed", 7
    ) as shown:
        shown.read_until(BAR)
        assert shown.wait() == 0
        # The bar counts the steps of all tiles.
        [total] = {int(total) for _, total in re.findall(BAR, shown.text)}
        assert total > 4
        assert "in-2x.png  192x128, seed 7, 4 steps" in shown.text
    with Image.open(tmp_path / "in-2x.png") as image:
        assert image.size == (192, 128)


def test_what_waits_counts_with_all_its_tiles(fake, tmp_path):
    for name, side in (("large", 256), ("small", 64)):
        (tmp_path / f"{name}.png").write_bytes(make_png((side, side)))
    files = ("large.png", "small.png")
    with terminal(
        tmp_path, "upscale", *files, "--prompt", "pause=0.02", FLUX_SERVER=fake.url
    ) as shown:
        assert shown.wait() == 0
    told = {job["width"]: job["steps"] for job in jobs_of(fake)[:2]}
    assert told[512] > told[128]
    totals = {int(total) for _, total in re.findall(BAR, shown.text)}
    # What is not accepted yet counts like what is.
    assert totals <= {told[512] + told[128], 2 * told[512], 2 * told[128]}


@pytest.mark.parametrize("where", ["in process", "on a server"])
def test_ctrl_c_stops_what_is_made_larger(fake, tmp_path, where):
    (tmp_path / "in.png").write_bytes(make_png((512, 512)))
    server = {"FLUX_SERVER": fake.url} if where == "on a server" else {}
    asked = ("upscale", "in.png", "--prompt", "hold it")
    with terminal(tmp_path, *asked, **server) as shown:
        if server:
            wait_for(lambda: any(map(active, jobs_of(fake))), 30)
        else:
            shown.read_until(BAR)
        shown.type("\x03")
        assert shown.wait() == 130
        assert "Traceback" not in shown.text
    assert not server or jobs_of(fake)[0]["state"] == "cancelled"
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]


def test_in_process_a_wrong_model_is_said(tmp_path):
    done = run(tmp_path, "generate", "x", "--model", "nope")
    assert done.returncode == 2
    assert b"FLUX_MODEL='nope': one of tiny" in done.stderr


@contextmanager
def cutting_relay(server, most):
    """A way to ``server`` that cuts answers in their middle: those that hold one of the
    keys of ``most``, as often as it says."""
    host, port = server.url.removeprefix("http://").split(":")
    listener = socket.create_server(("127.0.0.1", 0))
    cuts = []

    def relay(client):
        with client, socket.create_connection((host, int(port))) as upstream:
            threading.Thread(target=pump, args=(client, upstream), daemon=True).start()
            while data := upstream.recv(65_536):
                for kind in most:
                    if kind in data and cuts.count(kind) < most[kind]:
                        cuts.append(kind)
                        client.sendall(data[: len(data) // 2])
                        client.shutdown(socket.SHUT_RDWR)
                        return
                client.sendall(data)

    def pump(source, target):
        try:
            while data := source.recv(65_536):
                target.sendall(data)
        except OSError:
            pass

    def serve():
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=relay, args=(client,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    with listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", cuts


def test_a_lost_connection_loses_no_picture(fake, tmp_path):
    # What was asked for is taken, but who asked does not hear of it.
    most = {b"HTTP/1.1 202": 1, b"event: step": 2}
    with cutting_relay(fake, most) as (url, cuts):
        done = run(
            tmp_path, "generate", "a cat pause=0.3", "--steps", 12, FLUX_SERVER=url
        )
    assert done.returncode == 0, done.stderr
    assert cuts == [b"HTTP/1.1 202", b"event: step", b"event: step"]
    assert (tmp_path / "a-cat-pause-0-3.png").exists()
    # It was asked for once, and drawn once.
    assert [asked["prompt"] for asked in stats(fake)["requests"]] == ["a cat pause=0.3"]


def test_help_teaches_every_command(tmp_path):
    text = run(tmp_path, "--help").stdout.decode()
    assert "Exit codes: 0" in text
    commands = re.findall(r"^  (\w+)  +\S", text.partition("Commands:")[2], re.M)
    expected = ["completion", "deploy", "doctor", "edit", "fetch"]
    expected += ["generate", "jobs", "quality", "recipe", "serve"]
    expected += ["upscale", "vary"]
    assert commands == expected
    for command in commands:
        asked = [command, "--help"]
        about = CliRunner().invoke(program, asked, prog_name="flux-api").output
        assert (
            command in ("doctor",) or f"flux-api {command}" in about.partition("\n")[2]
        )


@pytest.mark.parametrize(
    ("command", "value"),
    [("serve", "127.0.0.1:8000"), ("serve", "8100"), ("upscale", "2"), ("edit", "1")],
)
def test_help_says_what_counts_without_an_option(command, value):
    told = CliRunner().invoke(program, [command, "--help"]).output
    assert f"[default: {value}" in " ".join(told.split())


def test_help_does_not_wait_for_the_server_to_be_imported(tmp_path):
    code = (
        "import sys, flux_api.commands.program\n"
        "print(sorted({'flask', 'torch', 'huggingface_hub'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.check_output(command, env=environment()) == b"[]\n"


def test_bash_completes_commands_options_and_sets(tmp_path):
    program = tmp_path / "bin" / "flux-api"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    env = environment(PS1="$ ")
    env["PATH"] = f"{program.parent}:{env['PATH']}"
    bash = ["bash", "--norc", "--noprofile", "-i"]
    with in_terminal(bash, env=env, cwd=tmp_path) as shell:
        shell.type('eval "$(flux-api completion bash)"; echo re"ady"\n')
        shell.read_until("ready")
        shell.type("flux-api gen\t")
        shell.read_until("flux-api generate ")
        shell.type("--nega\t")
        shell.read_until("--negative-prompt ")
        shell.type("x --model klein-4\t")
        shell.read_until("--model klein-4b ")
        shell.type("\x15exit\n")
        shell.wait(10)


@pytest.mark.parametrize(("shell", "word"), [("zsh", "#compdef"), ("fish", "complete")])
def test_zsh_and_fish_are_told_how_to_complete(tmp_path, shell, word):
    script = run(tmp_path, "completion", shell).stdout.decode()
    assert word in script and "flux-api" in script
    asked = run(tmp_path, _FLUX_API_COMPLETE=f"{shell}_complete", **words(shell))
    assert b"generate" in asked.stdout


def words(shell):
    """What the script of ``shell`` says that was typed: ``flux-api gen``."""
    if shell == "zsh":
        return {"COMP_WORDS": "flux-api gen", "COMP_CWORD": "1"}
    return {"COMP_WORDS": "flux-api gen", "COMP_CWORD": "gen"}


def test_a_reader_that_has_seen_enough_ends_it_quietly(fake, tmp_path):
    command = f"{shlex.join(COMMAND)} jobs | true"
    done = subprocess.run(
        ["bash", "-c", command],
        env=environment(FLUX_SERVER=fake.url),
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert b"Traceback" not in done.stderr
