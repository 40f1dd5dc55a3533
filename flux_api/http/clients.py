"""Waiting for a job on behalf of a client that may leave."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from ipaddress import IPv6Network, ip_address

from flask import Request, Response, g, request

from flux_api.core import Completed, Event, Failed, ImageResult
from flux_api.errors import DeadlineExceeded, FluxError
from flux_api.http.access import CALLER
from flux_api.http.context import Context, get_context
from flux_api.http.kept_answers import KEPT_SECONDS
from flux_api.queue.jobs import Job
from flux_server.incoming import connection_of
from flux_server.trace import traceparent_of

POLL_SECONDS = 0.25
ALL_POLL_SECONDS = 0.1
# Its end wakes who waits for a job; in between its client is looked for. A thousand may
# wait, so not as often as where each event is sent on.
WAIT_SECONDS = 1.0
# nginx takes a connection for dead that is silent for a minute, and others sooner.
KEEP_ALIVE_SECONDS = 10.0
# What storing pictures may add to a request's own time, which has a deadline.
DELIVERY_SECONDS = 8.0
# Linux tells of a closed connection even behind bytes that nobody has read.
_HANGUP: int = getattr(select, "POLLRDHUP", 0)


def caller_of(request: Request) -> str:
    """Whose turn it is in the queue: the request's key, where keys are needed, else the
    client's address after the trusted hops."""
    return owner_of(request) or _network_of(request.remote_addr or "")


def _network_of(address: str) -> str:
    """``address``, or its /64 network: one IPv6 client has as many addresses as it
    likes there."""
    try:
        known = ip_address(address)
    except ValueError:
        return address
    if known.version == 4:
        return address
    return str(known.ipv4_mapped or IPv6Network((known, 64), strict=False))


def owner_of(request: Request) -> str | None:
    """Owner for access checks: the key's name, or None without API keys, where whoever
    knows a job's id may see it (the server's own cannot be guessed)."""
    holder: str | None = request.environ.get(CALLER)
    return holder


def chosen_job_id(request: Request) -> dict[str, str]:
    """The header ``X-Job-Id`` as the field ``job_id``, over which it wins."""
    chosen = request.headers.get("X-Job-Id")
    return {"job_id": chosen} if chosen else {}


def prefers_async(request: Request) -> bool:
    """Whether the client wants to be told at once where its job can be found."""
    preferences = request.headers.get("Prefer", "").lower().split(",")
    return "respond-async" in [word.partition(";")[0].strip() for word in preferences]


def client_of(request: Request) -> Callable[[], bool]:
    """Whether the client of ``request`` is still there: one function a request, by
    which a job knows the client again."""
    if "is_here" not in g:
        g.is_here = partial(is_here, connection_of(request.environ))
    found: Callable[[], bool] = g.is_here
    return found


@contextmanager
def open_job(context: Context, request: Request, job_id: str | None) -> Iterator[Job]:
    """A job for the client of ``request`` that holds a place in the queue while the
    block reads the rest of the request, and fails with the block. It stops once that
    client has left, unless that prefers not to wait at all."""
    job = context.manager.open(
        caller=caller_of(request),
        owner=owner_of(request),
        job_id=job_id or context.new_job_id(),
        is_wanted=client_of(request),
    )
    g.job, job.traceparent = job, traceparent_of(request.environ)
    if entry := g.get("idempotency"):
        entry.job = job  # Requests with the same key wait for it.
        job.kept_seconds = KEPT_SECONDS
    if prefers_async(request):
        # Before it can be found that its client has left.
        job.outlive_clients()
    try:
        yield job
    except BaseException as error:
        if isinstance(error, FluxError):
            context.manager.cancel(job, error)
        else:
            context.manager.cancel(job)
            if entry is not None:
                entry.job = None  # Nobody has stopped it: the next one begins anew.
        job.need_clients()
        raise


def tell_of_job(response: Response) -> Response:
    """Let every answer tell of its job, the failures too, and end with it."""
    if job := g.get("job"):
        response.headers.update(_job_headers(job))
        end = partial(leave, get_context(), job, client_of(request))
        response.call_on_close(end)
    return response


def leave(context: Context, job: Job, client: Callable[[], bool]) -> None:
    """When its answer is out or the client gone. Once nobody waits for ``job`` any more
    it keeps its story, not its pictures."""
    if not job.leave(client):
        return
    if job.outcome is None and not context.manager.cancel_unwanted(job):
        return  # Another client has just joined.
    job.release()


def wait_for(context: Context, job: Job, *, began: float) -> tuple[ImageResult, ...]:
    """The job's pictures, or its error raised; it is cancelled when every client has
    left and ended by DeadlineExceeded ``FLUX_REQUEST_TIMEOUT`` seconds after the
    request was there, at ``began`` in monotonic seconds."""
    until = began + context.settings.request_timeout
    while (outcome := job.wait(WAIT_SECONDS)) is None:
        if time.monotonic() > until:
            late = DeadlineExceeded(
                "The request took too long: ask for fewer steps or a smaller size, or "
                "send 'Prefer: respond-async' and fetch the picture later."
            )
            context.manager.cancel(job, late)
        else:
            context.manager.cancel_unwanted(job)
    if isinstance(outcome, Completed):
        return outcome.results
    raise outcome.error


def is_here(connection: socket.socket | None) -> bool:
    """Whether the client at the other end has not closed its side; True where the
    server does not show the connection. Safe from any thread."""
    if connection is None:
        return True
    try:
        # Not select(): it knows no descriptors from 1024 on.
        poll = select.poll()
        poll.register(connection, select.POLLIN | _HANGUP)
        happened = dict(poll.poll(0)).get(connection.fileno(), 0)
        if happened & (_HANGUP | select.POLLHUP | select.POLLERR):
            return False
        if not happened & select.POLLIN:
            return True
        # The plain socket's own recv: that of TLS refuses to peek.
        flags = socket.MSG_PEEK | socket.MSG_DONTWAIT
        return socket.socket.recv(connection, 1, flags) != b""
    except BlockingIOError:
        return True
    except (OSError, ValueError):
        return False


def follow(job: Job, client: Callable[[], bool]) -> Iterator[Event | None]:
    """The job's events for a client that reads them as they come, and None whenever a
    sign of life is due; it ends with the job, or when the client has left."""
    said = time.monotonic()
    for event in job.events(POLL_SECONDS):
        if event is None and not client():
            return
        if event is not None or time.monotonic() - said >= KEEP_ALIVE_SECONDS:
            yield event
            said = time.monotonic()


def follow_all(
    jobs: list[Job], client: Callable[[], bool]
) -> Iterator[tuple[Job, Event] | None]:
    """The events of all ``jobs`` as they happen, each with its job, and None whenever a
    sign of life is due; it ends with the last of them, or when the ``client`` has left.
    That a job is done is told when its pictures can be fetched."""
    seen = dict.fromkeys(jobs, 0)
    said = time.monotonic()
    while seen and client():
        # One is waited for, for a moment; the others are looked at.
        wait = ALL_POLL_SECONDS
        for job in list(seen):
            number, events = job.news(seen[job], wait)
            wait = 0.0
            if events and isinstance(events[-1], Completed) and not _delivered(job):
                number, events = number - 1, events[:-1]
            seen[job] = number
            for event in events:
                yield job, event
                said = time.monotonic()
            if events and isinstance(events[-1], (Completed, Failed)):
                del seen[job]
        if time.monotonic() - said >= KEEP_ALIVE_SECONDS:
            yield None
            said = time.monotonic()


def _delivered(job: Job) -> bool:
    """Whether the pictures of ``job`` are files, or should have been long ago."""
    if job.wait_delivery(ALL_POLL_SECONDS):
        return True
    return (job.ended_for or 0.0) > DELIVERY_SECONDS


def _job_headers(job: Job) -> dict[str, str]:
    headers = {"X-Job-Id": job.id}
    if job.is_complete:
        headers["X-Flux-Model"] = job.request.model
        headers["X-Flux-Seed"] = str(job.request.seed_of(0))
    # A stream's headers are sent before its times are known.
    if job.outcome is not None:
        headers["X-Flux-Queue-Seconds"] = f"{job.queue_seconds:.3f}"
        headers["X-Flux-Run-Seconds"] = f"{job.run_seconds:.3f}"
    if job.performance:
        headers["X-Flux-Performance"] = job.performance
    if job.attempts > 1:
        headers["X-Flux-Attempts"] = str(job.attempts)
    return headers
