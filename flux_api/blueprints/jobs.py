"""Jobs from outside: how one is doing, its events as they happen, its end by hand."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Annotated, Any

from flask import Blueprint, Response, jsonify, request
from pydantic import Field

from flux_api.core import (
    Completed,
    Event,
    Failed,
    PartialImage,
    Progress,
    Queued,
    Started,
)
from flux_api.errors import JobNotFound, QueueFull
from flux_api.http.body_stream import connection_of
from flux_api.http.clients import follow, owner_of
from flux_api.http.context import get_context
from flux_api.http.parameters import Fields, Integer
from flux_api.http.pictures import DELIVERY_SECONDS, to_base64, to_file
from flux_api.http.sse import HEADERS, MEDIA_TYPE, frame_comment, frame_event
from flux_api.images.codec import encode_image
from flux_api.queue.jobs import Job
from flux_api.queue.results import ResultStore

bp = Blueprint("jobs", __name__, url_prefix="/jobs")

ARRIVAL_SECONDS = 2.0
# gunicorn has threads to spare for these, see gunicorn.conf.py.
_arrivals = threading.BoundedSemaphore(4)


class ResultParameters(Fields):
    """Which picture of a job."""

    index: Annotated[int, Field(ge=0, le=9), Integer] = 0
    """Its number in the request."""


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
    if not context.watchers.acquire(blocking=False):
        message = "Too many connections watch jobs."
        raise QueueFull(message, retry_after=5, code="too_many_watchers")
    try:
        connection = connection_of(request.environ)
        events = _stream(context.results, job, connection)
        response = Response(events, mimetype=MEDIA_TYPE, headers=HEADERS)
    except BaseException:
        context.watchers.release()
        raise
    response.call_on_close(context.watchers.release)
    return response


@bp.get("/<job_id>/result")
def result(job_id: str) -> Response:
    """A finished picture as its file, with its facts in the headers; ``index`` counts
    the pictures of the request from 0."""
    job = _find(job_id)
    index = ResultParameters.read(request.args).index
    picture = get_context().results.find(job, index)
    response = to_file(picture)
    response.headers["Cache-Control"] = "no-store"
    return response


def describe(job: Job) -> dict[str, Any]:
    """The job as JSON."""
    story: dict[str, Any] = {
        "id": job.id,
        "state": job.state,
        "created_at": int(job.created_at),
    }
    if job.is_complete:
        image_request = job.request
        story |= {
            "mode": image_request.mode,
            "model": image_request.model,
            "width": image_request.width,
            "height": image_request.height,
            "seed": image_request.seed_of(0),
            "images": image_request.num_images_per_prompt,
        }
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


def _stream(
    results: ResultStore, job: Job, connection: socket.socket | None
) -> Iterator[bytes]:
    yield frame_comment("watching")
    for event in follow(job, connection):
        if event is None:
            yield frame_comment("keep-alive")
        else:
            name, data = _describe_event(event, job, results)
            yield frame_event(name, {"type": name} | data)


def _describe_event(
    event: Event, job: Job, results: ResultStore
) -> tuple[str, dict[str, Any]]:
    match event:
        case Queued(position):
            return "queued", {"position": position}
        case Started():
            return "started", {}
        case Progress(index, step, total):
            return "step", {"image": index, "step": step, "steps": total}
        case PartialImage(index, number, image):
            encoded = encode_image(image, "webp", 80)
            return "partial_image", {
                "image": index,
                "partial_image_index": number,
                "media_type": encoded.media_type,
                "b64_json": to_base64(encoded.data),
            }
        case Completed():
            # The picture is told to be there when it can be fetched.
            job.wait_delivery(DELIVERY_SECONDS)
            urls = results.urls(job)
            return "done", {"urls": urls} if urls else {}
        case Failed(error):
            name = "cancelled" if error.status == 499 else "failed"
            return name, {"error": {"message": error.message, "code": error.code}}
