"""``Idempotency-Key`` on POSTs: the same request again gets the first one's answer."""

from __future__ import annotations

import hashlib
import json
import re

from flask import Response, abort, g, request

from flux_api.errors import InvalidRequest
from flux_api.http.bodies import Body, read_body
from flux_api.http.clients import caller_of
from flux_api.http.context import get_context
from flux_api.http.kept_answers import KeptAnswer

_KEY = re.compile(r"[\x21-\x7e]{1,255}")


def read_new_body() -> Body:
    """The body of this request. Where the same came before with its key, the request
    ends context, with the answer from then."""
    body = read_body(request)
    key = request.headers.get("Idempotency-Key")
    answers = get_context().kept_answers
    if key is None or answers is None:
        return body
    if not _KEY.fullmatch(key):
        raise InvalidRequest(
            "Invalid Idempotency-Key: expected 1 to 255 visible ASCII characters.",
            param="idempotency_key",
        )
    name = caller_of(request), key
    if answer := answers.begin(*name, fingerprint_of(request.path, body)):
        g.replayed = True
        response = Response(answer.body, answer.status, list(answer.headers))
        response.headers["Idempotent-Replayed"] = "true"
        abort(response)
    g.idempotency = name
    return body


def fingerprint_of(path: str, body: Body) -> bytes:
    """What two bodies share that ask for the same, whatever their boundaries are."""
    digest = hashlib.sha256(json.dumps([path, body.values], sort_keys=True).encode())
    for upload in body.uploads:
        content = hashlib.sha256(upload.data).hexdigest()
        digest.update(f"{json.dumps(upload.name)} {content}\n".encode())
    return digest.digest()


def keep(response: Response) -> Response:
    """Keep what answers a request that came with a key."""
    # A refusal costs nothing to make again, and its reason may have passed by then.
    answers = get_context().kept_answers
    if answers is None or response.status_code != 200 or response.is_streamed:
        return response
    if name := g.pop("idempotency", None):
        headers = tuple(response.headers.items())
        answers.keep(name[0], name[1], KeptAnswer(200, headers, response.get_data()))
    return response


def let_go(_error: BaseException | None) -> None:
    """A key whose request came to no answer that is kept."""
    name, answers = g.pop("idempotency", None), get_context().kept_answers
    if name is not None and answers is not None:
        answers.forget(name[0], name[1])
