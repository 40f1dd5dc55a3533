"""Waiting for a job on behalf of a client that may leave."""

from __future__ import annotations

import re
import select
import socket
from typing import Any

from flask import Request, g

from flux_api.blueprints import Context
from flux_api.blueprints.access import CALLER
from flux_api.core import Failed, ImageRequest, ImageResult
from flux_api.errors import DeadlineExceeded, InvalidRequest
from flux_api.jobs import Job

POLL_SECONDS = 0.25
_JOB_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")


def caller_of(request: Request) -> str:
    """Whose turn it is in the queue: the request's key, where keys are needed, else the
    client's address after the trusted hops."""
    return owner_of(request) or request.remote_addr or ""


def owner_of(request: Request) -> str | None:
    """Whose jobs may be seen: with API keys those of the request's key, else all (the
    server's own ids cannot be guessed)."""
    holder: str | None = request.environ.get(CALLER)
    return holder


def job_id_of(request: Request, values: dict[str, Any]) -> str | None:
    """The id that the client chose (header ``X-Job-Id`` or field ``job_id``)."""
    chosen = request.headers.get("X-Job-Id") or values.get("job_id")
    if not chosen:
        return None
    if not isinstance(chosen, str) or not _JOB_ID.fullmatch(chosen):
        message = "Invalid 'job_id': expected 8 to 64 of A-Z, a-z, 0-9, '_' and '-'."
        raise InvalidRequest(message, param="job_id")
    return chosen


def submit(
    here: Context, request: Request, image_request: ImageRequest, values: dict[str, Any]
) -> Job:
    """The job of ``image_request`` for the client of ``request``."""
    job = here.manager.submit(
        image_request, caller=caller_of(request), job_id=job_id_of(request, values)
    )
    g.job = g.submitted = job
    return job


def release_job(_error: BaseException | None) -> None:
    """When the answer is out: an ended job keeps its story, not its pictures."""
    job: Job | None = g.pop("job", None)
    if job is not None and job.outcome is not None:
        job.release()


def wait_for(
    here: Context, request: Request, job: Job, *, spent: float = 0.0
) -> tuple[ImageResult, ...]:
    """The job's pictures, or its error raised; it is cancelled when the client leaves
    and ended by DeadlineExceeded after ``FLUX_REQUEST_TIMEOUT`` seconds, of which
    ``spent`` were over before it was submitted."""
    try:
        while (outcome := job.wait(POLL_SECONDS)) is None:
            if has_left(request):
                here.manager.cancel(job)
            elif job.age + spent > here.settings.request_timeout:
                here.manager.cancel(job, DeadlineExceeded("The request took too long."))
    finally:
        if job.outcome is None:
            here.manager.cancel(job)
    if isinstance(outcome, Failed):
        raise outcome.error
    return outcome.results


def has_left(request: Request) -> bool:
    """Whether the client has closed its side; only gunicorn and Werkzeug's server show
    their sockets."""
    connection = request.environ.get("gunicorn.socket") or request.environ.get(
        "werkzeug.socket"
    )
    if not isinstance(connection, socket.socket):
        return False
    try:
        # Not select(): it knows no descriptors from 1024 on.
        poll = select.poll()
        poll.register(connection, select.POLLIN | select.POLLHUP)
        return bool(poll.poll(0)) and connection.recv(1, socket.MSG_PEEK) == b""
    except (OSError, ValueError):
        return True


def job_headers(job: Job) -> dict[str, str]:
    """What every answer says of its job."""
    return {
        "X-Job-Id": job.id,
        "X-Flux-Model": job.request.model,
        "X-Flux-Seed": str(job.request.seed_of(0)),
        "X-Flux-Queue-Seconds": f"{job.queue_seconds:.3f}",
        "X-Flux-Run-Seconds": f"{job.run_seconds:.3f}",
    }
