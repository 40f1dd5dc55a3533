"""Black Forest Labs' API: a request at a model's address, its result at another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from flask import Blueprint, Flask, Response, jsonify, request
from werkzeug.routing import BaseConverter

from flux_api.blueprints.accepted import check_kept, finish_later
from flux_api.blueprints.bfl.answers import BflJob
from flux_api.blueprints.bfl.parameters import (
    BflParameters,
    ResultParameters,
    in_order,
    read_parameters,
)
from flux_api.core import ImageRequest, ImageResult
from flux_api.errors import JobNotFound
from flux_api.http.bodies import Body
from flux_api.http.body_text import PICTURE_FIELD
from flux_api.http.clients import chosen_job_id, open_job, owner_of
from flux_api.http.context import Context, get_context
from flux_api.http.dry_run import stop_dry_run
from flux_api.http.idempotency import keep_answer, read_new_body
from flux_api.http.inputs import read_inputs
from flux_api.http.model_defaults import check_size, choose_mode, complete
from flux_api.http.pictures import encode_pictures, to_file
from flux_api.models.hosted import find_hosted
from flux_api.queue.jobs import Job
from flux_api.queue.results import FinishedPicture

bp = Blueprint("bfl", __name__)
# A blueprint of this name needs no key: who knows a random id was told it.
samples = Blueprint("bfl_samples", __name__)

DIALECT = "bfl"


class HostedName(BaseConverter):
    """A hosted model's name, known or not: no other address of ours begins so."""

    regex = r"flux-[A-Za-z0-9._-]{1,59}"


def register(app: Flask) -> None:
    """Give ``app`` the routes."""
    app.url_map.converters["hosted"] = HostedName
    app.register_blueprint(bp)
    app.register_blueprint(samples)


@bp.post("/v1/<hosted:hosted>")
def begin(hosted: str) -> Response:
    """A picture by a hosted model's name: its id, and where its result is asked for."""
    context = get_context()
    body = in_order(read_new_body())
    parameters = read_parameters(body.values | chosen_job_id(request))
    check_kept(context, "use /v1/images/generations")
    if parameters.webhook_url:
        context.webhooks.check(parameters.webhook_url)
    name = _find_model(context, hosted, parameters)
    # No id of the caller's: who knows it can have the picture without a key.
    with open_job(context, request, None) as job:
        job.dialect = DIALECT
        image_request = _read_request(context, job, body, name, parameters)
        stop_dry_run(context, job, image_request, parameters)
        bfl_job = BflJob(job, context.results, request.host_url.rstrip("/"))
        with _promise(context, bfl_job, parameters) as tell:
            job.outlive_clients()
            context.manager.submit(job, image_request)
            # With the prompt, which the job forgets at its end and the result tells.
            finish = partial(_finish, context, job, parameters, image_request.prompt)
            finish_later(context, job, finish, tell)
    return keep_answer(context, partial(_render, bfl_job, name, parameters))


@bp.get("/v1/get_result")
def get_result() -> Response:
    """How a request is, and where its picture is when it is ready."""
    context = get_context()
    wanted = ResultParameters.read(request.args).id
    job = _own(context.manager.find(wanted, owner=owner_of(request)))
    bfl_job = BflJob(job, context.results, request.host_url.rstrip("/"))
    return jsonify(bfl_job.describe())


@samples.get("/v1/samples/<task_id>")
def sample(task_id: str) -> Response:
    """The picture of a request as its file. No key is needed: the id is 128 random
    bits."""
    context = get_context()
    return to_file(context.results.find(_own(context.manager.find(task_id)), 0))


def _own(job: Job) -> Job:
    """``job`` where it came through this API: others may have ids that can be
    guessed."""
    if job.dialect != DIALECT:
        raise JobNotFound("There is no such job.", param="id")
    return job


def _find_model(context: Context, hosted: str, parameters: BflParameters) -> str:
    """The set to use: that of the field ``model``, which the hosted API has not, else
    what ``hosted`` means."""
    own = dict(context.settings.bfl_models)
    meant = find_hosted(hosted, context.models, context.settings.model, own)
    return context.find_model(parameters.model or meant)


def _read_request(
    context: Context, job: Job, body: Body, name: str, parameters: BflParameters
) -> ImageRequest:
    model = context.models[name]
    check_size(model, parameters)
    inputs = read_inputs(context, job, body, model)
    mode = choose_mode(parameters.prompt, inputs.images, parameters.notes)
    if inputs.images and _pictures_of(body) == {"image_prompt"}:
        mode = "variation"  # It guides, and is not to be changed.
    task = model.task(mode, masked=inputs.mask_image is not None)
    if parameters.guidance_scale is not None and task.guidance_parameter is None:
        # Some clients always send one.
        parameters = parameters.model_copy(update={"guidance_scale": None})
        note = "This model is distilled: 'guidance' was ignored."
        inputs = replace(inputs, warnings=(*inputs.warnings, note))
    return complete(context, name, mode, parameters, inputs)


def _pictures_of(body: Body) -> set[str]:
    """The names under which pictures came."""
    return {
        name for name, value in body.parts if value and PICTURE_FIELD.fullmatch(name)
    }


@contextmanager
def _promise(
    context: Context, bfl_job: BflJob, parameters: BflParameters
) -> Iterator[Callable[[], None]]:
    """What to call when the job has ended. Where the block fails, it never began."""
    if not parameters.webhook_url:
        yield lambda: None
        return
    promise = context.webhooks.promise(
        parameters.webhook_url, parameters.webhook_secret, bfl_job.last_words()
    )
    try:
        yield lambda: promise.keep(bfl_job.webhook_body())
    except BaseException:
        promise.withdraw()
        raise


def _finish(
    context: Context,
    job: Job,
    parameters: BflParameters,
    prompt: str,
    results: tuple[ImageResult, ...],
) -> list[FinishedPicture]:
    return [
        # The hosted API tells the prompt with the result; the job forgets it.
        replace(picture, facts={**picture.facts, "prompt": prompt})
        for picture in encode_pictures(context, job, parameters, results)
    ]


def _render(bfl_job: BflJob, name: str, parameters: BflParameters) -> Response:
    answer: dict[str, Any] = {"id": bfl_job.job.id, "polling_url": bfl_job.polling_url}
    answer["model"] = name
    if parameters.webhook_url:
        answer |= {"status": "Pending", "webhook_url": parameters.webhook_url}
    return jsonify(answer)
