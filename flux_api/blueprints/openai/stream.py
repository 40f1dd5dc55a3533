"""A job as OpenAI's stream of server-sent events."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Set
from contextlib import suppress
from typing import Any

from flask import Response, request

from flux_api.blueprints.openai.answers import size_of, usage_of
from flux_api.blueprints.openai.parameters import ImagesParameters
from flux_api.core import (
    Completed,
    Failed,
    ImageDone,
    ImageResult,
    PartialImage,
    Progress,
    Queued,
    Started,
)
from flux_api.errors import FluxError, ResultExpired
from flux_api.http.clients import client_of, follow
from flux_api.http.context import Context
from flux_api.http.dialects import error_object
from flux_api.http.pictures import encode_pictures, to_base64
from flux_api.http.sse import HEADERS, MEDIA_TYPE, frame_comment, frame_event
from flux_api.images.codec import encode_image
from flux_api.images.previews import show_preview
from flux_api.queue.jobs import Job
from flux_api.queue.results import FinishedPicture

# A preview is looked at for a moment: some decoders take quadratic time over it.
_LARGEST_PREVIEW = (512, 512)
_PREVIEW_QUALITY = 75


class Stream:
    """The events of ``job``, of ``kind``, an operation, for each client that asks
    for them: the first one, and those with its Idempotency-Key."""

    def __init__(
        self, context: Context, job: Job, parameters: ImagesParameters, kind: str
    ) -> None:
        self._context, self._job = context, job
        self._parameters, self._kind = parameters, kind
        # Of the request as it came: when the job has ended it forgets its prompt.
        self._usage = usage_of(job.request, 1)
        # OpenAI's events, unlike its plain answers, have none.
        self._usage.pop("output_tokens_details")
        self._lock = threading.Lock()
        self._encoded: dict[int, FinishedPicture] = {}
        """The files of pictures until all are made, by index."""
        # Kept with an Idempotency-Key, this would hold them past the store's budget.
        job.call_at_end(self._forget_lost)

    def response(self) -> Response:
        """The stream for the client of this request."""
        blocks = self._blocks(client_of(request))
        return Response(blocks, mimetype=MEDIA_TYPE, headers=HEADERS)

    def _blocks(self, client: Callable[[], bool]) -> Iterator[bytes]:
        """Blocks as things happen, until the job ends or the client has left."""
        sent: set[int] = set()
        try:
            yield frame_comment(f"job {self._job.id}")
            for event in follow(self._job, client):
                if not isinstance(event, (ImageDone, Completed)):
                    yield self._render(event)
                    continue
                for index, picture in self._pictures(event, sent):
                    sent.add(index)
                    yield self._render_picture(index, picture)
        except FluxError as error:
            # The stream has begun: its end is the only place to say so.
            yield self._render_error(error)
        except GeneratorExit:
            self._keep_finished()
            raise
        else:
            self._keep_finished()
        finally:
            # Before the end other clients were sent the same files, which will be kept.
            if self._job.outcome is not None:
                self._encoded.clear()

    def _keep_finished(self) -> None:
        """A client that left as the last picture was finished may come back for it."""
        outcome = self._job.outcome
        if isinstance(outcome, Completed):
            with suppress(FluxError):
                self._pictures(outcome, frozenset())

    def _forget_lost(self, job: Job) -> None:
        if isinstance(job.outcome, Failed):
            self._encoded.clear()

    def _render(
        self, event: Queued | Started | Progress | PartialImage | Failed | None
    ) -> bytes:
        """One event of a job on the wire; what OpenAI has no event for is a comment."""
        match event:
            case None:
                return frame_comment("waiting")
            case Queued(position):
                return frame_comment(f"queued behind {position}")
            case Started():
                return frame_comment("started")
            case Progress(_, step, total):
                return frame_comment(f"step {step}/{total}")
            case PartialImage():
                return self._render_partial(event)
            case Failed(error):
                return self._render_error(error)

    def _render_partial(self, event: PartialImage) -> bytes:
        preview = show_preview(event.preview)
        preview.thumbnail(_LARGEST_PREVIEW)
        quality = min(self._parameters.output_compression, _PREVIEW_QUALITY)
        encoded = encode_image(preview, self._parameters.file_format, quality)
        name = f"image_{self._kind}.partial_image"
        data = {"type": name, "b64_json": to_base64(encoded.data)} | self._about()
        about = {"partial_image_index": event.number, "image_index": event.index}
        return frame_event(name, data | about)

    def _render_error(self, error: FluxError) -> bytes:
        # Flat error fields would be taken for an ordinary event by some clients.
        return frame_event("error", {"error": error_object(error)})

    def _render_picture(self, index: int, picture: FinishedPicture) -> bytes:
        name, job = f"image_{self._kind}.completed", self._job
        data: dict[str, Any] = {"type": name, "b64_json": to_base64(picture.data)}
        data |= self._about()
        data |= {"usage": self._usage, "image_index": index}
        for fact in ("seed", "num_inference_steps", "guidance_scale", "performance"):
            data[fact] = picture.facts[fact]
        # A stream's headers go out before its times are known.
        data["queue_seconds"] = round(job.queue_seconds, 3)
        data["run_seconds"] = round(job.run_seconds, 3)
        if "warning" in picture.facts:
            data["warning"] = picture.facts["warning"]
        if (identifier := self._parameters.echoed_identifier) is not None:
            data["safety_identifier"] = identifier
        return frame_event(name, data)

    def _pictures(
        self, event: ImageDone | Completed, sent: Set[int]
    ) -> list[tuple[int, FinishedPicture]]:
        """The files of what ``event`` tells, each with its index, without those that
        were ``sent``; ResultExpired where they are gone."""
        if isinstance(event, ImageDone):
            return [(event.index, self._encode(event.index, event.result))]
        # Another client of the same job may have been here first.
        pictures = self._context.results.pictures(self._job)
        if pictures is None:
            pictures = [self._encode(*made) for made in enumerate(event.results)]
            if not pictures:
                raise ResultExpired("This picture is no longer kept.")
            self._context.results.keep(self._job, pictures)
        return [made for made in enumerate(pictures) if made[0] not in sent]

    def _encode(self, index: int, result: ImageResult) -> FinishedPicture:
        # Each once, however many clients there are.
        with self._lock:
            picture = self._encoded.get(index)
            if picture is None:
                [picture] = encode_pictures(
                    self._context, self._job, self._parameters, (result,)
                )
                self._encoded[index] = picture
            return picture

    def _about(self) -> dict[str, Any]:
        return {
            "created_at": int(self._job.created_at),
            "size": size_of(self._job.request),
            "quality": self._parameters.echoed_quality,
            "background": "opaque",
            "output_format": self._parameters.file_format,
        }
