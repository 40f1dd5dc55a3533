"""Jobs from outside: how one is doing, its events as they happen, its end by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Annotated, Any

from flask import Blueprint, Response, jsonify, request
from pydantic import BeforeValidator, Field

from flux_api.core import (
    Completed,
    Failed,
    ImageDone,
    PartialImage,
    Progress,
    Queued,
    Started,
)
from flux_api.errors import JobNotFound
from flux_api.http.clients import (
    caller_of,
    client_of,
    follow_all,
    owner_of,
)
from flux_api.http.context import Context, get_context
from flux_api.http.fields import Fields
from flux_api.http.parameters import JOB_ID
from flux_api.http.pictures import to_base64, to_file
from flux_api.http.sse import HEADERS, MEDIA_TYPE, frame_comment, frame_event
from flux_api.http.values import Integer, refuse
from flux_api.images.codec import encode_image
from flux_api.images.previews import show_preview
from flux_api.queue.jobs import Job
from flux_api.queue.results import ResultStore

bp = Blueprint("jobs", __name__, url_prefix="/jobs")

ARRIVAL_SECONDS = 2.0
# gunicorn has threads to spare for these, see gunicorn.conf.py.
_arrivals = threading.BoundedSemaphore(4)
MOST_IDS = 100


def _read_ids(value: object) -> tuple[str, ...]:
    ids = [name.strip() for name in str(value).split(",") if name.strip()]
    if len(ids) > MOST_IDS or not all(JOB_ID.fullmatch(name) for name in ids):
        why = f"expected at most {MOST_IDS} ids of jobs, separated by commas"
        raise refuse("invalid_value", why)
    return tuple(dict.fromkeys(ids))


class ResultParameters(Fields):
    """Which picture of a job."""

    index: Annotated[int, Field(ge=0, le=9), Integer] = 0
    """Its number in the request."""


class ListParameters(Fields):
    """Which jobs."""

    limit: Annotated[int, Field(ge=1, le=1000), Integer] = 100
    """How many at most."""
    ids: Annotated[tuple[str, ...], BeforeValidator(_read_ids)] = ()
    """Only the jobs of these ids."""


@bp.get("")
def list_jobs() -> Response:
    """The caller's own jobs, the newest first."""
    parameters = ListParameters.read(request.args)
    if parameters.ids:
        jobs = _find_all(parameters.ids)[0]
    else:
        jobs = get_context().manager.jobs_of(caller_of(request))
    data = [describe(job) for job in jobs[: parameters.limit]]
    return jsonify(object="list", data=data)


@bp.get("/events")
def all_events() -> Response:
    """The events of several jobs as one ``text/event-stream``, each with its
    ``job_id``: those named by ``ids``, else the caller's own that have not ended."""
    context = get_context()
    ids = ListParameters.read(request.args).ids
    if ids:
        jobs, missing = _find_all(ids)
    else:
        own = context.manager.jobs_of(caller_of(request))
        jobs, missing = [job for job in own if job.outcome is None], []
    return _watched(context, _stream(context, jobs, missing, client_of(request)))


@bp.get("/<job_id>")
def show(job_id: str) -> Response:
    """The job's story so far; never its prompt."""
    return jsonify(describe(_find(job_id)))


@bp.delete("/<job_id>")
def cancel(job_id: str) -> Response:
    """Stop it within a step; an ended job stays as it ended."""
    job = _find(job_id)
    get_context().manager.cancel(job)
    return jsonify(describe(job))


@bp.get("/<job_id>/events")
def events(job_id: str) -> Response:
    """The job's events, past and to come, as ``text/event-stream``. A job that is not
    there yet is waited for a moment: its POST may be on its way."""
    context = get_context()
    job = _find_coming(job_id)
    return _watched(context, _stream(context, [job], [], client_of(request)))


@bp.get("/<job_id>/result")
def result(job_id: str) -> Response:
    """A finished picture as its file, with its facts in the headers; ``index`` counts
    the pictures of the request from 0."""
    job = _find(job_id)
    index = ResultParameters.read(request.args).index
    return to_file(get_context().results.find(job, index))


def describe(job: Job) -> dict[str, Any]:
    """The job as JSON."""
    story: dict[str, Any] = {
        "id": job.id,
        "state": job.state,
        "created_at": int(job.created_at),
    }
    if job.is_complete:
        story |= job.request.facts | {"images": job.request.num_images_per_prompt}
        # About: once it has begun, the pipeline counts them itself.
        story["steps"] = job.request.total_steps
    story["queue_seconds"] = round(job.queue_seconds, 3)
    story["run_seconds"] = round(job.run_seconds, 3)
    queued, progress = job.last(Queued), job.last(Progress)
    if job.state == "queued" and isinstance(queued, Queued):
        story["position"] = queued.position
    if isinstance(progress, Progress):
        story |= {"image": progress.index, "step": progress.step}
        story["steps"] = progress.total
    if urls := get_context().results.urls(job):
        story["urls"] = urls
    if job.is_complete and job.request.warnings:
        story["warning"] = " ".join(job.request.warnings)
    if isinstance(job.outcome, Failed):
        error = job.outcome.error
        story["error"] = {"message": error.message, "code": error.code}
    return story


def _find(job_id: str, seconds: float = 0.0) -> Job:
    return get_context().manager.find(job_id, owner=owner_of(request), seconds=seconds)


def _find_coming(job_id: str) -> Job:
    """As :func:`_find`, after a moment where need be. Few wait at a time, and they take
    no watcher's place: ids that never come cost nobody else anything."""
    try:
        return _find(job_id)
    except JobNotFound:
        if not _arrivals.acquire(blocking=False):
            raise
    try:
        return _find(job_id, ARRIVAL_SECONDS)
    finally:
        _arrivals.release()


def _find_all(ids: tuple[str, ...]) -> tuple[list[Job], list[str]]:
    """The jobs of these names, and the names of which there is none."""
    found, missing = [], []
    for job_id in ids:
        try:
            found.append(_find(job_id))
        except JobNotFound:
            missing.append(job_id)
    return found, missing


def _watched(context: Context, stream: Iterator[bytes]) -> Response:
    """``stream`` as an answer that takes the place of a watcher."""
    leave = context.watchers.enter(caller_of(request))
    response = Response(stream, mimetype=MEDIA_TYPE, headers=HEADERS)
    response.call_on_close(leave)
    return response


def _stream(
    context: Context,
    jobs: list[Job],
    missing: list[str],
    client: Callable[[], bool],
) -> Iterator[bytes]:
    yield frame_comment("watching")
    gone = {"message": "There is no such job.", "code": JobNotFound.code}
    for job_id in missing:
        yield frame_event("failed", {"type": "failed", "job_id": job_id, "error": gone})
    for found in follow_all(jobs, client):
        if found is None:
            yield frame_comment("keep-alive")
        else:
            job, event = found
            # Its last step has said so.
            if isinstance(event, ImageDone):
                continue
            name, data = _describe_event(event, job, context.results)
            yield frame_event(name, {"type": name, "job_id": job.id} | data)


def _describe_event(
    event: Queued | Started | Progress | PartialImage | Completed | Failed,
    job: Job,
    results: ResultStore,
) -> tuple[str, dict[str, Any]]:
    match event:
        case Queued(position):
            return "queued", {"position": position}
        case Started():
            return "started", {}
        case Progress(index, step, total):
            return "step", {"image": index, "step": step, "steps": total}
        case PartialImage(index, number, preview):
            # Looked at for a moment, and sent to each who watches.
            encoded = encode_image(show_preview(preview), "webp", 80)
            return "partial_image", {
                "image": index,
                "partial_image_index": number,
                "media_type": encoded.media_type,
                "b64_json": to_base64(encoded.data),
            }
        case Completed():
            urls = results.urls(job)
            return "done", {"urls": urls} if urls else {}
        case Failed(error):
            name = "cancelled" if error.status == 499 else "failed"
            return name, {"error": {"message": error.message, "code": error.code}}
