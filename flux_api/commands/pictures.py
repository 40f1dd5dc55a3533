"""``generate``, ``edit``, ``vary`` and ``upscale``."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from flux_api.commands.api import Field, Json
from flux_api.commands.connecting import connect
from flux_api.commands.drawing import Drawing, Request, show
from flux_api.commands.files import STDOUT, PictureFiles, format_of
from flux_api.commands.options import picture_options, size_option
from flux_api.commands.screen import Screen
from flux_api.commands.signals import Signals
from flux_api.commands.transport import REFUSED, Failure
from flux_server.log_lines import json_line

FILE = click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
_SENT = {
    "n": "n",
    "seed": "seed",
    "size": "size",
    "model": "model",
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "negative_prompt": "negative_prompt",
}
_PREVIEWS = "3"
Input = tuple[str, list[Field]]
"""What a request is called, and what only this one is sent."""


@click.command()
@click.argument("prompts", nargs=-1, required=True, metavar="PROMPT...")
@size_option
@picture_options
def generate(prompts: tuple[str, ...], **options: Any) -> int:
    """Make pictures from words.

    \b
    flux-api generate "a red heart" -o heart.png
    flux-api generate "a cat" -n 4 --seed 7 --size 768x512
    flux-api generate "a cat" "a dog" "a duck" -o pets/
    flux-api generate "a cat" --model klein-4b --lora pixel-art:0.8
    """
    route = "/v1/images/generations"
    return draw(route, [(text, [("prompt", text)]) for text in prompts], options)


@click.command()
@click.argument("images", nargs=-1, required=True, type=FILE, metavar="IMAGE...")
@click.argument("prompt")
@click.option("--mask", type=FILE, help="Repaint only where it is transparent.")
@click.option(
    "--ref",
    "references",
    multiple=True,
    type=FILE,
    help="A further picture to look at, for models that take several.",
)
@size_option
@picture_options
def edit(
    images: tuple[Path, ...],
    prompt: str,
    mask: Path | None,
    references: tuple[Path, ...],
    **options: Any,
) -> int:
    """Change pictures by words; each IMAGE is changed for itself.

    \b
    flux-api edit heart.png "make it blue" -o blue.png
    flux-api edit photo.png "a red hat" --mask hat.png
    flux-api edit holiday/*.jpg "make it monochrome" -o grey/
    flux-api edit me.png "in this style" --ref style.png
    """
    more: list[Field] = [("image[]", content_of(path)) for path in references]
    if mask is not None:
        more.append(("mask", content_of(mask)))
    inputs: list[Input] = [
        (
            f"{path.stem}-edit",
            [("prompt", prompt), ("image[]", content_of(path)), *more],
        )
        for path in images
    ]
    return draw("/v1/images/edits", inputs, options)


@click.command()
@click.argument("images", nargs=-1, required=True, type=FILE, metavar="IMAGE...")
@size_option
@picture_options
def vary(images: tuple[Path, ...], **options: Any) -> int:
    """Make pictures like others.

    \b
    flux-api vary heart.png -n 4
    flux-api generate "a cat" -o - | flux-api vary - -o like-it.png
    """
    inputs: list[Input] = [
        (f"{p.stem}-variation", [("image", content_of(p))]) for p in images
    ]
    return draw("/v1/images/variations", inputs, options)


@click.command()
@click.argument("images", nargs=-1, required=True, type=FILE, metavar="IMAGE...")
@click.option(
    *("-s", "--scale"),
    type=click.Choice(("2", "4")),
    default="2",
    help="How many times as wide and as high.",
)
@click.option("--prompt", metavar="TEXT", help="What is to be seen in it.")
@picture_options
def upscale(
    images: tuple[Path, ...], scale: str, prompt: str | None, **options: Any
) -> int:
    """Make pictures larger, with detail that the model draws.

    \b
    flux-api upscale heart.png
    flux-api upscale photo.jpg -s 4 --prompt "a cat in the grass" -o large.webp
    flux-api upscale holiday/*.jpg -o large/
    """
    more: list[Field] = [("scale", scale)]
    if prompt is not None:
        more.append(("prompt", prompt))
    inputs: list[Input] = [
        (f"{path.stem}-{scale}x", [("image", content_of(path)), *more])
        for path in images
    ]
    return draw("/v1/images/upscale", inputs, options)


def draw(
    route: str,
    inputs: list[Input],
    options: dict[str, Any],
    look: Callable[[Screen, bytes], None] = lambda screen, data: None,
) -> int:
    """Ask for a picture or several of each of ``inputs``; the exit code. ``look`` is
    called with the file of each."""
    environ = click.get_current_context().obj
    out, as_json = options["out"], options["as_json"]
    if as_json and out == "-":
        raise click.UsageError("--json and '-o -' both want standard output")
    screen = Screen(sys.stderr, environ, previews=options["preview"])
    file_format, count = format_of(out, options["file_format"]), options["n"]
    files = PictureFiles(out, count * len(inputs))
    fields = _fields(options, file_format)
    if screen.shows_pictures:
        fields.append(("partial_images", _PREVIEWS))
    requests = [
        Request(label, route, [*own, *fields], files.names(label, count, file_format))
        for label, own in inputs
    ]
    for request in requests:
        _check_text(request.fields)
    # Before anything is loaded, which may take minutes.
    signals = Signals()
    api = connect(environ, options["server"], options["key"], options["model"])
    api.wait_ready(lambda reason: screen.show(f"{reason} ..."))
    drawing = Drawing(api, requests)
    signals.cancel = drawing.stop
    codes = [0]
    for request, event in show(drawing, requests, screen):
        if event["type"] == "picture":
            _tell(screen, event, as_json)
            look(screen, event["data"])
        elif failure := event["failure"]:
            codes.append(failure.exit_code)
            _tell_failure(screen, request, failure, as_json)
    return signals.exit_code or max(codes)


def _check_text(fields: list[Field]) -> None:
    for name, value in fields:
        # A letter for each byte that the terminal's encoding does not have.
        if isinstance(value, str) and re.search("[\ud800-\udfff]", value):
            raise Failure(f"Invalid {name!r}: the text is not UTF-8.", REFUSED)


def _fields(options: dict[str, Any], file_format: str) -> list[Field]:
    fields: list[Field] = [("output_format", file_format)]
    for option, name in _SENT.items():
        if (value := options.get(option)) is not None:
            fields.append((name, str(value)))
    if options["loras"]:
        fields.append(("loras", json.dumps([_lora(text) for text in options["loras"]])))
    return fields


def _lora(text: str) -> Json:
    """``NAME:WEIGHT``, or a name with whatever colons."""
    name, _, weight = text.rpartition(":")
    with suppress(ValueError):
        if name:
            return {"name": name, "adapter_weight": float(weight)}
    return {"name": text}


def content_of(path: Path) -> tuple[str, bytes]:
    """What the API is sent of a file. Its own name, which may be in any encoding, does
    not matter to it."""
    data = sys.stdin.buffer.read() if path == STDOUT else path.read_bytes()
    return "picture", data


def _tell(screen: Screen, event: Json, as_json: bool) -> None:
    path, facts = event["file"], event["facts"]
    if path == STDOUT:
        path = "standard output"
    elif as_json:
        click.echo(json_line({"file": str(path), **facts}))
    # On a terminal the line below says it.
    elif not (sys.stdout.isatty() and sys.stderr.isatty()):
        click.echo(path)
    screen.say(
        f"{path}  {facts['width']}x{facts['height']}, seed {facts['seed']}, "
        f"{facts['steps']} steps, {facts['run_seconds']:.1f} s"
    )
    if warning := facts.get("warning"):
        screen.say(f"  {warning}")


def _tell_failure(
    screen: Screen, request: Request, failure: Failure, as_json: bool
) -> None:
    if as_json:
        click.echo(json_line({"job_id": request.job_id, "error": failure.error}))
    said = str(failure)
    for option, field in _SENT.items():
        # What was typed, where the API has another name for it.
        if field != option and field == failure.error.get("param"):
            said = said.replace(field, f"--{option}")
    screen.say(f"flux-api: {request.label}: {said}")
