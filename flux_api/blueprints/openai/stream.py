"""A job as OpenAI's stream of server-sent events."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

from flux_api.blueprints.openai.answers import size_of, usage_of
from flux_api.blueprints.openai.parameters import ImagesParameters
from flux_api.core import (
    Completed,
    Event,
    Failed,
    PartialImage,
    Progress,
    Queued,
    Started,
)
from flux_api.http.clients import follow
from flux_api.http.context import Context
from flux_api.http.error_handlers import error_object
from flux_api.http.pictures import encode_pictures, to_base64
from flux_api.http.sse import frame_comment, frame_event
from flux_api.images.codec import encode_image
from flux_api.queue.jobs import Job
from flux_api.queue.results import FinishedPicture

# A preview is looked at for a moment: some decoders take quadratic time over it.
_LARGEST_PREVIEW = (512, 512)
_PREVIEW_QUALITY = 75


def stream_events(
    context: Context,
    connection: socket.socket | None,
    job: Job,
    parameters: ImagesParameters,
    kind: str,
) -> Iterator[bytes]:
    """The stream's blocks as they happen, of ``kind`` generation or edit; it ends early
    when the client has left."""
    yield frame_comment(f"job {job.id}")
    for event in follow(job, connection):
        if event is None:
            yield frame_comment("waiting")
        elif isinstance(event, Completed):
            format_ = parameters.file_format, parameters.output_compression
            pictures = encode_pictures(job, event.results, *format_)
            context.results.keep(job, pictures)
            yield _render_completed(pictures[0], job, parameters, kind)
        else:
            yield _render_event(event, job, parameters, kind)


def _render_event(
    event: Event, job: Job, parameters: ImagesParameters, kind: str
) -> bytes:
    """One event of a job on the wire; what OpenAI has no event for is a comment."""
    if isinstance(event, Queued):
        return frame_comment(f"queued behind {event.position}")
    if isinstance(event, Started):
        return frame_comment("started")
    if isinstance(event, Progress):
        return frame_comment(f"step {event.step}/{event.total}")
    if isinstance(event, PartialImage):
        return _render_partial(event, job, parameters, kind)
    assert isinstance(event, Failed)
    # Flat error fields would be taken for an ordinary event by some clients.
    return frame_event("error", {"error": error_object(event.error)})


def _render_partial(
    event: PartialImage, job: Job, parameters: ImagesParameters, kind: str
) -> bytes:
    preview = event.image.copy()
    preview.thumbnail(_LARGEST_PREVIEW)
    quality = min(parameters.output_compression, _PREVIEW_QUALITY)
    encoded = encode_image(preview, parameters.file_format, quality)
    name = f"image_{kind}.partial_image"
    data = {"type": name, "b64_json": to_base64(encoded.data)} | _about(job, parameters)
    return frame_event(name, data | {"partial_image_index": event.number})


def _render_completed(
    picture: FinishedPicture, job: Job, parameters: ImagesParameters, kind: str
) -> bytes:
    usage = usage_of(job.request)
    usage.pop("output_tokens_details")
    name = f"image_{kind}.completed"
    data: dict[str, Any] = {"type": name, "b64_json": to_base64(picture.data)}
    data |= _about(job, parameters)
    data |= {"usage": usage, "seed": picture.facts["seed"]}
    # A stream's headers go out before its times are known.
    data["queue_seconds"] = round(job.queue_seconds, 3)
    data["run_seconds"] = round(job.run_seconds, 3)
    if "warning" in picture.facts:
        data["warning"] = picture.facts["warning"]
    if parameters.safety_identifier is not None:
        data["safety_identifier"] = parameters.safety_identifier
    return frame_event(name, data)


def _about(job: Job, parameters: ImagesParameters) -> dict[str, Any]:
    return {
        "created_at": int(time.time()),
        "size": size_of(job.request),
        "quality": parameters.echoed_quality,
        "background": "opaque",
        "output_format": parameters.file_format,
    }
