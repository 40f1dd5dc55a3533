"""Request bodies, form or JSON, to plain values and uploaded bytes."""

from __future__ import annotations

import codecs
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.sansio.multipart import (
    Data,
    Epilogue,
    Field,
    File,
    NeedData,
)

from flux_api.errors import InvalidRequest, PayloadTooLarge, UnsupportedMedia
from flux_api.http.body_text import TextRoom, read_fields, read_json, read_text
from flux_api.images.decoder import is_picture
from flux_server.incoming import CountedInput, drain
from flux_server.multipart import LenientDecoder

_CHUNK = 65_536
# A part's headers are read at once, a line at a time, at many times their size.
_MOST_HEADERS = 2 * _CHUNK
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# A picture in Base64 packs to three quarters, text to a tenth: what packs to less is a
# few bytes that would cost a whole body's memory.
_MOST_UNPACKED = 20
_SMALL = 4 << 20
_QUOTED = (
    "The body is JSON in quotes: send it without them. Windows' command line wants "
    r'-d "{\"prompt\": \"a cat\"}".'
)


@dataclass(frozen=True, slots=True)
class Upload:
    """One file part: the form's name for it, and its bytes."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Body:
    """``values`` by name (a form's are text, a list of those that came under one
    name), ``uploads`` in the order of arrival."""

    values: dict[str, Any]
    uploads: list[Upload]

    @property
    def parts(self) -> list[tuple[str, Any]]:
        """Files (their bytes) and then values, each by name and in the order of
        arrival."""
        return [*((u.name, u.data) for u in self.uploads), *self.values.items()]


def read_body(request: Request) -> Body:
    """The body of a form post or a JSON post, packed with gzip or not. InvalidRequest
    when it is cut off or malformed, UnsupportedMedia when it is neither."""
    stream = _unpacked(request)
    if request.mimetype == "multipart/form-data":
        return _read_multipart(request, stream)
    data = stream.read()
    _check_complete(request)
    if request.environ.get("wsgi.input_terminated") and _goes_on(request):
        raise RequestEntityTooLarge
    # Windows' editors begin a file with a byte order mark.
    start = data[:1024].removeprefix(codecs.BOM_UTF8).lstrip()
    if start[:2] in (b"'{", b'"{'):
        raise InvalidRequest(_QUOTED)
    most = request.max_form_parts or 0
    # What `curl -d` sends without a header of its own, or from hand-written clients; a
    # form is never in UTF-16.
    is_json = start[:1] in (b"{", b"[") or data.startswith(_UTF_16)
    if is_json or request.mimetype.rpartition("+")[2] in ("application/json", "json"):
        return Body(read_json(data, most), [])
    if request.mimetype == "application/x-www-form-urlencoded":
        return _body_of(read_fields(data, most), [])
    if not request.mimetype and not data:
        return Body({}, [])
    raise UnsupportedMedia(
        "Send a form, or JSON with the header 'Content-Type: application/json'."
    )


def _goes_on(request: Request) -> bool:
    """Whether more came than may: a chunked body ends at the limit without a word."""
    return bool(request.environ["wsgi.input"].read(1))


def _unpacked(request: Request) -> IO[bytes]:
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding in ("identity", ""):
        return request.stream
    if encoding not in ("gzip", "x-gzip"):
        raise UnsupportedMedia(
            f"The Content-Encoding '{encoding[:40]}' is not read: send the body with "
            "gzip or as it is."
        )
    packed, limit = request.get_data(cache=False), request.max_content_length or 0
    most = min(limit, max(_SMALL, _MOST_UNPACKED * len(packed)))
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        # One byte more than may be: enough to know, whatever it would unpack to.
        data = unpacker.decompress(packed, most + 1)
    except zlib.error:
        raise InvalidRequest("The body is not valid gzip.") from None
    if len(data) > most:
        raise PayloadTooLarge(
            f"The unpacked body is larger than {limit // 2**20} MiB."
            if most == limit
            else f"The body unpacks to more than {_MOST_UNPACKED} times its size: send "
            "it as it is, without gzip."
        )
    if not unpacker.eof:
        raise InvalidRequest("The request body was cut off.")
    return io.BytesIO(data)


def _read_multipart(request: Request, stream: IO[bytes]) -> Body:
    fields: list[tuple[str, str]] = []
    uploads: list[Upload] = []
    try:
        for part, data in _split(request, stream):
            if part.name is None:
                raise InvalidRequest("A part of the form has no name.")
            if "\ufffd" in part.name:
                raise InvalidRequest("The name of a field in the form is not UTF-8.")
            if isinstance(part, Field) and (text := _text_of(part, data)) is not None:
                fields.append((part.name, text))
            # A browser's form sends an empty part for a file that was not chosen.
            elif isinstance(part, Field) or part.filename or data:
                uploads.append(Upload(part.name, data))
    except ValueError:
        # A body that was cut off is malformed, too, and that is what its sender needs.
        fields, uploads = [], []
    _check_complete(request)
    if not fields and not uploads:
        raise InvalidRequest("The form is empty or was cut off.")
    return _body_of(fields, uploads)


def _split(request: Request, stream: IO[bytes]) -> Iterator[tuple[Field | File, bytes]]:
    """The parts of a multipart form; ValueError where it is malformed. Werkzeug's own
    reader guesses at text that is not UTF-8 and loses the parts' order."""
    boundary = request.mimetype_params.get("boundary", "").encode("ascii")
    if not boundary:
        raise InvalidRequest(
            "The form's Content-Type has no boundary: let the client set that header "
            "itself."
        )
    most = request.max_form_parts
    decoder = LenientDecoder(boundary, _MOST_HEADERS, max_parts=most)
    room, data = TextRoom(), list[bytes]()
    while not isinstance(event := decoder.next_event(), Epilogue):
        if isinstance(event, NeedData):
            piece = stream.read(_CHUNK) or None
            try:
                decoder.receive_data(piece)
            except RequestEntityTooLarge:
                message = "The form has more than 64 KiB in front of a part, or behind."
                raise PayloadTooLarge(message) from None
        elif isinstance(event, Field | File):
            part, data = event, []
            room.take("", sum(len(name) + len(text) for name, text in part.headers))
        elif isinstance(event, Data):
            data.append(event.data)
            if isinstance(part, Field):
                room.take(part.name or "", len(event.data))
            if not event.more_data:
                yield part, b"".join(data)


def _text_of(part: Field, data: bytes) -> str | None:
    """A part without a file name as text; None where its bytes are a picture, which
    some clients send so."""
    try:
        return read_text(data)
    except UnicodeDecodeError:
        if is_picture(data):
            return None
    name = part.name[:64]
    raise InvalidRequest(f"Invalid '{name}': the text is not UTF-8.", param=name)


def _body_of(fields: list[tuple[str, str]], uploads: list[Upload]) -> Body:
    values: dict[str, Any] = {}
    for name, text in fields:
        values.setdefault(name, []).append(text)
    for name, texts in values.items():
        values[name] = texts[0] if len(texts) == 1 else texts
    return Body(values, uploads)


def _check_complete(request: Request) -> None:
    stream = request.environ.get("wsgi.input")
    expected = request.content_length
    if isinstance(stream, CountedInput) and expected is not None:
        drain(request.environ, expected)
        if stream.count < expected:
            raise InvalidRequest("The request body was cut off.")
