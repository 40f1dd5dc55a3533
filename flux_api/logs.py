"""Logs: one JSON object a line on standard error, so that no caller's text can forge a
line. Knows nothing of the rest: ``gunicorn.conf.py`` loads this file by itself.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime


class JsonFormatter(logging.Formatter):
    """Renders a record, with what was given as ``extra={"fields": ...}``, as JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """The one line."""
        when = datetime.fromtimestamp(record.created, UTC)
        line = {
            "time": when.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        # Nothing but ASCII: line ends, escapes and lone surrogates come out as \u....
        return json.dumps(line, default=str)


def configure(level: str = "info") -> None:
    """Let this package log from ``level`` on, and everything else its warnings; to
    standard error unless someone handles the root's records already."""
    logging.getLogger("flux_api").setLevel(level.upper())
    root = logging.getLogger()
    if root.handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root.addHandler(handler)
    logging.captureWarnings(True)
