"""OpenAI's Images API: generations, edits, variations, and the list of models."""

from __future__ import annotations

import re
import time
from dataclasses import asdict
from functools import partial
from typing import Any

from flask import Blueprint, Flask, Response, jsonify, request

from flux_api.blueprints.accepted import accept, check_async
from flux_api.blueprints.openai.answers import (
    finish_pictures,
    render_file,
    render_response,
)
from flux_api.blueprints.openai.requests import (
    Operation,
    accepted_picture,
    parse_request,
    read_parameters,
)
from flux_api.blueprints.openai.stream import Stream
from flux_api.http.clients import open_job, wait_for
from flux_api.http.context import get_context
from flux_api.http.dry_run import stop_dry_run
from flux_api.http.idempotency import keep_answer, read_new_body
from flux_api.models.hub_lock import locked_commit
from flux_api.models.info import unknown_model
from flux_api.models.known_words import known_words
from flux_api.models.lora_files import describe_lora
from flux_api.models.sources import Repository

bp = Blueprint("openai", __name__)
azure = Blueprint("azure", __name__, url_prefix="/openai")

PREFIXES = {"openai": "/v1", "openai_bare": "", "azure_v1": "/openai/v1"}
"""Clients differ in what they take for the base URL."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")


def register(app: Flask) -> None:
    """Give ``app`` the routes, with and without ``/v1``, and in Azure's form."""
    for name, prefix in PREFIXES.items():
        app.register_blueprint(bp, name=name, url_prefix=prefix)
    app.register_blueprint(azure)


@bp.post("/images/generations")
@azure.post("/deployments/<path:deployment>/images/generations")
def generations(deployment: str | None = None) -> Response:
    """Pictures from a prompt."""
    return _answer("generation", deployment)


@bp.post("/images/edits")
@azure.post("/deployments/<path:deployment>/images/edits")
def edits(deployment: str | None = None) -> Response:
    """Pictures from input pictures and a prompt, perhaps within a mask."""
    return _answer("edit", deployment)


@bp.post("/images/variations")
def variations() -> Response:
    """Pictures like the input picture."""
    return _answer("variation")


@bp.post("/images/upscale")
def upscale() -> Response:
    """A picture made 2 or 4 times as large, with detail drawn by the model."""
    return _answer("upscale")


@bp.get("/models")
@azure.get("/models")
def models() -> Response:
    """The models that can be asked for."""
    return jsonify(object="list", data=[_model(name) for name in get_context().models])


@bp.get("/models/<path:name>")
@azure.get("/models/<path:name>")
def model(name: str) -> Response:
    """The model that POST takes for this name, as its ``root``, with the words that a
    small model knows; ModelNotFound where there is none."""
    if not _NAME.fullmatch(name):
        raise unknown_model(name, get_context().models)
    context = get_context()
    root = context.find_model(name)
    about = _model(root) | {"id": name}
    if words := known_words(context.models[root].base_model):
        about["known_words"] = words
    return jsonify(about)


def _model(name: str) -> dict[str, Any]:
    source = get_context().models[name].base_model
    owner = "flux-imaging-api" if name == "tiny" else "black-forest-labs"
    about = {"id": name, "object": "model", "created": 0, "owned_by": owner}
    if isinstance(source, Repository):
        about["revision"] = locked_commit(source) or source.revision
    # For a file, what it is taken to be and why.
    description = get_context().models[name].description
    return about | {"root": name, "description": description}


def _answer(operation: Operation, deployment: str | None = None) -> Response:
    context = get_context()
    body = read_new_body()
    began = time.monotonic()
    check_async(context)
    parameters = read_parameters(request, body, operation, deployment)
    with open_job(context, request, parameters.own_job_id) as job:
        image_request = parse_request(context, job, body, operation, parameters)
        stop_dry_run(context, job, image_request, parameters)
        context.manager.submit(job, image_request)
    del body, image_request  # Not to be held while the job waits.
    if job.outlives_clients:
        finish = partial(finish_pictures, context, job, parameters)
        return accept(context, job, lambda results: finish(results)[0])
    if parameters.stream:
        stream = Stream(context, job, parameters, operation)
        return keep_answer(context, stream.response)
    results = wait_for(context, job, began=began)
    if accepted_picture(request):
        return render_file(context, job, parameters, results)
    return render_response(context, job, parameters, results, began=began)


@bp.get("/loras")
def list_loras() -> Response:
    """The LoRAs that a request may name: those of the models, and the files of
    FLUX_LORA_DIR with what they say of themselves."""
    context = get_context()
    data: list[dict[str, Any]] = [
        {"id": name, "object": "lora", "model": model}
        for model, info in context.models.items()
        for name in info.lora_files
    ]
    for name, path in sorted(context.lora_files.items()):
        facts = asdict(describe_lora(path))
        data.append({"id": name, "object": "lora", "model": None, **facts})
    return jsonify(object="list", data=data)
