"""The public API as these commands call it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from urllib3.filepost import encode_multipart_formdata

from flux_api.commands.transport import (
    FAILED,
    NO_SERVER,
    REFUSED,
    Answer,
    Failure,
    Transport,
)

Json = dict[str, Any]
Field = tuple[str, str | tuple[str, bytes]]
"""A name with a text, or with a file's name and bytes."""

_LOOK_SECONDS = 0.25
# What a better request or key would mend.
_MENDABLE = range(400, 500)
# But not these, which the next try may not meet.
_PASSING = (408, 409, 410, 429, 499)


class Api:
    """The calls that the commands make; Failure tells what the server refused."""

    def __init__(self, send: Transport) -> None:
        self._send = send

    def capabilities(self) -> Json:
        """What the server offers."""
        offer = self._json("GET", "/v1/capabilities")
        # Whatever runs on that port may answer 200 to anything.
        if "limits" not in offer:
            raise _no_api(200)
        return offer

    def wait_ready(self, tell: Callable[[str], None]) -> None:
        """Return once requests are taken; ``tell`` hears what is waited for."""
        while (status := self._json("GET", "/v1/status"))["status"] != "ready":
            if status["status"] == "failed":
                raise Failure(f"the model cannot run: {status['reason']}", NO_SERVER)
            tell(status["reason"])
            time.sleep(_LOOK_SECONDS)

    def submit(self, route: str, fields: list[Field], job_id: str) -> Json:
        """The job that makes the pictures, without waiting for it."""
        body, kind = encode_multipart_formdata(fields)
        asked = {"Prefer": "respond-async", "X-Job-Id": job_id, "Content-Type": kind}
        return self._json("POST", route, asked, body)

    def job(self, job_id: str) -> Json:
        """How a job is doing."""
        return self._json("GET", _path(job_id))

    def jobs(self) -> list[Json]:
        """The caller's own, the newest first."""
        found: list[Json] = self._json("GET", "/v1/jobs")["data"]
        return found

    def cancel(self, job_id: str) -> Json:
        """Stop a job before its next step; its state."""
        return self._json("DELETE", _path(job_id))

    def result(self, job_id: str, index: int) -> tuple[bytes, Json]:
        """A finished picture, and the facts about it."""
        answer = self._answer("GET", f"{_path(job_id)}/result?index={index}", {})
        file_format = answer.headers["content-type"].removeprefix("image/")
        return b"".join(answer.chunks), _facts(answer.headers) | {"format": file_format}

    def events(self, job_id: str) -> Iterator[Json]:
        """The job's events as they happen, as long as the connection holds."""
        answer = self._answer("GET", f"{_path(job_id)}/events", {})
        pending = b""
        try:
            for chunk in answer.chunks:
                # A chunk ends anywhere, in the middle of a line too.
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    if line.startswith(b"data: "):
                        yield json.loads(line.removeprefix(b"data: "))
        finally:
            answer.close()

    def _json(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> Json:
        answer = self._answer(method, path, headers or {}, body)
        try:
            found: Json = json.loads(b"".join(answer.chunks))
        except ValueError:
            raise _no_api(answer.status) from None
        return found

    def _answer(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None = None
    ) -> Answer:
        answer = self._send(method, path, headers, body)
        if 200 <= answer.status < 300:
            return answer
        raise _refusal(answer)


def _refusal(answer: Answer) -> Failure:
    try:
        error = json.loads(b"".join(answer.chunks))["error"]
        message = str(error["message"])
    except (ValueError, KeyError, TypeError):
        return _no_api(answer.status)
    code = FAILED
    if answer.status == 401:
        message += " Here: --key KEY, or FLUX_KEY."
    if answer.status == 503:
        code = NO_SERVER
    elif answer.status in _MENDABLE and answer.status not in _PASSING:
        code = REFUSED
    wait = answer.headers.get("retry-after", "")
    seconds = float(wait) if wait.isdigit() else None
    status = answer.status
    return Failure(message, code, status=status, error=error, retry_after=seconds)


def _no_api(status: int) -> Failure:
    message = f"status {status} and no answer of a Flux Imaging API: what runs there?"
    return Failure(message, NO_SERVER, status=status)


def _path(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"


def _facts(headers: Mapping[str, str]) -> Json:
    """What the ``X-Flux-*`` headers say, numbers as numbers."""
    facts: Json = {}
    for header, text in headers.items():
        if header.startswith("x-flux-"):
            name = header.removeprefix("x-flux-").replace("-", "_")
            # A model may be called 7, and a warning may be a number.
            facts[name] = (
                text
                if name in ("model", "warning", "mode", "performance")
                else _value(text)
            )
    return facts


def _value(text: str) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text
