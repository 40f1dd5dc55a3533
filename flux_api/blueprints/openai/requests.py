"""OpenAI's requests, JSON or form, to an ImageRequest."""

from __future__ import annotations

from typing import Literal

from flask import Request

from flux_api.blueprints.openai.parameters import REFUSED, ImagesParameters
from flux_api.core import ImageRequest
from flux_api.errors import InvalidRequest
from flux_api.http.bodies import Body
from flux_api.http.clients import chosen_job_id
from flux_api.http.completion import choose_mode, complete_request
from flux_api.http.context import Context
from flux_api.http.inputs import read_inputs
from flux_api.queue.jobs import Job

Operation = Literal["generation", "edit", "variation"]


def read_parameters(
    request: Request, body: Body, operation: Operation, deployment: str | None
) -> ImagesParameters:
    """The parameters of one of the three operations; ``deployment`` is the model's
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
    values = body.values | chosen_job_id(request)
    if deployment and not values.get("model"):
        values = values | {"model": deployment}
    parameters = ImagesParameters.read(values)
    if operation == "variation" and parameters.stream:
        raise InvalidRequest("Variations cannot be streamed.", param="stream")
    if operation != "variation" and parameters.prompt is None:
        raise _missing("prompt")
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
    inputs = read_inputs(context, job, body, model)
    if operation != "generation" and not inputs.images:
        raise _missing("image")
    if operation == "variation" and inputs.mask_image is not None:
        message = "A variation takes no mask: send it to /v1/images/edits."
        raise InvalidRequest(message, param="mask")
    # In a variation the prompt is an extension: it guides, and makes no edit of it.
    prompt = None if operation == "variation" else parameters.prompt
    mode = choose_mode(prompt, inputs.images)
    names = context.loras.names
    return complete_request(name, model, mode, parameters, inputs, lora_names=names)


def _missing(param: str) -> InvalidRequest:
    message = f"Missing required parameter: '{param}'."
    return InvalidRequest(message, param=param, code="missing_required_parameter")
