"""Several requests at once, from sending to the written files; Ctrl-C stops them."""

from __future__ import annotations

import base64
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue

from flux_api.commands.api import Api, Field, Json
from flux_api.commands.files import write
from flux_api.commands.progress import Progress
from flux_api.commands.screen import Screen
from flux_api.commands.transport import NO_SERVER, Failure

AT_ONCE = 8
_PATIENCE_SECONDS = 600.0
_TRIES = 5
_ENDS = ("done", "failed", "cancelled")


@dataclass(frozen=True)
class Request:
    """What is asked for, and a file for each of its pictures."""

    label: str
    route: str
    fields: list[Field]
    files: list[Path]
    job_id: str = field(default_factory=lambda: uuid.uuid4().hex)


class Drawing:
    """The ``requests`` on their way through ``api``."""

    def __init__(self, api: Api, requests: list[Request]) -> None:
        self._api, self._requests = api, requests
        self._events: SimpleQueue[tuple[int, Json]] = SimpleQueue()
        self._waiting: SimpleQueue[int] = SimpleQueue()
        self._sent: set[str] = set()
        self._stopping = threading.Event()

    def events(self) -> Iterator[tuple[int, Json]]:
        """What happens, each with the number of its request, to the end of the last: a
        job's own events, and ``waits``, ``accepted``, ``stopping``, ``picture`` (with
        its file, bytes and facts) and ``ended`` (with its failure, or None)."""
        for number in range(len(self._requests)):
            self._waiting.put(number)
        for _ in range(min(AT_ONCE, len(self._requests))):
            threading.Thread(target=self._work, daemon=True).start()
        for _ in self._requests:
            while True:
                number, event = self._events.get()
                yield number, event
                if event["type"] == "ended":
                    break

    def stop(self) -> None:
        """Have the server cancel what was sent, and send no more."""
        self._stopping.set()
        self._events.put((0, {"type": "stopping"}))
        # A copy: those that send change it.
        for job_id in list(self._sent):
            try:
                self._api.cancel(job_id)
            except Failure:
                continue  # It has ended, or never arrived.

    def _work(self) -> None:
        while True:
            try:
                number = self._waiting.get_nowait()
            except Empty:
                return
            failure = None
            try:
                self._make(number)
            except Failure as caught:
                failure = caught
            except Exception as error:  # Else the main thread would wait for ever.
                failure = Failure(f"{type(error).__name__}: {error}")
            self._sent.discard(self._requests[number].job_id)
            self._events.put((number, {"type": "ended", "failure": failure}))

    def _make(self, number: int) -> None:
        """One request from its start to its files; Failure where there are none."""
        request = self._requests[number]
        accepted = self._submit(number, request)
        self._events.put((number, accepted | {"type": "accepted"}))
        end: Json = {}
        for event in self._follow(request.job_id):
            self._events.put((number, event))
            end = event
        if end["type"] != "done":
            raise Failure(end["error"]["message"], error=end["error"])
        times = self._api.job(request.job_id)
        for index, path in enumerate(request.files):
            data, facts = self._api.result(request.job_id, index)
            write(path, data)
            facts |= {"job_id": request.job_id, "run_seconds": times["run_seconds"]}
            if urls := end.get("urls"):
                facts["url"] = urls[index]
            told = {"type": "picture", "file": path, "data": data, "facts": facts}
            self._events.put((number, told))

    def _submit(self, number: int, request: Request) -> Json:
        """The job's first state. A full queue is asked again when it says; so is a
        server that did not answer, which may have taken the job all the same."""
        until, tries = time.monotonic() + _PATIENCE_SECONDS, 0
        while not self._stopping.is_set():
            self._sent.add(request.job_id)
            try:
                job = self._api.submit(request.route, request.fields, request.job_id)
            except Failure as failure:
                tries += failure.status == 0
                # The first try arrived, and only its answer was lost.
                if failure.status == 409 and tries:
                    return self._api.job(request.job_id)
                passing = failure.status in (0, 429, 503) and tries < _TRIES
                if not passing or time.monotonic() > until:
                    raise
                self._events.put((number, {"type": "waits", "why": str(failure)}))
                self._stopping.wait(failure.retry_after or 1.0)
            else:
                # Sent while the others were cancelled.
                if self._stopping.is_set():
                    self.stop()
                return job
        raise Failure("stopped before it was sent")

    def _follow(self, job_id: str) -> Iterator[Json]:
        """The job's events to its end, whatever becomes of connections: it goes on."""
        tries = 0
        while True:
            try:
                for event in self._api.events(job_id):
                    tries = 0
                    yield event
                    if event["type"] in _ENDS:
                        return
            except Failure as failure:
                if failure.status not in (0, 429, 503) or tries == _TRIES:
                    raise
                wait = failure.retry_after or 1.0
            else:
                wait = 1.0
            tries += 1
            if tries > _TRIES:
                raise Failure("the server tells nothing more of the job", NO_SERVER)
            time.sleep(wait)


def show(
    drawing: Drawing, requests: list[Request], screen: Screen
) -> Iterator[tuple[Request, Json]]:
    """Run ``drawing`` before a person's eyes; gives what is final, ``picture`` and
    ``ended``, with the request that it is of."""
    progress = Progress([len(request.files) for request in requests])
    for number, event in drawing.events():
        progress.hear(number, event)
        match event["type"]:
            case "partial_image":
                screen.picture(base64.b64decode(event["b64_json"]))
            case "picture":
                screen.picture(event["data"])
                yield requests[number], event
            case "ended":
                yield requests[number], event
        screen.show(progress.line)
    screen.clear()
