"""Each request for pictures is counted once, when it has ended, by how."""

from __future__ import annotations

import time
from collections.abc import Callable

from flask import Response, g, request

from flux_api.core import Failed
from flux_api.metrics.instruments import LATENCY, REQUESTS
from flux_api.queue.jobs import Job


def follow(response: Response) -> Response:
    """Count a POST: now, or when its stream is over. What only begins a job is counted
    at the job's end, by :func:`at_end`."""
    # Only POSTs make pictures.
    if request.method != "POST" or request.url_rule is None:
        return response
    job = g.get("job")
    # A dialect may tell an error with another status.
    status = g.get("error_status", response.status_code)
    # A job that goes on, or none: a message, a choice, a plan. Failures are an end.
    if status < 400 and (job is None or job.outlives_clients):
        return response
    count = _counter()
    if response.is_streamed and job is not None:
        response.call_on_close(lambda: count(job, _status_of(job)))
    else:
        count(job, status)
    return response


def at_end(job: Job) -> Callable[[bool], None]:
    """What to call when ``job``, which outlives this request, has ended: with True
    where its pictures could not be delivered."""
    count = _counter()
    return lambda lost: count(job, 500 if lost else _status_of(job))


def _counter() -> Callable[[Job | None, int], None]:
    """Counts this request, when it is over, with its job and status."""
    rule, began = request.url_rule, g.began
    route = rule.rule if rule is not None else "none"

    def count(job: Job | None, status: int) -> None:
        mode = model = "none"
        if job is not None and job.is_complete:
            mode, model = job.request.mode, job.request.model
        started = job is not None and job.run_seconds > 0
        outcome = outcome_of(status, started=started)
        REQUESTS.labels(route, mode, model, outcome).inc()
        LATENCY.observe(time.monotonic() - began)

    return count


def _status_of(job: Job) -> int:
    """As if the answer had waited for ``job``. One that goes on is another client's."""
    outcome = job.outcome
    if outcome is None:
        return 499
    return outcome.error.status if isinstance(outcome, Failed) else 200


def outcome_of(status: int, *, started: bool) -> str:
    """The word for an answer of ``status``, where a picture was ``started`` or not."""
    if status < 400:
        return "done"
    if status == 499:
        return "cancelled"
    if status in (408, 504):
        return "timeout"
    # Out of room for one more, or in the middle of it.
    is_refusal = status < 500 or (status in (503, 507) and not started)
    return "refused" if is_refusal else "failed"
