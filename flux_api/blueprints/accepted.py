"""``Prefer: respond-async``: the answer is where the job can be found."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial

from flask import Response, jsonify, request

from flux_api.blueprints.jobs import describe
from flux_api.core import Completed, ImageResult
from flux_api.errors import FluxError, InvalidRequest
from flux_api.http.clients import prefers_async
from flux_api.http.context import Context
from flux_api.http.counting import at_end
from flux_api.http.idempotency import keep_answer
from flux_api.http.request_log import outcome_fields
from flux_api.queue.jobs import Job
from flux_api.queue.results import FinishedPicture

logger = logging.getLogger(__name__)

Finish = Callable[[tuple[ImageResult, ...]], list[FinishedPicture]]
"""Makes files of a job's pictures, and stores them where they are to be."""


def check_async(context: Context) -> None:
    """InvalidRequest where the client prefers not to wait, and no picture is kept that
    it could fetch later."""
    if prefers_async(request):
        check_kept(context, "leave 'Prefer: respond-async' out", "prefer")


def check_kept(context: Context, advice: str, param: str | None = None) -> None:
    """InvalidRequest, with ``advice``, where no picture is kept that could be fetched
    later."""
    if context.settings.results_mb == 0:
        raise InvalidRequest(
            "This server keeps no pictures (FLUX_RESULTS_MB=0), so there would be none "
            f"to fetch later: {advice}.",
            param=param,
        )


def accept(context: Context, job: Job, finish: Finish) -> Response:
    """202 with the state of ``job`` and its addresses. The job goes on without its
    client, and ``finish`` is called in a thread of its own when it is done."""
    finish_later(context, job, finish)
    return keep_answer(context, partial(_render, job))


def finish_later(
    context: Context,
    job: Job,
    finish: Finish,
    tell: Callable[[], None] = lambda: None,
) -> None:
    """Keep what ``finish`` makes of the pictures of ``job`` in a thread of its own, and
    ``tell`` of its end, whatever it was."""
    keep = partial(context.results.keep, job)
    thread = threading.Thread(
        target=_finish,
        args=(job, finish, keep, at_end(job), tell),
        name=f"flux-finish-{job.id}",
        daemon=True,
    )
    try:
        thread.start()
    except RuntimeError:
        # Short of threads: nobody would fetch what it makes.
        context.manager.cancel(job)
        job.release()
        raise


def _render(job: Job) -> Response:
    place = f"{'/v1' if request.path.startswith('/v1/') else ''}/jobs/{job.id}"
    links = {"self": place, "events": f"{place}/events", "result": f"{place}/result"}
    response = jsonify(describe(job) | {"links": links})
    response.status_code = 202
    # A path: the scheme and host that the client knows are its own affair.
    response.headers["Location"] = place
    response.autocorrect_location_header = False
    response.headers["Preference-Applied"] = "respond-async"
    return response


def _finish(
    job: Job,
    finish: Finish,
    keep: Callable[[list[FinishedPicture]], None],
    count: Callable[[bool], None],
    tell: Callable[[], None],
) -> None:
    lost = True
    try:
        outcome = job.wait(None)
        if isinstance(outcome, Completed):
            keep(finish(outcome.results))
        lost = False
    except Exception as error:
        logger.exception("the pictures of job %s were lost", job.id)
        if isinstance(error, FluxError):
            job.note_loss(error)
    finally:
        # Its pictures are files by now; what the model made of them is let go.
        job.release()
        count(lost)
        fields = {"job_id": job.id, **outcome_fields(job)}
        if job.traceparent is not None:
            fields["traceparent"] = job.traceparent
        logger.info("job ended", extra={"fields": fields})
        _tell(job, tell)


def _tell(job: Job, tell: Callable[[], None]) -> None:
    try:
        tell()
    except Exception:
        logger.exception("the end of job %s could not be told", job.id)
