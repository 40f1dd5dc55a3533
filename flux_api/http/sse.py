"""Server-sent events on the wire: events, comments, nothing else.

No ``id:`` and no ``retry:`` lines: some clients take the block that follows one for an
event without data and fail on it.
"""

from __future__ import annotations

from typing import Any

from flux_api.http.json_text import to_ascii_json

MEDIA_TYPE = "text/event-stream"
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""Neither a browser nor nginx may hold events back."""


def frame_event(name: str, data: dict[str, Any]) -> bytes:
    """One event with its closing blank line; ``data`` as JSON on one line."""
    return b"event: %s\ndata: %s\n\n" % (name.encode("ascii"), to_ascii_json(data))


def frame_comment(text: str) -> bytes:
    """One line that every client skips, and that keeps the connection from being
    taken for dead."""
    return f": {' '.join(text.split())}\n\n".encode()
