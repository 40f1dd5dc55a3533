"""One log line a request, written when its answer is out."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterable, Iterator
from typing import Any

from flask import Response, g, request

from flux_api.core import Failed
from flux_api.http.access import CALLER
from flux_api.http.context import get_context
from flux_api.queue.jobs import Job
from flux_server.trace import traceparent_of

logger = logging.getLogger(__name__)

# Strangers choose it, and each line is kept.
_LONGEST_PATH = 200


def begin() -> None:
    """Note when the request came."""
    g.began = time.monotonic()


def follow(response: Response) -> Response:
    """Log the request once its answer is out."""
    facts, began, job = _about_request(), g.began, g.get("job")
    if job is not None:
        facts |= _about_job(job, prompts=get_context().settings.log_prompts)
    level = _level_of(request.blueprint, response.status_code)
    sent: list[int] = []
    if response.is_streamed:
        response.response = _count(response.iter_encoded(), sent)

    @response.call_on_close
    def write() -> None:
        spent = round((time.monotonic() - began) * 1000)
        streamed = response.is_streamed
        size = sum(sent) if streamed else response.calculate_content_length()
        facts.update(status=response.status_code, ms=spent, bytes=size)
        if job is not None:
            facts.update(outcome_fields(job))
        fields = {name: fact for name, fact in facts.items() if fact is not None}
        logger.log(level, "request", extra={"fields": fields})

    return response


def _level_of(blueprint: str | None, status: int) -> int:
    """Probes come all the time, and 503 says that one has to wait."""
    if blueprint in ("service", "metrics"):
        return logging.DEBUG
    if status == 503:
        return logging.WARNING
    return logging.ERROR if status >= 500 else logging.INFO


def _about_request() -> dict[str, Any]:
    """Who asked for what; never a query, a header or a body."""
    rule = request.url_rule
    return {
        "request_id": g.get("request_id"),
        "traceparent": traceparent_of(request.environ),
        "method": request.method[:16],
        "route": rule.rule if rule else None,
        "path": None if rule else request.path[:_LONGEST_PATH],
        "remote": request.remote_addr,
        "caller": request.environ.get(CALLER),
        "error": g.get("error_code"),
        "replayed": g.get("replayed"),
    }


def _about_job(job: Job, *, prompts: bool) -> dict[str, Any]:
    """What was to be made; the prompt in full only where ``prompts``."""
    facts: dict[str, Any] = {"job_id": job.id}
    if not job.is_complete:
        return facts
    image_request = job.request
    facts |= {
        "mode": image_request.mode,
        "model": image_request.model,
        "size": f"{image_request.width}x{image_request.height}",
        "images": image_request.num_images_per_prompt,
        "steps": image_request.num_inference_steps,
        "seed": image_request.seed_of(0),
    }
    for name, text in (
        ("prompt", image_request.prompt),
        ("negative_prompt", image_request.negative_prompt),
    ):
        if text and prompts:
            facts[name] = text
        elif text:
            digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
            facts |= {f"{name}_length": len(text), f"{name}_sha256": digest[:8]}
    return facts


def outcome_fields(job: Job) -> dict[str, Any]:
    """How ``job`` went, as fields of a log line."""
    facts: dict[str, Any] = {
        "state": job.state,
        "queue_seconds": round(job.queue_seconds, 3),
        "run_seconds": round(job.run_seconds, 3),
    }
    if isinstance(job.outcome, Failed):
        facts["error"] = job.outcome.error.code
    return facts


def _count(parts: Iterable[bytes], sent: list[int]) -> Iterator[bytes]:
    """The parts of an answer; their lengths go to ``sent`` as they are taken."""
    for part in parts:
        sent.append(len(part))
        yield part
