"""Reason phrases: the few words behind the status, all that some clients show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http import HTTPStatus

from flux_api.errors import FluxError

# ASCII: nothing of what the caller sent is repeated, a parameter's name apart.
BY_CODE = {
    "cancelled": "The request was cancelled",
    "concurrency_limit_exceeded": "You have too many requests, wait for one",
    "content_filtered": "The content filter refused this picture",
    "cross_site_request": "Pages of other sites may not call this server",
    "generation_failed": "The model failed on this request",
    "idempotency_key_in_use": "The first request with this key still runs",
    "idempotency_key_reused": "This key came with another request",
    "image_fetch_failed": "An image URL could not be fetched",
    "insufficient_storage": "Out of memory, ask for a smaller picture",
    "internal_error": "Something went wrong in the server",
    "invalid_api_key": "Missing or wrong API key",
    "invalid_image_file": "Unreadable image, send PNG, JPEG or WebP",
    "invalid_mask_image_format": "The mask must have the shape of the image",
    "invalid_request": "The request is malformed",
    "job_id_in_use": "This job id is in use",
    "job_not_done": "The job has not ended yet",
    "job_not_found": "There is no such job",
    "method_not_allowed": "Method not allowed",
    "model_loading": "The model is still loading, try again soon",
    "model_not_found": "No such model, see /v1/models",
    "model_not_loaded": "The model cannot be loaded, see /v1/status",
    "not_found": "Nothing at this address",
    "payload_too_large": "The upload is too large",
    "rate_limit_exceeded": "The queue is full, try again later",
    "recipe_inputs_missing": "Send the pictures that the recipe needs",
    "recipe_not_found": "No recipe is stored for that picture",
    "recipes_not_readable": "This server cannot read recipes",
    "request_timeout": "The request's body came too slowly",
    "result_expired": "This picture is no longer kept",
    "server_is_overloaded": "The server is not ready, try again soon",
    "still_working": "Requests are being worked on, try again later",
    "timeout": "The picture took too long",
    "too_many_watchers": "Too many connections watch jobs",
    "unsupported_media_type": "Send a form or JSON",
    "untrusted_host": "This server is not known under that name",
    "webhook_refused": "This webhook may not be sent",
}
BY_PARAM = {
    "background": "Invalid background, transparent is not supported",
    "output_format": "Invalid output_format, use png, jpeg or webp",
}
# The status line takes what we could have written, nothing else of a caller's.
_PARAM = re.compile(r"[a-z_]{1,32}")
# How messages end that know a value which would do.
_ADVICE = re.compile(r"; (try [a-z]{0,8}=?\d{1,5}(?:x\d{1,5})?)\.$")


def reason_of(error: FluxError) -> str:
    """What a person can act on, for the status line of ``error``'s answer."""
    if error.code in BY_CODE:
        return BY_CODE[error.code]
    param = error.param or ""
    if error.status == HTTPStatus.BAD_REQUEST and _PARAM.fullmatch(param):
        if error.code == "missing_required_parameter":
            return f"Missing {param}"
        if error.code == "unsupported_parameter":
            return f"Unsupported {param}"
        if error.code == "array_above_max_length":
            return ", ".join((f"Too many pictures in {param}", *_advice(error)))
        return BY_PARAM.get(param) or ", ".join((f"Invalid {param}", *_advice(error)))
    return HTTPStatus(error.status).phrase


def _advice(error: FluxError) -> Iterator[str]:
    """What would do, where the message ends with it, else as its bounds say."""
    if found := _ADVICE.search(error.message):
        yield found[1]
        return
    for name, word in (("minimum", "at least"), ("maximum", "at most")):
        if name in error.limits:
            yield f"{word} {error.limits[name]}"
