"""What every command that makes pictures can be told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from flux_api.commands.completion import complete_model
from flux_api.commands.connecting import server_options
from flux_api.commands.files import FORMATS

size_option = click.option(
    "--size", metavar="WIDTHxHEIGHT", help="In pixels, such as 768x512."
)
"""Let a command be told how large."""


def picture_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let ``command`` be told how many, by which model and where to."""
    add = click.option
    options = [
        add(
            *("-o", "--out"),
            metavar="FILE",
            help="Where to write: a file (several pictures get numbers), a folder, or "
            "- for standard output. Its ending says the format; what ends in / is a "
            "folder, made where there is none. Without it a name is made up, and no "
            "file is written over.",
        ),
        add("-n", type=click.IntRange(1), default=1, help="How many pictures of each."),
        add(
            "--seed",
            type=int,
            help="The same seed gives the same picture; -1 or none a random one.",
        ),
        add(
            "--model",
            metavar="SET",
            shell_complete=complete_model,
            help="A model set, such as klein-4b.",
        ),
        add(
            "--lora",
            "loras",
            multiple=True,
            metavar="NAME[:WEIGHT]",
            help="A LoRA that the server knows; again for several.",
        ),
        add("--steps", type=int, help="Denoising steps; the model's own by default."),
        add("--guidance", type=float, help="How closely to follow the prompt."),
        add("--negative-prompt", metavar="TEXT", help="What to avoid."),
        add(
            "--format",
            "file_format",
            type=click.Choice(("png", "jpeg", "jpg", "webp")),
            callback=lambda _context, _option, name: FORMATS.get(f".{name}"),
            help="Where no file name says it; png by default.",
        ),
        add("--json", "as_json", is_flag=True, help="A line of JSON for each picture."),
        add(
            "--preview/--no-preview",
            default=True,
            help="Show pictures in the terminal, where it can.",
        ),
    ]
    command = server_options(command)
    for option in reversed(options):
        command = option(command)
    return command
