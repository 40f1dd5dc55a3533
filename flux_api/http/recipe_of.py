"""``recipe_of``: a request that says how it differs from a stored picture's."""

from __future__ import annotations

import re
from typing import Any

from flask import request

from flux_api.errors import InvalidRequest, ModelNotFound
from flux_api.http.bodies import Body
from flux_api.http.body_text import PICTURE_FIELD
from flux_api.http.clients import caller_of
from flux_api.http.context import Context
from flux_api.images.recipe import Recipe, fields_of, parse_recipe
from flux_api.net.file_server import FileServer

PARAM = "recipe_of"
_NAME = re.compile(r"[0-9A-Za-z_-]{8,64}(?:\.[a-z0-9]{2,5})?")
_PICTURE = re.compile(rf"(?:\S*/i/)?({_NAME.pattern})")
# What a caller's own word for it, or a change beside it, takes out of a recipe.
_GIVES_WAY = {
    "size": ("width", "height"),
    "aspect_ratio": ("width", "height"),
    "scale": ("width", "height"),
    "steps": ("num_inference_steps",),
    "guidance": ("guidance_scale",),
    "cfg_scale": ("guidance_scale",),
    "output_format": ("output_compression",),
    "prompt": ("mode", "strength"),
}


def recall(context: Context, body: Body) -> tuple[Body, Recipe]:
    """``body``, filled up from the recipe of the stored picture that its ``recipe_of``
    names, and that recipe, as far as the body leaves it; as it is, and an empty one,
    where it names none. InvalidRequest, ModelNotFound, QueueFull or Unavailable."""
    given = {k: v for k, v in body.values.items() if v is not None and v != ""}
    asked = given.get(PARAM)
    if asked is None:
        return body, {}
    picture = _picture_of(asked)
    recipe = _fetch(context, picture)
    model = str(recipe.get("model"))
    if "model" not in given and model not in context.models:
        message = (
            f"This server does not offer the recipe's model {model[:64]!r} but "
            f"{', '.join(context.models)}."
        )
        raise ModelNotFound(message, param=PARAM)
    enlarged = recipe.get("mode") == "upscale"
    for name, gone in _GIVES_WAY.items():
        # Another prompt makes a variation an edit; a larger picture stays one.
        if name in given and not (enlarged and "mode" in gone):
            recipe = {k: v for k, v in recipe.items() if k not in gone}
    if "scale" in given and not enlarged:
        recipe = _to_enlarge(recipe, picture)
    pictures = _pictures(context.file_server, body, recipe)
    # Pictures last: what the caller has in their place is empty.
    return Body(fields_of(recipe) | given | pictures, body.uploads), recipe


def _picture_of(asked: Any) -> str:
    """The name or id of the stored picture."""
    found = _PICTURE.fullmatch(asked.strip()) if isinstance(asked, str) else None
    if found is None:
        message = f"Invalid '{PARAM}': expected the id or the URL of a stored picture."
        raise InvalidRequest(message, param=PARAM)
    return found[1]


def _fetch(context: Context, picture: str) -> Recipe:
    if context.file_server is None or context.settings.file_server_token is None:
        lacking = "FILE_SERVER_TOKEN" if context.file_server else "FILE_SERVER"
        message = f"This server cannot read recipes: {lacking} is not set."
        raise InvalidRequest(message, param=PARAM, code="recipes_not_readable")
    # A file server that is slow would hold every thread there is.
    with context.manager.hold_place(caller_of(request)):
        text = context.file_server.recipe(picture)
    if text is None:
        message = f"Invalid '{PARAM}': no recipe is stored for that picture."
        raise InvalidRequest(message, param=PARAM, code="recipe_not_found")
    try:
        return parse_recipe(text)
    except ValueError as error:
        raise InvalidRequest(f"Invalid '{PARAM}': {error}.", param=PARAM) from None


def _to_enlarge(recipe: Recipe, picture: str) -> Recipe:
    """The recipe that makes the stored ``picture`` itself larger: its words, LoRAs and
    seed, not what it was made from. Steps and guidance of drawing anew are no good to
    it."""
    gone = {"mode", "inputs", "stored_inputs", "mask"}
    gone |= {"num_inference_steps", "guidance_scale", "strength"}
    kept = {k: v for k, v in recipe.items() if k not in gone}
    if "." not in picture:
        made = str(recipe.get("output_format", "png"))
        picture = f"{picture}.{'jpg' if made == 'jpeg' else made}"
    return kept | {"inputs": [""], "stored_inputs": [picture]}


def _pictures(
    server: FileServer | None, body: Body, recipe: Recipe
) -> dict[str, list[str]]:
    """The addresses of the recipe's pictures that the request does not bring itself;
    InvalidRequest names those that are not stored."""
    sent = {
        found.lastgroup
        for name, value in body.parts
        if value not in (None, "", {}, []) and (found := PICTURE_FIELD.fullmatch(name))
    }
    lacking: list[str] = []
    pictures: dict[str, list[str]] = {}
    wanted, stored = recipe.get("inputs", []), recipe.get("stored_inputs")
    if wanted and not sent & {"image", "url"}:
        names = _names(stored, len(wanted))
        lacking += [
            f"the input picture with the SHA-256 {str(sha)[:64]}"
            for sha, name in zip(wanted, names, strict=True)
            if name is None
        ]
        if server is not None:
            pictures["image"] = [server.url_of(name) for name in names if name]
    if "mask" in recipe and "mask" not in sent:
        (name,) = _names([recipe.get("stored_mask")], 1)
        if name is None:
            lacking.append(f"the mask with the SHA-256 {str(recipe['mask'])[:64]}")
        elif server is not None:
            pictures["mask"] = [server.url_of(name)]
    if lacking:
        message = f"The recipe needs what is not stored: send {', '.join(lacking)}."
        raise InvalidRequest(message, param="image", code="recipe_inputs_missing")
    return pictures


def _names(stored: Any, count: int) -> list[str | None]:
    """Names of stored pictures, None for each that is none."""
    found = stored if isinstance(stored, list) else []
    names = [
        name if isinstance(name, str) and _NAME.fullmatch(name) else None
        for name in found[:count]
    ]
    return [*names, *[None] * (count - len(names))]
