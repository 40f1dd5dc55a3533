"""The original API: ``POST /process`` and ``POST /process/raw``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

from flask import Blueprint, Response, jsonify, request
from pydantic import Field

from flux_api.errors import InvalidRequest
from flux_api.http.bodies import Body
from flux_api.http.clients import caller_of, chosen_job_id, submit, wait_for
from flux_api.http.completion import Inputs, choose_mode, complete_request
from flux_api.http.context import Context, get_context
from flux_api.http.idempotency import deliver, read_new_body
from flux_api.http.parameters import Integer, Parameters, Text
from flux_api.http.pictures import (
    encode_pictures,
    to_base64,
    to_file,
    upload_pictures,
)
from flux_api.images.data_urls import decode_base64, decode_data_url
from flux_api.queue.jobs import Job
from flux_api.queue.results import FinishedPicture

if TYPE_CHECKING:
    from PIL.Image import Image

bp = Blueprint("original", __name__)

_ANY_SIDE = 10**9


class ProcessParameters(Parameters):
    """What the original API takes, beside what every API takes."""

    # Whatever is an integer: the model's own grid says what is legal.
    width: Annotated[int | None, Field(ge=-_ANY_SIDE, le=_ANY_SIDE), Integer] = None
    """Pixels."""
    height: Annotated[int | None, Field(ge=-_ANY_SIDE, le=_ANY_SIDE), Integer] = None
    """Pixels."""
    input_file: Annotated[str | None, Text] = None
    """A picture: a file part, Base64 or a data URL."""
    input_image_url: Annotated[str | None, Text] = None
    """An http(s) or data URL of a picture."""
    bearer_token: Annotated[str | None, Field(max_length=4096), Text] = None
    """Sent to the host of input_image_url."""

    @property
    def size(self) -> tuple[int | None, int | None]:
        """(width, height) in pixels, None where the caller left them open."""
        return self.width, self.height


@bp.post("/process")
def process() -> Response:
    """One picture as JSON: a URL on the file server, else Base64."""
    context = get_context()
    job, pictures = _make(context)
    pictures, headers = upload_pictures(context, pictures)

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
    """One picture as ``image/png``, its facts in the headers."""
    context = get_context()
    return deliver(context, *_make(context), lambda pictures: to_file(*pictures))


def _make(context: Context) -> tuple[Job, list[FinishedPicture]]:
    body = read_new_body()
    began = time.monotonic()
    context.manager.check_open(caller_of(request))
    parameters = ProcessParameters.read(body.values | chosen_job_id(request))
    name = context.find_model(parameters.model)
    images = _load_image(context, body, parameters)
    image_request = complete_request(
        name,
        context.models[name],
        choose_mode(parameters.prompt, images),
        parameters,
        Inputs(images),
        lora_names=context.loras.names,
    )
    job = submit(context, request, image_request, parameters.job_id)
    results = wait_for(context, request, job, began=began)
    return job, encode_pictures(job, results)


def _load_image(
    context: Context, body: Body, parameters: ProcessParameters
) -> tuple[Image, ...]:
    """The picture of ``input_file``, else that of ``input_image_url``, else none."""
    files = list(body.files("input_file"))
    if len(files) > 1:
        message = "'input_file' was given more than once."
        raise InvalidRequest(message, param="input_file")
    if files:
        return (context.decoder.image(files[0], param="input_file"),)
    if text := parameters.input_file:
        decode = decode_data_url if text.startswith("data:") else decode_base64
        data = decode(text, param="input_file")
        return (context.decoder.image(data, param="input_file"),)
    if parameters.input_image_url is None:
        return ()
    data = context.fetcher.fetch(
        parameters.input_image_url.strip(),
        bearer_token=parameters.bearer_token,
        param="input_image_url",
    )
    return (context.decoder.image(data, param="input_image_url"),)
