"""The errors that a caller can be told about; none of them knows who renders it.

    FluxError
    ├── InvalidRequest             400
    │   ├── NotJson                400
    │   └── UnsupportedMedia       415
    ├── InvalidImage               400
    ├── ImageFetchFailed           400
    ├── WebhookRefused             400
    ├── ContentFiltered            400
    ├── Unauthorized               401
    ├── CrossSiteRequest           403
    ├── UntrustedHost              403
    ├── ModelNotFound              404
    ├── JobNotFound                404
    ├── BodyTimeout                408
    ├── JobConflict                409
    ├── JobNotDone                 409
    ├── StillWorking               409
    ├── KeyInUse                   409
    ├── ResultExpired              410
    ├── PayloadTooLarge            413
    ├── KeyReused                  422
    ├── QueueFull                  429
    ├── PipelineFailed             500
    ├── Unavailable                503
    ├── DeadlineExceeded           504
    ├── InsufficientStorage        507
    └── Cancelled                  499

``type`` and ``code`` are the words of OpenAI's error object. A message is one
sentence for the caller: never a path, a token or a traceback.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping

# What a machine may be short of for a moment. EAGAIN is a process too many.
_SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN)
_FULL = (errno.ENOSPC, errno.EDQUOT)
# Python's own, and what oneDNN says when memory cannot be had.
_SHORT_WORDS = (
    "can't start new thread",
    "could not create a primitive",
    "could not create a memory object",
)


class BadSetting(ValueError):
    """A setting that cannot be used; the message names the variable and its value. It
    ends the start and never reaches a caller."""


class FluxError(Exception):
    """A failure that nobody foresaw.

    Each kind has an HTTP ``status`` and OpenAI's ``type`` and ``code``. ``param`` names
    the request parameter at fault, ``retry_after`` is in seconds (1..60),
    ``should_retry`` False marks a failure that the same request would meet again
    (OpenAI clients otherwise retry every 5xx twice). ``limits`` says what the message
    says of numbers: ``minimum``, ``maximum``, ``multiple``, ``given``.
    """

    status = 500
    code = "internal_error"
    should_retry = True

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        limits: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or type(self).code
        self.retry_after = retry_after
        self.limits = limits or {}

    @property
    def type(self) -> str:
        """Whose fault it is, in OpenAI's words."""
        return "server_error" if self.status >= 500 else "invalid_request_error"


class InvalidRequest(FluxError):
    """A parameter that is missing, malformed, out of range or cannot be honoured."""

    status = 400
    code = "invalid_value"


class NotJson(InvalidRequest):
    """A body that is to be JSON and is none."""


def missing_parameter(name: str, *notes: str) -> InvalidRequest:
    """The error for a request without ``name``, with what may have been meant."""
    message = " ".join((f"Missing required parameter: '{name}'.", *notes))
    return InvalidRequest(message, param=name, code="missing_required_parameter")


class InvalidImage(FluxError):
    """Bytes that are no acceptable picture."""

    status = 400
    type = "image_generation_user_error"
    code = "invalid_image_file"


class ImageFetchFailed(FluxError):
    """A picture's URL that could not be fetched, whatever the reason."""

    status = 400
    code = "image_fetch_failed"


class WebhookRefused(FluxError):
    """A webhook that this server may not send, or cannot keep until it is sent."""

    status = 400
    code = "webhook_refused"


class ContentFiltered(FluxError):
    """A finished picture that the operator's filter refused."""

    status = 400
    type = "image_generation_user_error"
    code = "content_filtered"


class Unauthorized(FluxError):
    """No API key, or none that is known."""

    status = 401
    code = "invalid_api_key"


class CrossSiteRequest(FluxError):
    """A web page's call that the operator has not allowed."""

    status = 403
    code = "cross_site_request"


class UntrustedHost(FluxError):
    """A call under a name that is not this server's."""

    status = 403
    code = "untrusted_host"


class ModelNotFound(FluxError):
    """A model that this server does not offer."""

    status = 404
    code = "model_not_found"


class JobNotFound(FluxError):
    """No such job, or not one of this caller's."""

    status = 404
    code = "job_not_found"


class BodyTimeout(FluxError):
    """A request whose body came too slowly to wait for."""

    status = 408
    code = "request_timeout"


class JobConflict(FluxError):
    """A job id that is in use."""

    status = 409
    code = "job_id_in_use"
    should_retry = False


class JobNotDone(FluxError):
    """A job whose pictures are asked for before they are made."""

    status = 409
    code = "job_not_done"


class StillWorking(FluxError):
    """What can only be done while no request is worked on."""

    status = 409
    code = "still_working"


class ResultExpired(FluxError):
    """A picture that was made and is no longer kept."""

    status = 410
    code = "result_expired"


class KeyInUse(FluxError):
    """An idempotency key whose first request still runs: ask again for its answer."""

    status = 409
    code = "idempotency_key_in_use"


class KeyReused(FluxError):
    """An idempotency key that came with another request before."""

    status = 422
    code = "idempotency_key_reused"


class PayloadTooLarge(FluxError):
    """A request body over the limit."""

    status = 413
    code = "payload_too_large"


class UnsupportedMedia(InvalidRequest):
    """A body that is neither a form nor JSON, or packed in a way that is not read."""

    status = 415
    code = "unsupported_media_type"


class QueueFull(FluxError):
    """Every place in the queue is taken."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class PipelineFailed(FluxError):
    """The pipeline raised, or made nothing that could be delivered."""

    code = "generation_failed"
    should_retry = False


class Unavailable(FluxError):
    """Loading, draining, or short of memory for a moment: worth another try."""

    status = 503
    type = "service_unavailable_error"
    code = "server_is_overloaded"


class DeadlineExceeded(FluxError):
    """The request took longer than it may."""

    status = 504
    code = "timeout"
    should_retry = False


class InsufficientStorage(FluxError):
    """Too large for the memory that there is."""

    status = 507
    code = "insufficient_storage"
    should_retry = False


class Cancelled(FluxError):
    """The caller asked for a stop or went away."""

    status = 499
    type = "cancelled"
    code = "cancelled"
    should_retry = False


def shortage(error: BaseException) -> Unavailable | None:
    """What to tell the caller where ``error``, which nobody foresaw, says that this
    machine is short of memory, descriptors, threads or disk; None where it does not."""
    # By what the machine says, wherever it was said: callers can only try again.
    number = error.errno if isinstance(error, OSError) else None
    words = str(error) if isinstance(error, RuntimeError) else ""
    if number in _FULL:
        message = "The server's disk is full; try again later."
    elif (
        number in _SHORT
        or isinstance(error, MemoryError)
        or words in _SHORT_WORDS
        or "DefaultCPUAllocator: can't allocate memory" in words
    ):
        message = "The server is short of resources; try again."
    else:
        return None
    return Unavailable(message, retry_after=5)
