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


_PICTURE_OPTIONS = [
    click.option(
        *("-o", "--out"),
        metavar="FILE",
        help="Where to write: a file (several pictures get numbers), a folder, or "
        "- for standard output. Its ending says the format; what ends in / is a "
        "folder, made where there is none. Without it a name is made up, and no "
        "file is written over.",
    ),
    click.option(
        "-n", type=click.IntRange(1), default=1, help="How many pictures of each."
    ),
    click.option(
        "--seed",
        type=int,
        help="The same seed gives the same picture; -1 or none a random one.",
    ),
    click.option(
        "--model",
        metavar="NAME",
        shell_complete=complete_model,
        help="A model, such as klein-4b.",
    ),
    click.option(
        "--lora",
        "loras",
        multiple=True,
        metavar="NAME[:WEIGHT]",
        help="A LoRA that the server knows; again for several.",
    ),
    click.option(
        "--steps", type=int, help="Denoising steps; the model's own by default."
    ),
    click.option("--guidance", type=float, help="How closely to follow the prompt."),
    click.option("--negative-prompt", metavar="TEXT", help="What to avoid."),
    click.option(
        "--format",
        "file_format",
        type=click.Choice(("png", "jpeg", "jpg", "webp")),
        callback=lambda _context, _option, name: FORMATS.get(f".{name}"),
        help="Where no file name says it; png by default.",
    ),
    click.option(
        "--json", "as_json", is_flag=True, help="A line of JSON for each picture."
    ),
    click.option(
        "--preview/--no-preview",
        default=True,
        help="Show pictures in the terminal, where it can.",
    ),
]


def picture_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let ``command`` be told how many, by which model and where to."""
    command = server_options(command)
    for option in reversed(_PICTURE_OPTIONS):
        command = option(command)
    return command
