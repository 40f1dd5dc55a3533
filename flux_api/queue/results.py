"""Finished pictures, kept for a while so that a caller can fetch them again by id."""

from __future__ import annotations

import copy
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flux_api.core import Failed
from flux_api.errors import InvalidRequest, JobNotDone, ResultExpired
from flux_api.queue.jobs import Job


@dataclass(frozen=True, slots=True)
class FinishedPicture:
    """A picture as it goes out: its file's bytes and type, its facts by the original
    API's names, its recipe as JSON ("" for none) and the URL under which it is stored,
    None where it is not."""

    data: bytes
    media_type: str
    facts: Mapping[str, Any]
    recipe: str = ""
    url: str | None = None


class ResultStore:
    """The newest finished pictures: at most ``most_bytes`` of them, each as long as
    its job says. Thread-safe; gone when the process ends."""

    def __init__(
        self, most_bytes: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most_bytes = most_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._bytes = 0
        # By the job itself: its id may be another's once it has ended.
        self._kept: OrderedDict[Job, tuple[float, list[FinishedPicture]]] = (
            OrderedDict()
        )

    def keep(self, job: Job, pictures: list[FinishedPicture]) -> None:
        """Keep what ``job`` made, and drop the oldest of what is too much."""
        with self._lock:
            self._drop(job)
            self._kept[job] = self._clock() + job.kept_seconds, pictures
            self._bytes += _size_of(pictures)
            self._drop_old()
        job.note_delivery()

    def pictures(self, job: Job) -> list[FinishedPicture] | None:
        """What ``job`` made, None once it is gone."""
        with self._lock:
            self._drop_old()
            found = self._kept.get(job)
        return found[1] if found is not None else None

    def urls(self, job: Job) -> list[str]:
        """Where the pictures of ``job`` are stored, as far as they are."""
        return [picture.url for picture in self.pictures(job) or () if picture.url]

    def find(self, job: Job, index: int) -> FinishedPicture:
        """Picture ``index`` of ``job``. The error of the job or its files, JobNotDone
        until it is made, ResultExpired when it is gone, InvalidRequest where the job
        has no such picture."""
        outcome = job.outcome
        if isinstance(outcome, Failed):
            # A copy: raising the kept one would tie this request's frames to it.
            raise copy.copy(outcome.error)
        if not job.is_complete:
            raise JobNotDone("The job has not ended yet.", retry_after=1)
        count = job.request.num_images_per_prompt
        if not 0 <= index < count:
            message = f"Invalid 'index': the last picture of this job is {count - 1}."
            raise InvalidRequest(message, param="index")
        pictures = self.pictures(job)
        if pictures is not None:
            return pictures[index]
        # Between the last step and the answer the picture is still being encoded.
        if outcome is None or not job.wait_delivery(0):
            raise JobNotDone("The job has not ended yet.", retry_after=1)
        if job.loss is not None:
            raise copy.copy(job.loss)
        raise ResultExpired("This picture is no longer kept.")

    def _drop_old(self) -> None:
        now = self._clock()
        for job, (until, _) in list(self._kept.items()):
            if until <= now or self._bytes > self._most_bytes:
                self._drop(job)

    def _drop(self, job: Job) -> None:
        _, pictures = self._kept.pop(job, (0.0, []))
        self._bytes -= _size_of(pictures)


def _size_of(pictures: list[FinishedPicture]) -> int:
    return sum(len(picture.data) for picture in pictures)
