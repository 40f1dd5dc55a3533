"""The tools: what each is called with, and what it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from flask import Response, request

from flux_api.blueprints.accepted import check_async, check_kept, finish_later
from flux_api.blueprints.capabilities import describe_capabilities
from flux_api.blueprints.description.request_bodies import (
    PICTURE,
    PICTURES,
    properties_of,
)
from flux_api.blueprints.jobs import describe
from flux_api.blueprints.mcp.parameters import Arguments, JobParameters, ToolParameters
from flux_api.blueprints.mcp.results import (
    encode,
    find_pictures,
    to_facts,
    to_pictures,
)
from flux_api.core import Mode
from flux_api.errors import InvalidRequest
from flux_api.http.bodies import Body
from flux_api.http.clients import chosen_job_id, open_job, owner_of, wait_for
from flux_api.http.context import Context
from flux_api.http.dry_run import give_plan
from flux_api.http.fields import Fields
from flux_api.http.idempotency import deliver, keep_answer
from flux_api.http.inputs import read_inputs
from flux_api.http.model_defaults import check_size, complete

_MASK = PICTURE | {
    "description": "One picture, sent as image is; what is transparent, or white "
    "where nothing is, is painted anew."
}
# An agent gets one answer: there is nobody to show previews to.
_UNTOLD = ("partial_images",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool: ``call`` it with its arguments, of which those of ``required`` have to be
    there."""

    title: str
    description: str
    call: Callable[[Context, dict[str, Any], float], Response]
    properties: Mapping[str, Any]
    required: tuple[str, ...] = ()
    reads_only: bool = False

    def describe(self, name: str) -> dict[str, Any]:
        """What ``tools/list`` tells of it."""
        return {
            "name": name,
            "title": self.title,
            "description": self.description,
            "inputSchema": {
                "type": "object",
                "properties": dict(self.properties),
                "required": list(self.required),
            },
            "annotations": {"readOnlyHint": self.reads_only},
        }


def _make(
    mode: Mode, context: Context, arguments: dict[str, Any], began: float
) -> Response:
    parameters = ToolParameters.read(arguments | chosen_job_id(request))
    name = context.find_model(parameters.model)
    model = context.models[name]
    check_size(model, parameters)
    _check_promises(context, parameters)
    with open_job(context, request, parameters.own_job_id) as job:
        inputs = read_inputs(context, job, Body(arguments, []), model)
        if mode == "generate" and inputs.images:
            message = "generate_image takes no picture: use edit_image or vary_image."
            raise InvalidRequest(message, param="image")
        image_request = complete(context, name, mode, parameters, inputs)
        if parameters.dry_run:
            return to_facts(give_plan(context, job, image_request, parameters))
        if not parameters.wait:
            job.outlive_clients()
        context.manager.submit(job, image_request)
    # Pictures as text are not to be held while the job waits.
    arguments.clear()
    del image_request, inputs
    finish = partial(encode, context, job, parameters)
    if job.outlives_clients:
        finish_later(context, job, finish)
        return keep_answer(context, lambda: to_facts(describe(job)))
    pictures = finish(wait_for(context, job, began=began))
    render = partial(to_pictures, job, parameters.result)
    return deliver(context, job, pictures, render)


def _check_promises(context: Context, parameters: ToolParameters) -> None:
    """InvalidRequest where the answer would be a way to pictures that nobody keeps."""
    check_async(context)
    if not parameters.wait:
        check_kept(context, "leave 'wait' out", "wait")
    if parameters.result == "link" and context.file_server is None:
        check_kept(context, "ask for the result 'image'", "result")


def _list_models(
    context: Context, arguments: dict[str, Any], _began: float
) -> Response:
    known = describe_capabilities(context)
    wanted = ("default_model", "models", "loras", "formats", "limits")
    notes = Arguments.read(arguments).notes
    return to_facts({name: known[name] for name in wanted}, notes)


def _job_status(context: Context, arguments: dict[str, Any], _began: float) -> Response:
    parameters = JobParameters.read(arguments)
    job = context.manager.find(parameters.job_id, owner=owner_of(request))
    pictures = find_pictures(context, job)
    if pictures is None:
        return to_facts(describe(job), parameters.notes)
    return to_pictures(job, parameters.result, pictures, parameters.notes)


def _cancel_job(context: Context, arguments: dict[str, Any], _began: float) -> Response:
    parameters = JobParameters.read(arguments)
    job = context.manager.find(parameters.job_id, owner=owner_of(request))
    context.manager.cancel(job)
    return to_facts(describe(job), parameters.notes)


def _properties(kind: type[Fields], **pictures: Mapping[str, Any]) -> dict[str, Any]:
    told = {n: schema for n, schema in properties_of(kind).items() if n not in _UNTOLD}
    return told | pictures


_JOB = _properties(JobParameters)

TOOLS: Mapping[str, Tool] = {
    "generate_image": Tool(
        title="Generate a picture",
        description="Draws pictures from a prompt with a FLUX model.",
        call=partial(_make, "generate"),
        properties=_properties(ToolParameters),
        required=("prompt",),
    ),
    "edit_image": Tool(
        title="Edit a picture",
        description="Changes a picture as a prompt says, perhaps within a mask only.",
        call=partial(_make, "edit"),
        properties=_properties(ToolParameters, image=PICTURES, mask=_MASK),
        required=("prompt", "image"),
    ),
    "vary_image": Tool(
        title="Vary a picture",
        description="Draws pictures like a picture; a prompt may guide it.",
        call=partial(_make, "variation"),
        properties=_properties(ToolParameters, image=PICTURES),
        required=("image",),
    ),
    "list_models": Tool(
        title="List models",
        description="The models with their tasks and sizes, LoRAs, formats and limits.",
        call=_list_models,
        properties={},
        reads_only=True,
    ),
    "job_status": Tool(
        title="Look at a job",
        description="How a job is, and its pictures once they are made.",
        call=_job_status,
        properties=_JOB,
        required=("job_id",),
        reads_only=True,
    ),
    "cancel_job": Tool(
        title="Cancel a job",
        description="Stops a job before its next step.",
        call=_cancel_job,
        properties={"job_id": _JOB["job_id"]},
        required=("job_id",),
    ),
}
