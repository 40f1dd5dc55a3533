"""The original API: ``POST /process`` and ``POST /process/raw``."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import Annotated

from flask import Blueprint, Response, jsonify, request
from pydantic import Field

from flux_api.blueprints.accepted import accept, check_async
from flux_api.core import ImageRequest
from flux_api.errors import missing_parameter
from flux_api.http.bodies import Body
from flux_api.http.clients import chosen_job_id, open_job, wait_for
from flux_api.http.context import Context, get_context
from flux_api.http.dry_run import stop_dry_run
from flux_api.http.idempotency import deliver, read_new_body
from flux_api.http.inputs import read_inputs
from flux_api.http.model_defaults import (
    Inputs,
    check_size,
    choose_mode,
    complete,
)
from flux_api.http.parameters import COUNT_NAMES, Parameters, refuse_others
from flux_api.http.pictures import (
    encode_pictures,
    to_base64,
    to_file,
    upload_pictures,
)
from flux_api.http.recipe_of import recall
from flux_api.http.upscaling import Scale, complete_upscale
from flux_api.http.values import Text
from flux_api.queue.jobs import Job
from flux_api.queue.results import FinishedPicture

bp = Blueprint("original", __name__)

# OpenAI's words that this API cannot honour, and where they are.
_ELSEWHERE = dict.fromkeys(
    (*COUNT_NAMES, "stream", "response_format", "quality", "background"),
    "/v1/images/generations, or /v1/images/edits with a picture",
)


class ProcessParameters(Parameters):
    """What the original API takes, beside what every API takes."""

    input_file: Annotated[str | None, Text] = None
    """A picture: a file part, Base64, a data URL or an http(s) URL."""
    input_image_url: Annotated[str | None, Text] = None
    """An http(s) or data URL of a picture."""
    recipe_of: Annotated[str | None, Field(max_length=4096), Text] = None
    """The id or URL of a stored picture: its recipe says what this request does not."""
    scale: Scale = None
    """Make the picture that is sent 2 or 4 times as large."""
    bearer_token: Annotated[str | None, Field(max_length=4096), Text] = None
    """Sent to the host of input_image_url."""

    @classmethod
    def _note_on(cls, name: str, known: list[str]) -> str | None:
        if name == "mode":
            return (
                "'mode' was ignored: an image and a prompt mean edit, an image alone "
                "variation, a prompt alone generate."
            )
        # Apps send OpenAI's API what others take. This one is called by its own names.
        missing = f"{name!a} was ignored: there is no such field."
        return super()._note_on(name, known) or missing


@bp.post("/process")
def process() -> Response:
    """One picture as JSON: a URL on the file server, else Base64."""
    context = get_context()
    job, parameters, began = _submit(context)
    encode = partial(encode_pictures, context, job, parameters)
    if job.outlives_clients:
        return accept(
            context, job, lambda made: upload_pictures(context, job, encode(made))[0]
        )
    pictures = encode(wait_for(context, job, began=began))
    # Before they are kept: whoever asks again is to be told the same URL.
    pictures, headers = upload_pictures(context, job, pictures)

    def render(pictures: list[FinishedPicture]) -> Response:
        (picture,) = pictures
        if picture.url is not None:
            result = {"result_image_url": picture.url}
        else:
            result = {"result_image_base64": to_base64(picture.data)}
        response = jsonify(result | {**picture.facts, "job_id": job.id})
        response.headers.update(headers)
        return response

    return deliver(context, job, pictures, render)


@bp.post("/process/raw")
def process_raw() -> Response:
    """One picture as its file, its facts in the headers."""
    context = get_context()
    job, parameters, began = _submit(context)
    encode = partial(encode_pictures, context, job, parameters)
    if job.outlives_clients:
        return accept(context, job, encode)
    pictures = encode(wait_for(context, job, began=began))
    return deliver(context, job, pictures, lambda pictures: to_file(*pictures))


def _submit(context: Context) -> tuple[Job, ProcessParameters, float]:
    """The job of this request, its parameters, and when its body was there."""
    body = read_new_body()
    began = time.monotonic()
    check_async(context)
    sent = body
    body, recipe = recall(context, body)
    parameters = _read_parameters(body)
    name = context.find_model(parameters.model)
    model = context.models[name]
    made_by = recipe.get("mode")
    # A larger picture's size follows from the one that was sent.
    if parameters.scale is None and made_by != "upscale":
        check_size(model, parameters)
    token = parameters.bearer_token
    with open_job(context, request, parameters.own_job_id) as job:
        # One picture, unless the recipe that is repeated was made from more.
        most = max(1, len(recipe.get("inputs", ())))
        inputs = read_inputs(context, job, body, model, most=most, bearer_token=token)
        image_request = _complete(context, name, parameters, inputs, made_by)
        told = _without_recalled(sent, image_request)
        stop_dry_run(context, job, told, parameters)
        context.manager.submit(job, image_request)
    # A picture as text is not to be held while the job waits.
    gone = dict.fromkeys(("input_file", "input_image_url"))
    return job, parameters.model_copy(update=gone), began


def _without_recalled(sent: Body, image_request: ImageRequest) -> ImageRequest:
    """``image_request`` for its caller's eyes: whoever has a picture's URL may have it
    made again, but its prompts are for who has the file server's token."""
    own = {name for name in ("prompt", "negative_prompt") if sent.values.get(name)}
    return replace(
        image_request,
        prompt=image_request.prompt if "prompt" in own else "",
        negative_prompt=(
            image_request.negative_prompt if "negative_prompt" in own else None
        ),
    )


def _complete(
    context: Context,
    name: str,
    parameters: ProcessParameters,
    inputs: Inputs,
    made_by: str | None,
) -> ImageRequest:
    """The request in full; ``made_by`` is the mode of the recipe that it repeats."""
    if parameters.scale is not None or made_by == "upscale":
        if not inputs.images:
            raise missing_parameter("input_file")
        return complete_upscale(context, name, parameters.scale, parameters, inputs)
    varies = made_by == "variation" and inputs.images
    prompt = None if varies else parameters.prompt
    mode = choose_mode(prompt, inputs.images, parameters.notes)
    return complete(context, name, mode, parameters, inputs)


def _read_parameters(body: Body) -> ProcessParameters:
    refuse_others(body.values, _ELSEWHERE)
    return ProcessParameters.read(body.values | chosen_job_id(request), request.args)
