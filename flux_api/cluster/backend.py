"""The API's side of the cluster: a backend whose pictures are made elsewhere."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from ray import serve
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RayServeException,
)

from flux_api.cluster.application import APPLICATION, Status, connect, look
from flux_api.cluster.heartbeat import Pulse
from flux_api.core import (
    VERSION,
    Completed,
    Event,
    Failed,
    ImageRequest,
    ImageResult,
    PartialImage,
    Progress,
)
from flux_api.errors import (
    Cancelled,
    FluxError,
    InvalidRequest,
    PipelineFailed,
    Unavailable,
)
from flux_api.models.info import ModelInfo
from flux_api.queue.tasks import Callbacks, Kept, Picture

logger = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often a picture is begun when replicas die over it."""

# With those that are let in beside them 128 run at most, as gunicorn's threads allow.
_MOST_SLOTS = 125
_POLL_SECONDS = 0.5
_LOOK_SECONDS = 2.0
_ANSWER_SECONDS = 30
_RETRY_SECONDS = 3
# One that begins again has to load its weights, and a request waits for it meanwhile.
OUTAGE_SECONDS = 120.0
"""After how long without any replica requests are refused."""


class _GivenUp(Exception):
    """A replica took this process for gone."""


# What Ray says when a replica, its node or the way to them is gone.
_GONE = (
    ray.exceptions.RayActorError,
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.TaskCancelledError,
    DeploymentUnavailableError,
    _GivenUp,
)


class RayBackend:
    """Have ``models`` drawn by the replicas of the application; the weights are theirs,
    the fair queue stays here. A picture whose replica dies is made once more, with the
    same seed."""

    memory: dict[str, int] | None = None
    asleep: Kept | None = None
    slots = _MOST_SLOTS
    batch_tokens = 0

    def __init__(self, models: Mapping[str, ModelInfo]) -> None:
        self._models = models
        self._told: dict[str, Any] = {}
        self._status = Status("NOT_STARTED")
        self._pulse = Pulse()
        self._last_running = time.monotonic()

    @property
    def performance(self) -> dict[str, str]:
        """How the replicas make pictures."""
        return dict(self._told["performance"])

    @property
    def outage(self) -> str | None:
        """What is waited for where the cluster has had no replica for long, or has told
        of none."""
        seconds = time.monotonic() - self._last_running
        if seconds < OUTAGE_SECONDS:
            return None
        status = self._status
        return "the cluster does not answer" if status.running else _waiting_for(status)

    def sleep(self, kept: Kept | None = None) -> None:
        """InvalidRequest: each replica decides by itself."""
        raise InvalidRequest(
            "Replicas of a cluster are not sent to sleep; start them with "
            "FLUX_IDLE_UNLOAD, and their weights leave the memory while unused."
        )

    def load(self, report: Callable[[str], None]) -> None:
        """Wait until the cluster has a replica that can draw, and tell ``report`` what
        is missing meanwhile."""
        while (missing := self._find_replicas()) is not None:
            report(missing)
            time.sleep(_LOOK_SECONDS)
        self._pulse.start()
        threading.Thread(target=self._watch, name="flux-replicas", daemon=True).start()

    def _find_replicas(self) -> str | None:
        """Why there is none, None once one has told of itself."""
        try:
            connect()
            status = look()
            self._note(status)
            if not status.running:
                return _waiting_for(status)
            self._handle = serve.get_app_handle(APPLICATION)
            self._told = self._ask()
        except Unavailable as error:
            return error.message.rstrip(".")
        except (ray.exceptions.RayError, RayServeException, TimeoutError) as error:
            return f"the replicas do not answer ({type(error).__name__})"
        if (version := self._told["version"]) != VERSION:
            return f"the replicas are of version {version}, and this is {VERSION}"
        return None

    def _ask(self) -> dict[str, Any]:
        response = self._handle.describe.remote()
        told: dict[str, Any] = response.result(timeout_s=_ANSWER_SECONDS)
        return told

    def _note(self, status: Status) -> None:
        self._status = status
        if status.running:
            self._last_running = time.monotonic()

    def _watch(self) -> None:
        """How many replicas take work changes: they die, come back, scale; an update
        changes what each can do."""
        while True:
            time.sleep(_LOOK_SECONDS)
            try:
                status = look()
                if status != self._status and status.running:
                    self._told = self._ask()
                self._note(status)
            except Exception as error:  # whatever Ray's client raises; it reconnects
                logger.warning("the cluster does not answer: %s", type(error).__name__)

    def joins(self, request: ImageRequest, running: Sequence[ImageRequest]) -> bool:
        """Whether a replica has room; which pictures share forwards is its affair."""
        most, slots, tokens = self._bounds
        # One more than there is room for tells the cluster to grow, as far as it may.
        replicas = max(1, min(self._status.running + 1, most))
        if len(running) < replicas:
            return True
        has_room = sum(map(self.tokens, [request, *running])) <= replicas * tokens
        return has_room and len(running) < replicas * slots

    @property
    def _bounds(self) -> tuple[int, int, int]:
        told = self._told
        return told["most"], told["slots"], told["batch_tokens"]

    def fits(self, request: ImageRequest, running: Sequence[ImageRequest]) -> bool:
        """Whether :meth:`joins` says so: nothing takes turns here."""
        return True

    def is_warm(self, request: ImageRequest) -> bool:
        """Whatever it is: each replica has weights of its own."""
        return True

    def tokens(self, request: ImageRequest) -> int:
        """About how many tokens a forward of one picture has."""
        return self._models[request.model].tokens(request)

    def prepare(self, request: ImageRequest) -> None:
        """Nothing: the replica does, as nobody's device waits for it here."""

    def run(self, picture: Picture, callbacks: Callbacks) -> ImageResult:
        """Have ``picture`` drawn. Unavailable where no replica takes it, PipelineFailed
        where replicas die over it again and again."""
        for attempt in range(1, ATTEMPTS + 1):
            callbacks.check()
            try:
                result = self._draw(picture, callbacks)
            except BackPressureError as error:
                message = "The replicas have no room at the moment."
                raise Unavailable(message, retry_after=_RETRY_SECONDS) from error
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, FluxError):
                    raise error.cause from None
                raise
            except _GONE as error:
                logger.warning(
                    "job %s: a replica is gone (%s), attempt %d of %d",
                    *(picture.job_id, type(error).__name__, attempt, ATTEMPTS),
                )
                continue
            return dataclasses.replace(result, attempts=attempt)
        raise PipelineFailed("The replicas that made this picture died.")

    def _draw(self, picture: Picture, callbacks: Callbacks) -> ImageResult:
        # With one set alone nobody has to wait for who has it.
        model = picture.request.model if len(self._models) > 1 else ""
        handle = self._handle.options(stream=True, multiplexed_model_id=model)
        stream = handle.draw.remote(picture, self._pulse.id)
        events: queue.SimpleQueue[Event | Exception] = queue.SimpleQueue()
        threading.Thread(
            target=_pump, args=(stream, events), name="flux-replica", daemon=True
        ).start()
        try:
            while True:
                event = None
                with contextlib.suppress(queue.Empty):
                    event = events.get(timeout=_POLL_SECONDS)
                callbacks.check()
                if isinstance(event, Exception):
                    raise event
                if isinstance(event, Progress):
                    callbacks.on_step(event.step, event.total)
                elif isinstance(event, PartialImage):
                    callbacks.on_preview(event.number, event.preview)
                elif isinstance(event, Completed):
                    return event.results[0]
                elif isinstance(event, Failed):
                    # It was not by this job, which has been asked.
                    is_cancelled = isinstance(event.error, Cancelled)
                    raise _GivenUp if is_cancelled else event.error
        finally:
            # After the end it does nothing; before it the replica stops at a step.
            stream.cancel()


def _pump(stream: Any, events: queue.SimpleQueue[Event | Exception]) -> None:
    """Hand on what a replica says. Waiting for it has no time-out of its own, and who
    waits here must notice meanwhile that nobody wants the picture any more."""
    try:
        for event in stream:
            events.put(event)
    except Exception as error:  # whatever Ray raises; the other thread tells it apart
        events.put(error)
    else:
        events.put(PipelineFailed("The replica ended without a picture."))


def _waiting_for(status: Status) -> str:
    if status.state == "NOT_STARTED":
        return "waiting for the replicas: flux-api deploy ray start"
    if status.reason:
        return f"the replicas fail: {status.reason}"
    if status.state == "DEPLOY_FAILED":
        return "the replicas fail: see 'ray logs' on the cluster"
    return "waiting for a replica of the cluster"
