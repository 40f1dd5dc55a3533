"""Request bodies, form or JSON, to plain values and uploaded bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from flask import Request
from werkzeug.datastructures import ImmutableMultiDict
from werkzeug.exceptions import UnsupportedMediaType

from flux_api.errors import InvalidRequest
from flux_api.http.body_stream import CountedInput, drain

FORM_TYPES = ("multipart/form-data", "application/x-www-form-urlencoded")
_DEEPEST_JSON = 32
# Brackets and commas; a long text has some, small values by the million block everyone.
_LARGEST_JSON = 100_000


@dataclass(frozen=True, slots=True)
class Upload:
    """One file part: the form's name for it, and its bytes."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Body:
    """``values`` by name (a form's are text, the first of each name), ``uploads`` in
    the order of arrival."""

    values: dict[str, Any]
    uploads: list[Upload]

    @property
    def parts(self) -> list[tuple[str, Any]]:
        """Files (their bytes) and then values, each by name and in the order of
        arrival."""
        return [*((u.name, u.data) for u in self.uploads), *self.values.items()]

    def files(self, *names: str) -> Iterator[bytes]:
        """The bytes of the uploads called ``names``."""
        return (upload.data for upload in self.uploads if upload.name in names)


def read_body(request: Request) -> Body:
    """The body of a form post or a JSON post. InvalidRequest when it is cut off or
    malformed, UnsupportedMediaType when it is neither."""
    media_type = request.mimetype
    if media_type in FORM_TYPES:
        return _read_form(request)
    if media_type == "application/json" or media_type.endswith("+json"):
        return Body(_read_json(request), [])
    if not media_type and not request.get_data():
        return Body({}, [])
    raise UnsupportedMediaType("Send a form or JSON.")


class _InOrder(ImmutableMultiDict[str, Any]):
    """A form's parts that also remembers the order between different names."""

    def __init__(self, pairs: Iterable[tuple[str, Any]] = ()) -> None:
        self.arrived = list(pairs)
        super().__init__(self.arrived)


def _read_form(request: Request) -> Body:
    if request.mimetype != "multipart/form-data":
        # Werkzeug counts the parts of multipart forms only.
        most = request.max_form_parts or 0
        if request.get_data().count(b"&") >= most:
            raise InvalidRequest(f"The form has more than {most} fields.")
    request.parameter_storage_class = _InOrder
    # Reading `files` parses the whole form.
    files: ImmutableMultiDict[str, Any] = request.files
    pairs = files.arrived if isinstance(files, _InOrder) else files.items(multi=True)
    uploads = [
        Upload(name, storage.read())
        for name, storage in pairs
        # A browser's form sends an empty part for a file that was not chosen.
        if storage.filename
    ]
    _check_complete(request)
    values: dict[str, Any] = {}
    for name, texts in request.form.lists():
        values[name] = texts[0] if len(texts) == 1 else texts
    if None in values or any(upload.name is None for upload in uploads):
        raise InvalidRequest("A part of the form has no name.")
    if not values and not uploads and request.mimetype == "multipart/form-data":
        raise InvalidRequest("The form is empty or was cut off.")
    return Body(values, uploads)


def _read_json(request: Request) -> dict[str, Any]:
    data = request.get_data(cache=False)
    _check_complete(request)
    if sum(map(data.count, (b"[", b"{", b","))) > _LARGEST_JSON:
        raise InvalidRequest("The JSON has too many values.")
    try:
        value = json.loads(data, parse_constant=_refuse_constant)
        if _depth(value) > _DEEPEST_JSON:
            raise RecursionError
    except RecursionError:
        raise InvalidRequest("The JSON is nested too deeply.") from None
    except (ValueError, UnicodeDecodeError):
        raise InvalidRequest("The body is not valid JSON.") from None
    if not isinstance(value, dict):
        raise InvalidRequest("The body must be a JSON object.")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _depth(value: object) -> int:
    deepest, level = 0, [value]
    while level and deepest <= _DEEPEST_JSON:
        deepest += 1
        level = [
            child
            for item in level
            if isinstance(item, (dict, list))
            for child in (item.values() if isinstance(item, dict) else item)
        ]
    return deepest


def _check_complete(request: Request) -> None:
    stream = request.environ.get("wsgi.input")
    expected = request.content_length
    if isinstance(stream, CountedInput) and expected is not None:
        drain(request, expected)
        if stream.count < expected:
            raise InvalidRequest("The request body was cut off.")
