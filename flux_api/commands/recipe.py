"""``recipe``: how a picture was made, and the same once more."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

from flux_api.commands.api import Field
from flux_api.commands.connecting import server_options
from flux_api.commands.files import format_of
from flux_api.commands.pictures import FILE, content_of, draw
from flux_api.commands.screen import Screen
from flux_api.commands.transport import FAILED, REFUSED, Failure
from flux_api.images.metadata import picture_data
from flux_api.images.recipe import (
    PROMPTS,
    Recipe,
    fields_of,
    hash_of,
    read_recipe,
)

_ROUTES = {
    "generate": "/v1/images/generations",
    "edit": "/v1/images/edits",
    "variation": "/v1/images/variations",
    "upscale": "/v1/images/upscale",
}
_FOR_AGAIN = (*PROMPTS, "input", "mask", "out", "json")
# What a terminal may take for commands, or for another order of the letters.
_UNSEEN = re.compile(r"[\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@click.command()
@click.argument("file", type=FILE)
@click.option("--again", is_flag=True, help="Make it once more.")
@click.option("--prompt", metavar="TEXT", help="Where the recipe tells only its hash.")
@click.option("--negative-prompt", metavar="TEXT", help="The same.")
@click.option(
    "--input",
    multiple=True,
    type=FILE,
    help="A picture that it was made from, found by its hash; again for several.",
)
@click.option("--mask", type=FILE, help="The mask that it was made with.")
@click.option("-o", "--out", metavar="FILE", help="Where to write, as for generate.")
@click.option("--json", is_flag=True, help="With --again: facts as JSON.")
@server_options
def recipe(file: Path, again: bool, **options: Any) -> int:
    """Show the recipe in a picture's FILE, or make the picture once more.

    \b
    flux-api recipe heart.png
    flux-api recipe heart.png --again --prompt "a red heart" -o same.png
    flux-api recipe hat.png --again --prompt "a hat" --input me.jpg --mask head.png
    """
    data = content_of(file)[1]
    found = _read(file, data)
    if is_changed(found, data):
        click.echo(
            f"flux-api: {file} was saved by another program since: what its recipe "
            "makes will look a little different",
            err=True,
        )
    given = [_option(name) for name in _FOR_AGAIN if options[name]]
    if given and not again:
        raise click.UsageError(f"{given[0]} goes with --again")
    if not again:
        text = json.dumps(found, indent=2, ensure_ascii=False)
        click.echo(_UNSEEN.sub(lambda sign: f"\\u{ord(sign[0]):04x}", text))
        for sentence in _wanted(found):
            click.echo(f"to make it again: {sentence}", err=True)
        return 0
    return _make(found, file.stem, options)


def is_changed(found: Recipe, data: bytes) -> bool:
    """Whether a file holds other pixels than its recipe is of."""
    told = found.get("picture_sha256")
    return told is not None and told != hash_of(picture_data(data))


def _read(file: Path, data: bytes) -> Recipe:
    try:
        found = read_recipe(data)
    except ValueError as error:
        raise Failure(f"{file}: {error}", FAILED) from None
    if found is None:
        message = (
            f"{file} holds no recipe: another program saved it anew, or it was made "
            "elsewhere, or with FLUX_METADATA=none or mark"
        )
        raise Failure(message, FAILED)
    return found


def _wanted(found: Recipe) -> list[str]:
    """What has to be sent along with the recipe, a sentence each."""
    wanted = [
        f"{_option(name)} TEXT, whose SHA-256 is {found[f'{name}_sha256']}"
        for name in PROMPTS
        if f"{name}_sha256" in found
    ]
    wanted += [f"--input FILE, whose SHA-256 is {h}" for h in found.get("inputs", [])]
    if "mask" in found:
        wanted.append(f"--mask FILE, whose SHA-256 is {found['mask']}")
    return wanted


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _make(found: Recipe, stem: str, options: dict[str, Any]) -> int:
    told = found | _prompts(found, options)
    pictures = _pictures(found, options)
    kind = str(told.get("output_format", "png"))
    out, wanted = options["out"], fields_of(told)
    wanted.pop("output_format", None)
    try:
        format_of(out, kind)
    except Failure:
        # The ending says another one: as asked for, with that one's own quality.
        kind = format_of(out, None)
        wanted.pop("output_compression", None)
    fields: list[Field] = [
        (name, json.dumps(value) if name == "loras" else str(value))
        for name, value in wanted.items()
    ]
    # The negative prompt is among the fields already.
    usual: dict[str, Any] = {"negative_prompt": None, "loras": (), "n": 1}
    usual |= {"as_json": options["json"], "preview": True}
    usual |= {"model": told.get("model"), "file_format": kind}

    def compare(screen: Screen, data: bytes) -> None:
        made = hash_of(picture_data(data))
        same = made == found.get("picture_sha256")
        screen.say("  the same pixels" if same else f"  {_differs(found, data)}")

    asked = options | usual
    request = f"{stem}-again", [*(f for f in fields if f[0] != "model"), *pictures]
    return draw(_ROUTES[found["mode"]], [request], asked, compare)


def _prompts(found: Recipe, options: dict[str, Any]) -> dict[str, str]:
    """The prompts that the recipe does not tell; Failure where one is missing or is
    another than that of the picture."""
    prompts = {}
    for name in PROMPTS:
        wanted, given = found.get(f"{name}_sha256"), options[name]
        if given is not None and wanted is None:
            raise Failure(f"the recipe asks for no {_option(name)}", REFUSED)
        if wanted is None:
            continue
        if given is None or hash_of(given.encode(errors="surrogateescape")) != wanted:
            why = "is missing" if given is None else "is another one"
            message = f"{_option(name)} {why}: its SHA-256 has to be {wanted}"
            raise Failure(message, REFUSED)
        prompts[name] = given
    return prompts


def _pictures(found: Recipe, options: dict[str, Any]) -> list[Field]:
    """The input pictures in the order of the recipe; Failure names those that lack and
    those that are not in it."""
    # Each is read once: it may be standard input.
    given: dict[str, tuple[Path, tuple[str, bytes]]] = {}
    for path in options["input"]:
        content = content_of(path)
        given[hash_of(content[1])] = path, content
    mask = None if options["mask"] is None else content_of(options["mask"])
    wanted = list(found.get("inputs", []))
    lacking = [f"--input FILE with the SHA-256 {h}" for h in wanted if h not in given]
    if "mask" in found and (mask is None or hash_of(mask[1]) != found["mask"]):
        lacking.append(f"--mask FILE with the SHA-256 {found['mask']}")
    strange = [str(path) for h, (path, _) in given.items() if h not in wanted]
    if mask is not None and "mask" not in found:
        strange.append(str(options["mask"]))
    if lacking or strange:
        parts = [f"send along {', '.join(lacking)}"] if lacking else []
        parts += [f"not of this recipe: {', '.join(strange)}"] if strange else []
        raise Failure("; ".join(parts), REFUSED)
    fields: list[Field] = [("image[]", given[h][1]) for h in wanted]
    if mask is not None:
        fields.append(("mask", mask))
    return fields


def _differs(found: Recipe, data: bytes) -> str:
    """Where the picture is another one: what the recipes say differently."""
    try:
        made = read_recipe(data) or {}
    except ValueError:
        made = {}
    names = [
        name
        for name in ("software", "revision", "performance", "loras", "output_format")
        if made and made.get(name) != found.get(name)
    ]
    why = f": {', '.join(names)} differ" if names else ""
    return f"not the same pixels{why}"
