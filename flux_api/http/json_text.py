"""JSON on its way out. A picture in Base64 is most of an answer, and Python's own
encoder looks at each of its characters."""

from __future__ import annotations

import json
from typing import Any

import orjson
from flask import Response
from flask.json.provider import JSONProvider


def to_json(value: Any) -> bytes:
    """``value`` as UTF-8; as ASCII where a text of it has half a surrogate pair, which
    a caller may have sent and UTF-8 cannot say."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return _escaped(value)


def to_ascii_json(value: Any) -> bytes:
    """``value`` as ASCII, for streams: some clients take U+2028 for a line's end."""
    text = to_json(value)
    return text if text.isascii() else _escaped(value)


def _escaped(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")


class Provider(JSONProvider):
    """What ``jsonify`` writes with."""

    def dumps(self, obj: Any, **_: Any) -> str:
        """As :func:`to_json`, as text."""
        return to_json(obj).decode()

    def loads(self, s: str | bytes, **_: Any) -> Any:
        """Python's own; request bodies are read elsewhere."""
        return json.loads(s)

    def response(self, *args: Any, **kwargs: Any) -> Response:
        """The answer with one value, or with named ones."""
        value = self._prepare_response_obj(args, kwargs)
        # The line's end is for those who look at it in a terminal.
        return Response(to_json(value) + b"\n", mimetype="application/json")
