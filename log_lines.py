"""The lines of every log: readable ones on a terminal, elsewhere JSON, one object each.

Both applications and ``gunicorn.conf.py`` write them. No caller's text can forge a
line or move a terminal's cursor.
"""

from __future__ import annotations

import codecs
import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO


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
        return json_line(line)


class AsciiJsonFormatter(JsonFormatter):
    """The same in ASCII, for a stream in an encoding that lacks letters."""

    def format(self, record: logging.LogRecord) -> str:
        """The one line."""
        return json.dumps(json.loads(super().format(record)))


class TerminalFormatter(logging.Formatter):
    """Renders a record for a person: the time of day, the level where it matters, the
    message, and the fields as ``name=value``."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; a traceback follows on lines of its own."""
        fields: dict[str, Any] = dict(getattr(record, "fields", {}))
        message = record.getMessage()
        if message == "request":
            method = fields.pop("method")
            path = fields.pop("path", None) or fields.pop("route")
            status, ms = fields.pop("status"), fields.pop("ms")
            message = f"{method} {path} {status} {ms / 1000:.2f} s"
        parts = [f"{datetime.fromtimestamp(record.created):%H:%M:%S}"]
        if record.levelno >= logging.WARNING:
            parts.append(record.levelname)
        parts += [message, *(f"{name}={value}" for name, value in fields.items())]
        lines = [" ".join(parts)]
        if record.exc_info:
            lines += self.formatException(record.exc_info).splitlines()
        return "\n    ".join(map(_printable, lines))


def json_line(value: object) -> str:
    """``value`` as JSON on one line, which UTF-8 can encode whatever is in it: letters
    as they are, so that they can be searched for; line ends, escapes and halves of
    surrogate pairs by their numbers."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    # Whatever is not printable stands in a string, where its escape means the same.
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def formatter_for(stream: TextIO) -> logging.Formatter:
    """What suits the ``stream`` that a handler writes to."""
    if stream.isatty():
        return TerminalFormatter()
    is_utf_8 = codecs.lookup(stream.encoding or "utf-8").name == "utf-8"
    return JsonFormatter() if is_utf_8 else AsciiJsonFormatter()


def configure(package: str, level: str = "info") -> None:
    """Let ``package`` log from ``level`` on, and everything else its warnings; to
    standard error unless someone handles the root's records already."""
    logging.getLogger(package).setLevel(level.upper())
    root = logging.getLogger()
    if root.handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter_for(sys.stderr))
    root.addHandler(handler)
    logging.captureWarnings(True)


def _printable(line: str) -> str:
    """``line`` with what is no letter, mark, sign or blank as its escape."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
