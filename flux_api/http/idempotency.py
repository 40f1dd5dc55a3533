"""``Idempotency-Key`` on POSTs: the same request again gets the first one's answer."""

from __future__ import annotations

import hashlib
import json
import re

from flask import Response, abort, g, request

from flux_api.errors import InvalidRequest
from flux_api.http.bodies import Body, read_body
from flux_api.http.clients import caller_of
from flux_api.http.context import Context, get_context
from flux_api.http.kept_answers import KEPT_SECONDS, Render
from flux_api.queue.jobs import Job
from flux_api.queue.results import FinishedPicture

_KEY = re.compile(r"[\x21-\x7e]{1,255}")


def read_new_body() -> Body:
    """The body of this request. Where the same came before with its key, the request
    ends here, with the answer from then."""
    body = read_body(request)
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return body
    if not _KEY.fullmatch(key):
        raise InvalidRequest(
            "Invalid Idempotency-Key: expected 1 to 255 visible ASCII characters.",
            param="idempotency_key",
        )
    name = caller_of(request), key
    kept = get_context().kept_answers
    if found := kept.begin(name, fingerprint_of(request.path, body)):
        g.job, render, pictures = found
        g.replayed = True
        response = render(pictures)
        response.headers["Idempotent-Replayed"] = "true"
        abort(response)
    g.idempotency = name
    return body


def deliver(
    context: Context, job: Job, pictures: list[FinishedPicture], render: Render
) -> Response:
    """What ``render`` makes of ``pictures``, which are kept: for
    ``GET /jobs/<id>/result``, and to be rendered again where the request has a key."""
    if name := g.pop("idempotency", None):
        context.results.keep(job, pictures, seconds=KEPT_SECONDS)
        context.kept_answers.keep(name, job, render)
    else:
        context.results.keep(job, pictures)
    return render(pictures)


def fingerprint_of(path: str, body: Body) -> bytes:
    """What two bodies share that ask for the same, whatever their boundaries are."""
    digest = hashlib.sha256(json.dumps([path, body.values], sort_keys=True).encode())
    for upload in body.uploads:
        content = hashlib.sha256(upload.data).hexdigest()
        digest.update(f"{json.dumps(upload.name)} {content}\n".encode())
    return digest.digest()


def let_go(_error: BaseException | None) -> None:
    """A key whose request came to no answer that is kept."""
    if name := g.pop("idempotency", None):
        get_context().kept_answers.forget(name)
