"""The routes of AUTOMATIC1111's API that Open WebUI, SillyTavern and Krita call."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from flask import Blueprint, Flask, Response, abort, current_app, jsonify, request

from flux_api.blueprints.a1111.answers import describe, describe_progress, render
from flux_api.blueprints.a1111.options import LISTS, Choices, describe_options
from flux_api.blueprints.a1111.parameters import (
    A1111Parameters,
    OptionsParameters,
    PictureParameters,
    ignored,
    read_parameters,
)
from flux_api.blueprints.accepted import accept, check_async
from flux_api.blueprints.capabilities import list_lora_names
from flux_api.core import ImageRequest, Mode
from flux_api.errors import InvalidRequest, missing_parameter
from flux_api.http.bodies import Body, read_body
from flux_api.http.clients import (
    caller_of,
    chosen_job_id,
    client_of,
    open_job,
    wait_for,
)
from flux_api.http.context import Context, get_context
from flux_api.http.dry_run import stop_dry_run
from flux_api.http.idempotency import deliver, read_new_body
from flux_api.http.inputs import decode_text, read_inputs
from flux_api.http.model_defaults import Inputs, check_size, complete
from flux_api.http.next_instance import ask_next
from flux_api.http.pictures import encode_pictures
from flux_api.images.file_notes import texts_of
from flux_api.models.info import ModelInfo
from flux_api.queue.jobs import Job

bp = Blueprint("a1111", __name__, url_prefix="/sdapi/v1")
queue = Blueprint("a1111_queue", __name__)

DIALECT = "a1111"


def register(app: Flask) -> None:
    """Give ``app`` the routes."""
    app.extensions[DIALECT] = Choices()
    app.register_blueprint(bp)
    app.register_blueprint(queue)


@bp.post("/txt2img")
def txt2img() -> Response:
    """Pictures from a prompt."""
    return _answer("txt2img")


@bp.post("/img2img")
def img2img() -> Response:
    """Pictures from a picture, perhaps within a mask."""
    return _answer("img2img")


@bp.get("/progress")
def progress() -> Response:
    """How the caller's newest request on this API is doing."""
    job = next(iter(_living()), None)
    response = jsonify(describe_progress(job))
    # No id says which of several instances it went to.
    return ask_next(response) if job is None else response


@bp.post("/interrupt")
def interrupt() -> Response:
    """Stop the caller's own requests on this API before their next step."""
    for job in _living():
        get_context().manager.cancel(job)
    return ask_next(jsonify({}))


@bp.get("/options")
def options() -> Response:
    """The caller's options."""
    context = get_context()
    return jsonify(describe_options(_chosen() or context.settings.model))


@bp.post("/options")
def set_options() -> Response:
    """Choose the model of the caller's next requests; other options stay as they
    are."""
    context, values = get_context(), read_body(request).values
    name = OptionsParameters.read(values).sd_model_checkpoint
    known = describe_options(_chosen() or context.settings.model)
    for option, value in values.items():
        # Some clients send back all that they were told.
        if option != "sd_model_checkpoint" and value != known.get(option, ...):
            message = f"The option '{option[:64]}' cannot be set."
            raise InvalidRequest(message, param=option[:64])
    if name is not None:
        _choices().choose(caller_of(request), _find_model(context, name))
    # Whichever of several instances draws next is to know it.
    return ask_next(jsonify({}))


@bp.get("/sd-models")
def sd_models() -> Response:
    """The models that can be chosen."""
    names = get_context().models
    other = {"hash": None, "sha256": None, "config": None}
    return jsonify(
        [{"title": n, "model_name": n, "filename": n} | other for n in names]
    )


@bp.get("/loras")
def loras() -> Response:
    """The LoRAs that a prompt may name as ``<lora:name:weight>``."""
    context = get_context()
    models = (None, _chosen() or context.settings.model)
    known = list_lora_names(context)
    names = [str(lora["id"]) for lora in known if lora["model"] in models]
    return jsonify([{"name": n, "alias": n, "path": n, "metadata": {}} for n in names])


@bp.get("/<name>")
def listed(name: str) -> Response:
    """Samplers and other lists, which are short or empty."""
    if name not in LISTS:
        abort(404)
    return jsonify(LISTS[name])


@bp.post("/png-info")
def png_info() -> Response:
    """The text that a PNG file has of its making."""
    context = get_context()
    image = PictureParameters.read(read_body(request).values).image
    if image is None:
        raise missing_parameter("image")
    data = decode_text(image, param="image")
    caller, is_here = caller_of(request), client_of(request)
    with context.manager.hold_place(caller), context.decodes.hold(caller, is_here):
        texts = texts_of(context.decoder, data, param="image")
    return jsonify(info=texts.get("parameters", ""), items=texts, parameters={})


@queue.get("/queue/status")
def queue_status() -> Response:
    """How many requests wait: by this Krita sees that the server is there."""
    manager = get_context().manager
    return jsonify(msg="estimation", queue_size=manager.queue_depth)


def _answer(operation: Literal["txt2img", "img2img"]) -> Response:
    context = get_context()
    body = read_new_body()
    began = time.monotonic()
    check_async(context)
    parameters = read_parameters(body.values | chosen_job_id(request))
    name = _find_model(context, parameters.checkpoint or _chosen())
    check_size(context.models[name], parameters)
    with open_job(context, request, parameters.own_job_id) as job:
        job.dialect = DIALECT
        inputs = read_inputs(context, job, body, context.models[name])
        _check_pictures(operation, inputs)
        image_request = _complete(context, name, parameters, inputs, body)
        stop_dry_run(context, job, image_request, parameters)
        context.manager.submit(job, image_request)
    info = describe(context, image_request, parameters)
    del body, inputs, image_request  # Not to be held while the job waits.
    encode = partial(encode_pictures, context, job, parameters)
    if job.outlives_clients:
        return accept(context, job, encode)
    pictures = encode(wait_for(context, job, began=began))
    return deliver(context, job, pictures, partial(render, info))


def _check_pictures(operation: str, inputs: Inputs) -> None:
    if operation == "img2img" and not inputs.images:
        raise missing_parameter("init_images")
    if operation == "txt2img" and inputs.images:
        message = "txt2img takes no picture: use img2img."
        raise InvalidRequest(message, param="init_images")


def _complete(
    context: Context,
    name: str,
    parameters: A1111Parameters,
    inputs: Inputs,
    body: Body,
) -> ImageRequest:
    """The request, without what clients send and the model does not take."""
    model = context.models[name]
    mode = _choose_mode(model, parameters, inputs)
    task = model.task(mode, masked=inputs.mask_image is not None)
    notes = [*inputs.warnings, *ignored(body.values)]
    changes: dict[str, Any] = {}
    if parameters.negative_prompt and not task.negative_prompt:
        changes["negative_prompt"] = None
        notes.append("This model takes no negative prompt; it was ignored.")
    if parameters.guidance_scale is not None and task.guidance_parameter is None:
        changes["guidance_scale"] = None
        notes.append("This model is distilled: its guidance was ignored.")
    # Where the model has no strength, there is nothing for it to say.
    if parameters.denoising_strength is not None and task.strength is not None:
        changes["strength"] = parameters.denoising_strength
    mask = inputs.mask_image
    if mask is not None and parameters.inpainting_mask_invert:
        mask = context.decoder.keep(mask.point(range(255, -1, -1)))
        notes = [note.replace("its white area", "its black area") for note in notes]
    inputs = replace(inputs, mask_image=mask, warnings=tuple(notes))
    changed = parameters.model_copy(update=changes)
    return complete(context, name, mode, changed, inputs)


def _choose_mode(model: ModelInfo, parameters: A1111Parameters, inputs: Inputs) -> Mode:
    """Image to image as there, a prompt that describes and a strength, where the model
    has that; else an edit as the prompt says."""
    if not inputs.images:
        if parameters.prompt is None:
            raise missing_parameter("prompt")
        return "generate"
    if inputs.mask_image is not None:
        return "edit"
    variation = model.tasks.get("variation")
    has_strength = variation is not None and variation.strength is not None
    return "variation" if has_strength or not parameters.prompt else "edit"


def _choices() -> Choices:
    found: Choices = current_app.extensions[DIALECT]
    return found


def _chosen() -> str | None:
    return _choices().of(caller_of(request))


def _find_model(context: Context, name: str | None) -> str:
    """The set of that title; what is none is told, as clients choose from a list."""
    if name is not None and name not in context.models:
        known = ", ".join(context.models)
        message = f"There is no model {name[:64]!r}: choose one of {known}."
        raise InvalidRequest(message, param="sd_model_checkpoint")
    return context.find_model(name)


def _living() -> list[Job]:
    jobs = get_context().manager.jobs_of(caller_of(request))
    return [job for job in jobs if job.dialect == DIALECT and job.outcome is None]
