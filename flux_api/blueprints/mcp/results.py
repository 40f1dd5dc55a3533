"""Results of tools: facts as JSON, pictures as content or as links."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from flask import Response, request

from flux_api.blueprints.mcp.messages import to_result
from flux_api.blueprints.mcp.parameters import Form, ToolParameters
from flux_api.core import Completed, ImageResult
from flux_api.http.context import Context
from flux_api.http.pictures import encode_pictures, to_base64, upload_pictures
from flux_api.queue.jobs import Job
from flux_api.queue.results import FinishedPicture


def encode(
    context: Context,
    job: Job,
    parameters: ToolParameters,
    results: tuple[ImageResult, ...],
) -> list[FinishedPicture]:
    """The pictures as files, stored where they are linked to."""
    pictures = encode_pictures(context, job, parameters, results)
    if parameters.result == "link":
        return upload_pictures(context, job, pictures)[0]
    return pictures


def find_pictures(context: Context, job: Job) -> list[FinishedPicture] | None:
    """The pictures of ``job``, None where they are not made or no longer kept."""
    done = isinstance(job.outcome, Completed)
    return context.results.pictures(job) if done else None


def to_facts(facts: dict[str, Any], notes: Sequence[str] = ()) -> Response:
    """A result without pictures; ``notes`` are on what was ignored."""
    return to_result(_result([], facts, notes))


def to_pictures(
    job: Job, form: Form, pictures: list[FinishedPicture], notes: Sequence[str] = ()
) -> Response:
    """The pictures of ``job`` in the ``form`` that is asked for, and what made them."""
    facts = {"job_id": job.id, "pictures": [dict(p.facts) for p in pictures]}
    if form == "link":
        blocks = [_link(job, *numbered) for numbered in enumerate(pictures)]
    else:
        blocks = [
            {"type": "image", "data": to_base64(p.data), "mimeType": p.media_type}
            for p in pictures
        ]
    return to_result(_result(blocks, facts, notes))


def _link(job: Job, index: int, picture: FinishedPicture) -> dict[str, Any]:
    origin = request.host_url.rstrip("/")
    extension = picture.media_type.rpartition("/")[2]
    return {
        "type": "resource_link",
        "uri": picture.url or f"{origin}/jobs/{job.id}/result?index={index}",
        "name": f"{job.id}-{index}.{extension}",
        "mimeType": picture.media_type,
    }


def _result(
    blocks: list[dict[str, Any]], facts: dict[str, Any], notes: Sequence[str]
) -> dict[str, Any]:
    if notes:
        earlier = [facts["warning"]] if "warning" in facts else []
        facts = facts | {"warning": " ".join([*notes, *earlier])}
    # Both: older clients read the text, newer ones the structure.
    text = {"type": "text", "text": json.dumps(facts, ensure_ascii=False)}
    content = [*blocks, text]
    return {"content": content, "structuredContent": facts, "isError": False}
