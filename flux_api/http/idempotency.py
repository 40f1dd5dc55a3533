"""``Idempotency-Key`` on POSTs: the same request again gets the first one's answer."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import time
from collections.abc import Callable
from typing import NoReturn

from flask import Response, abort, g, request

from flux_api.core import Failed
from flux_api.errors import Cancelled, InvalidRequest, KeyInUse, ResultExpired
from flux_api.http.bodies import Body, read_body
from flux_api.http.clients import POLL_SECONDS, caller_of, client_of, leave
from flux_api.http.context import Context, get_context
from flux_api.http.kept_answers import Entry
from flux_api.metrics.instruments import note_lookup
from flux_api.queue.jobs import Job
from flux_api.queue.results import FinishedPicture

_KEY = re.compile(r"[\x21-\x7e]{1,255}")


def read_new_body() -> Body:
    """The body of this request. Where the same came before with its key, the request
    ends here, with the answer to that one."""
    body = read_body(request)
    end_if_known(body)
    return body


def end_if_known(body: Body) -> None:
    """End the request here where the same came before with its key, with the answer to
    that one."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return
    if not _KEY.fullmatch(key):
        raise InvalidRequest(
            "Invalid Idempotency-Key: expected 1 to 255 visible ASCII characters.",
            param="idempotency_key",
        )
    context, name = get_context(), (caller_of(request), key)
    fingerprint = fingerprint_of(request.path, body)
    until = time.monotonic() + context.settings.request_timeout
    while True:
        # Asked anew each time: where the first came to nothing, the next is the first.
        entry, is_new = context.kept_answers.begin(name, fingerprint)
        if is_new:
            note_lookup("answers", found=False)
            g.idempotency = entry
            return
        if entry.render is not None:
            _replay(entry, entry.render)
        _wait_for(context, entry, until)


def _replay(entry: Entry, render: Callable[[], Response]) -> NoReturn:
    note_lookup("answers", found=True)
    g.job, g.replayed = entry.job, True
    g.job.join(client_of(request))
    response = render()
    if response.is_streamed and g.job.outcome is None:
        # It holds a thread as long as the job runs, and has no place in the queue.
        leave_watchers = get_context().watchers.enter(caller_of(request))
        response.call_on_close(leave_watchers)
    response.headers["Idempotent-Replayed"] = "true"
    abort(response)


def _wait_for(context: Context, entry: Entry, until: float) -> None:
    """Wait until the first request has an answer, or came to none; its error is raised.
    Its job runs on for this request's client, should its own leave."""
    is_here = client_of(request)
    has_joined = False
    # It holds a thread as long as the first one does, so it counts like a request.
    with context.manager.hold_place(caller_of(request)):
        while True:
            # At once: who gives up on the first request leaves it in a moment.
            if entry.job is not None and not has_joined:
                has_joined = entry.job.join(is_here)
            if entry.settled.wait(POLL_SECONDS):
                break
            late = time.monotonic() > until
            if late or not is_here():
                if entry.job is not None:
                    leave(context, entry.job, is_here)
                raise _still_runs() if late else Cancelled("The client has left.")
    if entry.job is None:
        return
    outcome = entry.job.outcome
    if entry.render is not None and outcome is None:
        return  # A stream, or told of while it runs: it is joined.
    # The last one to leave lets its pictures go; files that are kept are told anyway.
    leave(context, entry.job, is_here)
    # Cancelled before it could be joined: its own client has left, and this one begins
    # anew. Later somebody has stopped it, for all who wait.
    is_over = has_joined or not isinstance(getattr(outcome, "error", None), Cancelled)
    if isinstance(outcome, Failed) and is_over:
        raise copy.copy(outcome.error)


def _still_runs() -> KeyInUse:
    message = "The first request with this Idempotency-Key still runs."
    return KeyInUse(message, param="idempotency_key", retry_after=2)


def keep_answer(context: Context, render: Callable[[], Response]) -> Response:
    """What ``render`` makes, now and again where the request has a key."""
    if entry := g.pop("idempotency", None):
        context.kept_answers.keep(entry, render)
    return render()


def deliver(
    context: Context,
    job: Job,
    pictures: list[FinishedPicture],
    render: Callable[[list[FinishedPicture]], Response],
) -> Response:
    """What ``render`` makes of ``pictures``, which are kept: for
    ``GET /jobs/<id>/result``, and to be rendered again where the request has a key."""
    context.results.keep(job, pictures)

    # By the store, not by these pictures: held here, they would outlive its budget.
    def render_again() -> Response:
        kept = context.results.pictures(job)
        if kept is None:
            raise ResultExpired("This picture is no longer kept.")
        return render(kept)

    if entry := g.pop("idempotency", None):
        context.kept_answers.keep(entry, render_again)
    return render(pictures)


def fingerprint_of(path: str, body: Body) -> bytes:
    """What two bodies share that ask for the same, whatever their boundaries are."""
    # A client that tries again may write its fields in another order.
    digest = hashlib.sha256(json.dumps([path, body.values], sort_keys=True).encode())
    for upload in body.uploads:
        content = hashlib.sha256(upload.data).hexdigest()
        digest.update(f"{json.dumps(upload.name)} {content}\n".encode())
    return digest.digest()


def let_go(_error: BaseException | None) -> None:
    """A key whose request came to no answer that is kept."""
    if entry := g.pop("idempotency", None):
        get_context().kept_answers.forget(entry)
