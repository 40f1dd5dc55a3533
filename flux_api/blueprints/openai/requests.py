"""OpenAI's requests, JSON or form, to an ImageRequest."""

from __future__ import annotations

from flask import Request

from flux_api.blueprints.openai.inputs import decode_images, decode_one_mask
from flux_api.blueprints.openai.parameters import (
    ImagesParameters,
    Operation,
    check_operation,
    refuse_unsupported,
)
from flux_api.core import ImageRequest
from flux_api.http.bodies import Body
from flux_api.http.clients import chosen_job_id
from flux_api.http.completion import Inputs, choose_mode, complete_request
from flux_api.http.context import Context


def read_parameters(
    request: Request, body: Body, operation: Operation, deployment: str | None
) -> ImagesParameters:
    """The parameters of one of the three operations; ``deployment`` is the model's
    name where the path says it. InvalidRequest names what is wrong."""
    refuse_unsupported(body)
    values = body.values | chosen_job_id(request)
    if deployment and not values.get("model"):
        values = values | {"model": deployment}
    parameters = ImagesParameters.read(values)
    check_operation(parameters, operation)
    return parameters


def parse_request(
    context: Context, body: Body, operation: Operation, parameters: ImagesParameters
) -> ImageRequest:
    """The request with its pictures decoded and the model's defaults filled in;
    InvalidRequest and its kin name what is wrong."""
    name = context.find_model(parameters.model)
    model = context.models[name]
    inputs = Inputs()
    if operation != "generation":
        images = decode_images(context, body, model)
        masked = operation == "edit"
        mask = decode_one_mask(context, body, images[0]) if masked else None
        inputs = Inputs(images, mask)
    # In a variation the prompt is an extension: it guides, and makes no edit of it.
    prompt = None if operation == "variation" else parameters.prompt
    return complete_request(
        name,
        model,
        choose_mode(prompt, inputs.images),
        parameters,
        inputs,
        lora_names=context.loras.names,
    )
