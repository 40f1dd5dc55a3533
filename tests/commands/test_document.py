"""docs/command-line.md: its commands run as printed, its tables are complete."""

from __future__ import annotations

import re
import shlex
import subprocess

import click
import pytest

from flux_api.commands.pictures import edit, generate, upscale, vary
from flux_api.commands.program import program
from tests.commands.program import COMMAND, environment
from tests.support.servers import ROOT

ENGLISH = (ROOT / "docs" / "command-line.md").read_text("utf-8")
JAPANESE = (ROOT / "docs" / "ja" / "command-line.md").read_text("utf-8")


@pytest.mark.parametrize("text", [ENGLISH, JAPANESE], ids=["en", "ja"])
def test_the_first_pictures_can_be_made_as_printed(fake, tmp_path, text):
    [block] = re.findall(r"```bash\n(flux-api generate .*?)```", text, re.S)
    function = f'flux-api() {{ {shlex.join(COMMAND)} "$@"; }}\n'
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", function + block],
        env=environment(FLUX_SERVER=fake.url),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    named = set(re.findall(r"-o (\w\S+)", block))
    named = named - {"pets.webp"} | {"pets-1.webp", "pets-2.webp"}
    made_up = {"heart-variation.png", "heart-variation-2.png", "heart-variation-3.png"}
    made_up |= {"heart-edit.png", "grey-edit.png"}
    assert {path.name for path in tmp_path.iterdir()} == named | made_up


def test_every_command_and_option_is_in_the_tables_and_the_reverse():
    cells = re.findall(r"^\| ((?:`[^`]+`(?:, )?)+) \|", ENGLISH, re.M)
    words = [word for cell in cells for word in re.findall(r"`([^`]+)`", cell)]
    assert {
        word.split()[0] for word in words if word.split()[0] in program.commands
    } == (set(program.commands))
    told = {word for word in words if word.startswith("-")}
    options = {
        name
        for command in (generate, edit, vary, upscale)
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for name in (*parameter.opts, *parameter.secondary_opts)
    }
    # Shown by default; the table says how to turn it off.
    assert told == options - {"--preview"}
