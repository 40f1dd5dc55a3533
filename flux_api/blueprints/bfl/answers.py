"""A job as Black Forest Labs' API tells of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flux_api.core import Failed, Progress
from flux_api.errors import ContentFiltered
from flux_api.queue.jobs import Job
from flux_api.queue.results import FinishedPicture, ResultStore

PENDING, READY, ERROR = "Pending", "Ready", "Error"
MODERATED = "Content Moderated"
# Clients ask on for ever at any word that the hosted API has not.
STATUSES = (
    *("Task not found", PENDING, "Request Moderated", MODERATED),
    *(READY, ERROR),
)
_GONE = {"code": "result_expired", "message": "This picture is no longer kept."}
_LOST = {"code": "server_ended", "message": "The server ended; send the request again."}


@dataclass(frozen=True, slots=True)
class BflJob:
    """A ``job`` and the pictures that are kept of it, for callers that know this
    server by ``origin``."""

    job: Job
    results: ResultStore
    origin: str

    @property
    def polling_url(self) -> str:
        """Where it is asked for."""
        return f"{self.origin}/v1/get_result?id={self.job.id}"

    def describe(self) -> dict[str, Any]:
        """The answer to whoever asks how it is."""
        outcome = self.job.outcome
        answer: dict[str, Any] = {
            "id": self.job.id,
            "status": PENDING,
            "result": None,
            "progress": self._progress(),
            "details": None,
            "preview": None,
        }
        if isinstance(outcome, Failed):
            error = outcome.error
            details = {"code": error.code, "message": error.message}
            filtered = isinstance(error, ContentFiltered)
            status = MODERATED if filtered else ERROR
            return answer | {"status": status, "details": details, "progress": None}
        # Between the last step and its file it is not to be fetched yet.
        if outcome is None or not self.job.wait_delivery(0):
            return answer
        pictures = self.results.pictures(self.job)
        if not pictures:
            return answer | {"status": ERROR, "details": _GONE, "progress": None}
        ready = {"status": READY, "result": self._result(pictures[0]), "progress": 1.0}
        return answer | ready

    def webhook_body(self) -> str:
        """What a webhook is told at the end."""
        return _webhook_body(self.describe())

    def last_words(self) -> str:
        """What it is told where this process ends first."""
        lost = {"status": ERROR, "result": None, "details": _LOST}
        return _webhook_body({"id": self.job.id} | lost)

    def _progress(self) -> float | None:
        newest = self.job.last(Progress)
        if not isinstance(newest, Progress):
            return None
        return round(newest.step / newest.total, 3)

    def _result(self, picture: FinishedPicture) -> dict[str, Any]:
        # By the monotonic clock from its creation on: these add up.
        start = self.job.created_at + self.job.queue_seconds
        facts = picture.facts
        result = {
            "sample": f"{self.origin}/v1/samples/{self.job.id}",
            "prompt": facts["prompt"],
            "seed": facts["seed"],
            "start_time": round(start, 3),
            "end_time": round(start + self.job.run_seconds, 3),
            "duration": round(self.job.run_seconds, 3),
        }
        if "warning" in facts:
            result["warning"] = facts["warning"]
        return result


def _webhook_body(answer: dict[str, Any]) -> str:
    told = {name: answer[name] for name in ("id", "status", "result", "details")}
    return json.dumps(told | {"timestamp": datetime.now(UTC).isoformat()})
