"""OpenAI's requests, JSON or form, to an ImageRequest."""

from __future__ import annotations

from typing import Literal

from flask import Request

from flux_api.blueprints.openai.parameters import (
    REFUSED,
    ImagesParameters,
    UpscaleParameters,
)
from flux_api.core import ImageRequest
from flux_api.errors import InvalidRequest, missing_parameter
from flux_api.http.bodies import Body
from flux_api.http.clients import chosen_job_id, prefers_async
from flux_api.http.context import Context
from flux_api.http.inputs import check_files, read_inputs
from flux_api.http.model_defaults import check_size, choose_mode, complete
from flux_api.http.parameters import FORMATS
from flux_api.http.upscaling import complete_upscale
from flux_api.queue.jobs import Job

FILES = tuple(f"image/{name}" for name in FORMATS)
ANY_PICTURE = "image/*"
# No registered name, but what many take for one.
_JPG = "image/jpg"

Operation = Literal["generation", "edit", "variation", "upscale"]
_WITHOUT_PROMPT = ("variation", "upscale")


def read_parameters(
    request: Request, body: Body, operation: Operation, deployment: str | None
) -> ImagesParameters:
    """The parameters of one of the operations; ``deployment`` is the model's
    name where the path says it. InvalidRequest names what is wrong."""
    for name, value in body.parts:
        known = name.partition("[")[0]
        if known in REFUSED and value not in (None, "", {}):
            raise InvalidRequest(
                f"Unsupported parameter: '{known}' is not supported by "
                f"{REFUSED[known]}.",
                param=known,
                code="unsupported_parameter",
            )
    # What the body says itself wins: Accept and the path are often the library's.
    accepted = accepted_picture(request)
    values = body.values | chosen_job_id(request)
    if accepted and accepted != ANY_PICTURE and not values.get("output_format"):
        values = values | {"output_format": accepted.removeprefix("image/")}
    if deployment and not values.get("model"):
        values = values | {"model": deployment}
    kind = UpscaleParameters if operation == "upscale" else ImagesParameters
    parameters = kind.read(values, request.args)
    if parameters.stream and prefers_async(request):
        message = "A stream is waited for: leave 'Prefer: respond-async' out."
        raise InvalidRequest(message, param="stream")
    if accepted:
        _check_file(parameters, accepted)
    if operation not in _WITHOUT_PROMPT and parameters.prompt is None:
        # It may have come as a file.
        check_files(body)
        raise missing_parameter("prompt", *parameters.notes)
    return parameters


def parse_request(
    context: Context,
    job: Job,
    body: Body,
    operation: Operation,
    parameters: ImagesParameters,
) -> ImageRequest:
    """The request of ``job``, its pictures decoded and the model's defaults filled in;
    InvalidRequest and its kin name what is wrong."""
    name = context.find_model(parameters.model)
    model = context.models[name]
    if operation != "upscale":  # Its size is on no model's grid.
        check_size(model, parameters)
    inputs = read_inputs(context, job, body, model)
    if operation != "generation" and not inputs.images:
        raise missing_parameter("image")
    if operation == "variation" and inputs.mask_image is not None:
        message = "A variation takes no mask: send it to /v1/images/edits."
        raise InvalidRequest(message, param="mask")
    if isinstance(parameters, UpscaleParameters):
        return complete_upscale(context, name, parameters.scale, parameters, inputs)
    # In a variation the prompt is an extension: it guides, and makes no edit of it.
    prompt = None if operation == "variation" else parameters.prompt
    mode = choose_mode(prompt, inputs.images)
    return complete(context, name, mode, parameters, inputs)


def accepted_picture(request: Request) -> str | None:
    """The type of picture that ``Accept`` names where it takes no JSON."""
    accepted = request.accept_mimetypes
    if accepted.quality("application/json") or request.method != "POST":
        return None
    found = accepted.best_match([*FILES, _JPG, ANY_PICTURE])
    if ANY_PICTURE in accepted.values():
        return ANY_PICTURE
    return "image/jpeg" if found == _JPG else found


def _check_file(parameters: ImagesParameters, accepted: str) -> None:
    """InvalidRequest unless one picture of the ``accepted`` type can be the answer."""
    for param, is_wrong, why in (
        ("n", parameters.n > 1, "one picture; ask for JSON"),
        ("stream", parameters.stream, "no stream"),
        ("response_format", parameters.response_format is not None, "no JSON"),
    ):
        if is_wrong:
            message = f"'Accept: {accepted}' asks for a file, which holds {why}."
            raise InvalidRequest(message, param=param)
    if accepted not in (ANY_PICTURE, f"image/{parameters.file_format}"):
        message = f"'output_format' and 'Accept: {accepted}' say different things."
        raise InvalidRequest(message, param="output_format")
