"""What the clients of several instances ask for beside the pictures of a single one:
streams, jobs, keys, tasks, forged headers, and leaving."""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlencode

import requests

from benchmarks.chaos_clients import (
    KINDS,
    SECONDS,
    Kind,
    Lost,
    Request,
    checked_answer,
    delivered,
    digest,
    form_of,
)

# An address that documents use, which nobody has.
FORGED_ADDRESS = "203.0.113.9"
FORGED = {
    "X-Forwarded-For": FORGED_ADDRESS,
    "X-Real-IP": FORGED_ADDRESS,
    "Forwarded": f"for={FORGED_ADDRESS};host=evil.example",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "gopher",
    "X-Forwarded-Prefix": "/evil",
    "X-Flux-Next": "@away",
    "X-Accel-Redirect": "/metrics",
}
_LEAVING_SECONDS = 20.0


class Clients:
    """The kinds of requests, and what they found besides pictures."""

    def __init__(self) -> None:
        self.streams: list[tuple[float, float]] = []
        """Of each stream, seconds until its first event and until its end."""
        self.left = 0
        """Clients that left, whose pictures were stopped at once."""
        self.found = 0
        """Results that were fetched by the id of their job."""
        self.forged = 0
        """Requests with forged headers that were answered like any other."""

    @property
    def kinds(self) -> dict[str, Kind]:
        """By name."""
        return KINDS | {
            "streamed": self.streamed,
            "job": self.job,
            "chosen": self.chosen,
            "keyed": self.keyed,
            "task": self.task,
            "forging": self.forging,
            "leaving": self.leaving,
        }

    def streamed(self, session: requests.Session, url: str, wanted: Request) -> str:
        """By OpenAI's API with previews, as they come."""
        began, first, last = time.monotonic(), 0.0, {}
        with _stream(session, url, wanted, steps=12) as answer:
            for event in _events(checked_answer(answer)):
                first = first or time.monotonic() - began
                last = event
        if not last.get("type", "").endswith("completed"):
            raise Lost(f"a stream ended with {str(last)[:120]}")
        self.streams.append((first, time.monotonic() - began))
        return digest(base64.b64decode(last["b64_json"]))

    def job(self, session: requests.Session, url: str, wanted: Request) -> str:
        """Without waiting; its events and its result by the id that the server made."""
        prefer = {"Prefer": "respond-async"}
        sent = {"data": form_of(wanted), "headers": prefer, "timeout": SECONDS}
        taken = checked_answer(session.post(f"{url}/process", **sent)).json()
        job = f"{url}/v1/jobs/{taken['id']}"
        with session.get(f"{job}/events", stream=True, timeout=SECONDS) as answer:
            last = list(_events(checked_answer(answer)))[-1]
        if last["type"] != "done":
            raise Lost(f"a job ended with {str(last)[:120]}")
        return self._result(session, job)

    def chosen(self, session: requests.Session, url: str, wanted: Request) -> str:
        """A result by an id of the client's own."""
        name = {"X-Job-Id": f"mine-{secrets.token_hex(8)}"}
        sent = {"data": form_of(wanted), "headers": name, "timeout": SECONDS}
        made = checked_answer(session.post(f"{url}/process/raw", **sent))
        found = self._result(session, f"{url}/v1/jobs/{name['X-Job-Id']}")
        return found if found == digest(made.content) else "another picture"

    def keyed(self, session: requests.Session, url: str, wanted: Request) -> str:
        """Twice with one key; the second answer is the first one's."""
        key = {"Idempotency-Key": secrets.token_hex(8)}
        sent = {"data": form_of(wanted), "headers": key, "timeout": SECONDS}
        first, again = (
            checked_answer(session.post(f"{url}/process/raw", **sent)).content
            for _ in range(2)
        )
        return digest(first) if digest(first) == digest(again) else "another picture"

    def task(self, session: requests.Session, url: str, wanted: Request) -> str:
        """By the hosted API, whose tasks are polled for."""
        _, prompt, seed = wanted
        body = {"prompt": prompt, "seed": seed, "width": 64, "height": 64, "steps": 2}
        body |= {"output_format": "png"}
        sent = {"json": body, "timeout": SECONDS}
        taken = checked_answer(session.post(f"{url}/v1/flux-dev", **sent)).json()
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            asked = session.get(taken["polling_url"], timeout=SECONDS)
            told = checked_answer(asked).json()
            if told["status"] == "Ready":
                sample = session.get(told["result"]["sample"], timeout=SECONDS)
                return digest(checked_answer(sample).content)
            if told["status"] != "Pending":
                raise Lost(f"a task is {told['status']}")
            time.sleep(0.1)
        raise Lost("a task never ends")

    def forging(self, session: requests.Session, url: str, wanted: Request) -> str:
        """With headers that claim what is not so, and that only nginx may set."""
        sent = {"data": form_of(wanted), "headers": FORGED, "timeout": SECONDS}
        answer = checked_answer(session.post(f"{url}/process", **sent))
        strange = {**FORGED, "Host": "evil.example"}
        page = session.get(f"{url}/", headers=strange, timeout=SECONDS)
        told = answer.json()
        if "evil" in answer.text + str(answer.headers) + page.text or page.ok:
            return "a forged header counted"
        if not told.get("result_image_url", url).startswith(url):
            return "a forged header counted"
        self.forged += 1
        return delivered(session, url, told)

    def leaving(self, session: requests.Session, url: str, wanted: Request) -> str:
        """Gone after the first steps: the picture is not made to its end."""
        name = f"left-{secrets.token_hex(8)}"
        form = urlencode({**form_of(wanted), "num_inference_steps": 200})
        headers = {
            "X-Job-Id": name,
            "Content-Type": "application/x-www-form-urlencoded",
        }
        address = url.removeprefix("http://")
        with closing(HTTPConnection(address, timeout=SECONDS)) as connection:
            connection.request("POST", "/process/raw", form, headers)
            self._wait_for_step(session, f"{url}/v1/jobs/{name}/events")
        until, state = time.monotonic() + _LEAVING_SECONDS, "running"
        while state == "running" and time.monotonic() < until:
            answer = session.get(f"{url}/v1/jobs/{name}", timeout=SECONDS)
            state = str(checked_answer(answer).json()["state"])
            time.sleep(0.05)
        self.left += state == "cancelled"
        return state

    def _wait_for_step(self, session: requests.Session, events: str) -> None:
        """Until the job has begun; its request may come after this one."""
        until = time.monotonic() + _LEAVING_SECONDS
        while True:
            with session.get(events, stream=True, timeout=SECONDS) as answer:
                if answer.status_code == 404 and time.monotonic() < until:
                    continue
                for event in _events(checked_answer(answer)):
                    if event["type"] not in ("queued", "started"):
                        return

    def _result(self, session: requests.Session, job: str) -> str:
        answer = checked_answer(session.get(f"{job}/result", timeout=SECONDS))
        self.found += 1
        return digest(answer.content)


def _stream(session: requests.Session, url: str, wanted: Request, steps: int) -> Any:
    _, prompt, seed = wanted
    body = {"prompt": prompt, "seed": seed, "size": "64x64", "steps": steps}
    body |= {"stream": True, "partial_images": 2}
    path = f"{url}/v1/images/generations"
    return session.post(path, json=body, stream=True, timeout=SECONDS)


def _events(answer: requests.Response) -> Iterator[dict[str, Any]]:
    """What each event says, as soon as it is there."""
    for line in answer.iter_lines(chunk_size=1):
        if line.startswith(b"data: {"):
            yield json.loads(line.removeprefix(b"data: "))
