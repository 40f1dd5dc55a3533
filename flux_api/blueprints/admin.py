"""For whoever runs this server: the card is lent to other programs, and taken back."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, Literal

from flask import Blueprint, Response, jsonify, request
from PIL import Image

from flux_api.core import ImageRequest, Mode
from flux_api.errors import InvalidRequest
from flux_api.http.bodies import read_body
from flux_api.http.clients import open_job, wait_for
from flux_api.http.context import Context, get_context
from flux_api.http.fields import Fields
from flux_api.http.model_defaults import Inputs, complete
from flux_api.http.parameters import Parameters

# A blueprint of this name is there only with keys of its own, see http/access.py.
bp = Blueprint("admin", __name__, url_prefix="/admin")


class SleepParameters(Fields):
    """How to sleep."""

    weights: Literal["host", "dropped"] | None = None
    """Whether they wait in the host's memory, from where they come back fast, or are
    dropped; else they wait where there is room."""


@bp.post("/sleep")
def sleep() -> Response:
    """Let the weights leave the memory of the device. The next request for pictures
    brings them back."""
    told = {**request.args, **read_body(request).values}
    parameters = SleepParameters.read(told)
    if parameters.notes:
        # An order that is misunderstood would have to be taken back.
        raise InvalidRequest(parameters.notes[0])
    get_context().manager.sleep(parameters.weights)
    return jsonify(_state())


@bp.post("/wake")
def wake() -> Response:
    """Bring the default model's weights back, and answer when a first small picture has
    been made with them."""
    context, began = get_context(), time.monotonic()
    # Awake already: a picture would only keep others waiting.
    if context.manager.asleep:
        with open_job(context, request, None) as job:
            context.manager.submit(job, _first_request(context))
        wait_for(context, job, began=began)
    return jsonify(_state())


def _state() -> dict[str, Any]:
    kept = get_context().manager.asleep
    return {"asleep": kept is not None, "weights": kept or "device"}


def _first_request(context: Context) -> ImageRequest:
    """One step at the smallest size, for the default model's first task."""
    name = context.settings.model
    model = context.models[name]
    task = next(iter(model.tasks))
    mode: Mode = "edit" if task == "inpaint" else task
    size = model.sizes.fit((1, 1))
    grey = Image.new("RGB", size, "grey")
    images = () if task == "generate" else (grey,)
    mask = Image.new("L", size, 255) if task == "inpaint" else None
    values = {"prompt": "a heart", "width": size[0], "height": size[1]}
    parameters = Parameters.read(values | {"num_inference_steps": 1, "seed": 0})
    drawn = complete(context, name, mode, parameters, Inputs(images, mask))
    return replace(drawn, delivered=False)
