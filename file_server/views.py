"""The routes: upload, pictures and their recipes, the latest, and the two probes."""

from __future__ import annotations

import hmac
import json
import logging
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta, timezone
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

from flask import Blueprint, Response, current_app, request
from flask.typing import ResponseReturnValue
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import HTTPException, PreconditionFailed
from werkzeug.sansio.utils import host_is_trusted
from werkzeug.wsgi import FileWrapper

from flux_server.incoming import SlowBody
from flux_server.pages import host_name, is_cross_site
from flux_server.watched_file import watch

from .config import DEFAULT_TOKEN, Settings, parse_token
from .errors import (
    ABOUT,
    BadUpload,
    FileMissing,
    Forbidden,
    NotAnImage,
    SettingsError,
    StorageFull,
    StorageUnavailable,
    TooLarge,
    TooSlow,
    Unauthorized,
)
from .media import HEAD_BYTES, is_name, recipe_name, sniff
from .storage import FULL, Storage, StoredFile

logger = logging.getLogger(__name__)

JST = timezone(timedelta(hours=9))
YEAR_SECONDS = 31_536_000
CHUNK_BYTES = 256 * 1024
_RANGE = re.compile(r"bytes=(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))")
# Of names that no registry gives away.
_LOCAL_SUFFIXES = (".localhost", ".local", ".internal", ".lan", ".home.arpa", ".svc")

bp = Blueprint("files", __name__)


@dataclass(frozen=True)
class Context:
    """What the views of one app work with."""

    settings: Settings
    storage: Storage
    bearer_token: Callable[[], str]
    upload_token: Callable[[], str]


def watch_token(variable: str, token: str, path: Path | None) -> Callable[[], str]:
    """The token that counts now: that of ``variable``, or what the file at ``path``
    says. SettingsError where that holds none."""
    try:
        return watch(f"{variable}_FILE", token, path, parse_token)
    except ValueError as error:
        raise SettingsError(str(error)) from None


def context() -> Context:
    """Return the current app's context."""
    return cast(Context, current_app.extensions["file_server"])


@bp.get("/")
def index() -> ResponseReturnValue:
    """Answer what this server is, and what it takes."""
    return {
        "name": "Image file server",
        "about": ABOUT,
        "routes": {
            "POST /upload": "store one image, multipart/form-data, as 'file'",
            "GET /i/<name>": "a stored image",
            "GET /i/<name>/recipe": "how it was made, with the bearer token",
            "GET /latest": "the newest one's URL and time, with the bearer token",
            "GET /latest/raw": "the newest one itself, with the bearer token",
            "GET /readyz": "whether images can be stored, and if not, why",
            "GET /metrics": "numbers for Prometheus, with the bearer token",
            "GET /openapi.json": "all of this for programs, as OpenAPI 3.1",
        },
    }


@bp.post("/upload")
def upload() -> ResponseReturnValue:
    """Store one image and answer its path."""
    settings = context().settings
    if token := context().upload_token():
        require_token(token)
    # Without a token any page that its user opens could fill the disk.
    elif is_cross_site(request.headers):
        raise Forbidden("Pages of other sites may not store pictures here.")
    file = cast(BinaryIO, _parse_upload().stream)
    head = file.read(HEAD_BYTES)
    if not head:
        raise BadUpload("The uploaded file is empty.")
    # The parser bounds the body, which is longer than the file in it.
    if file.seek(0, os.SEEK_END) > settings.max_upload:
        raise TooLarge
    # By its bytes: the name and the type are whatever the sender wrote.
    extension = sniff(head)
    if extension is None:
        raise NotAnImage
    name = context().storage.save(file, extension, _read_recipe())
    return {"url": f"/i/{name}"}


@bp.get("/i/<fid>")
def fetch(fid: str) -> ResponseReturnValue:
    """Answer a stored file; it never changes, so it may be kept for a year."""
    if not is_name(fid):
        raise FileMissing
    response = _deliver(context().storage.open(fid))
    response.headers["Access-Control-Allow-Origin"] = "*"
    return response


@bp.get("/i/<fid>/recipe")
def recipe(fid: str) -> ResponseReturnValue:
    """Answer how a stored picture was made, as its uploader told."""
    require_token(context().bearer_token())
    name = recipe_name(fid)
    if name is None:
        raise FileMissing
    response = Response(context().storage.recipe(name), mimetype="application/json")
    # It may hold prompts.
    response.headers["Cache-Control"] = "no-store"
    return response


@bp.get("/latest")
def latest() -> ResponseReturnValue:
    """Answer the newest upload's URL and its time in Japan."""
    settings = context().settings
    require_token(context().bearer_token())
    newest = context().storage.latest()
    return {
        "url": f"{settings.public_url or _request_base()}/i/{newest.name}",
        "updated_at": newest.uploaded_at.astimezone(JST).isoformat(timespec="seconds"),
    }


@bp.get("/latest/raw")
def latest_raw() -> ResponseReturnValue:
    """Answer the newest upload's bytes."""
    require_token(context().bearer_token())
    storage = context().storage
    try:
        file = storage.open(storage.latest().name)
    except FileMissing:
        # A new upload let the old latest expire between the two calls.
        file = storage.open(storage.latest().name)
    response = _deliver(file)
    response.headers["Cache-Control"] = "no-store"
    return response


@bp.get("/healthz")
def healthz() -> ResponseReturnValue:
    """Answer while the process lives."""
    return {"status": "ok"}


@bp.get("/readyz")
def readyz() -> ResponseReturnValue:
    """Answer 200 when uploads could be stored now, else 503 with the reason."""
    try:
        context().storage.check()
    except StorageFull as error:
        # Its status is an upload's.
        raise StorageUnavailable("There is no room left for pictures.") from error
    return {"status": "ready"}


def require_token(token: str) -> None:
    """Unauthorized or Forbidden unless the request has this bearer token."""
    # By hand: the framework's parser takes a token with "=" in it for parameters.
    header = request.headers.get("Authorization", "")
    scheme, _, given = header.partition(" ")
    if scheme.lower() != "bearer" or not given.strip():
        raise Unauthorized
    # Bytes: comparing texts raises an error for a letter beyond ASCII.
    sent = given.strip().encode("latin-1", "replace")
    if not hmac.compare_digest(sent, token.encode()):
        raise Forbidden
    # Everybody knows this one: a page could send it whose own name leads here (DNS
    # rebinding), and for the browser that page is this server's.
    if token == DEFAULT_TOKEN and not _is_local_name(host_name(request.host)):
        trusted = context().settings.trusted_hosts
        if not (trusted and host_is_trusted(request.host, trusted)):
            raise Forbidden(
                "The default BEARER_TOKEN counts under local names alone: set one of "
                "your own, or this name in FILES_TRUSTED_HOSTS."
            )


def _is_local_name(name: str) -> bool:
    """Whether ``name`` is an address, or a name that nobody can own on the internet."""
    try:
        ip_address(name.partition("%")[0])
    except ValueError:
        return "." not in name or name.endswith(_LOCAL_SUFFIXES)
    return True


def _parse_upload() -> FileStorage:
    if request.mimetype != "multipart/form-data":
        raise BadUpload
    try:
        file = request.files.get("file")
    except HTTPException:
        raise
    except SlowBody:
        raise TooSlow from None
    except FileNotFoundError as error:
        # No temporary folder takes a file: all of them are full.
        raise StorageFull from error
    except OSError as error:
        # Of the temporary file: a lost sender is an HTTPException by now.
        kind = StorageFull if error.errno in FULL else StorageUnavailable
        raise kind from error
    except Exception as error:  # the web server's own kinds for a broken body
        logger.info("a body is unreadable: %r", error)
        raise BadUpload("The body could not be read to its end.") from None
    if file is None:
        raise BadUpload
    return file


def _read_recipe() -> bytes:
    """What the upload says of how its picture was made; empty where it does not."""
    text = request.form.get("recipe", "")
    if not text:
        return b""
    try:
        if not isinstance(json.loads(text, parse_constant=_refuse_constant), dict):
            raise ValueError
    except (ValueError, RecursionError):
        raise BadUpload("The field 'recipe' has to be a JSON object.") from None
    return text.encode("utf-8", "replace")


def _refuse_constant(name: str) -> NoReturn:
    # Python reads and writes NaN, which is no JSON.
    raise ValueError(name)


def _request_base() -> str:
    # Not url_root: its path can be set by a header on the way.
    trusted = context().settings.trusted_hosts
    host = request.host
    if trusted and not host_is_trusted(host, trusted):
        raise BadUpload("The request came with a Host that this server does not have.")
    if not host:
        environ = request.environ
        host = f"{environ['SERVER_NAME']}:{environ['SERVER_PORT']}"
    return f"{request.scheme}://{host}"


def _deliver(file: StoredFile) -> Response:
    body = FileWrapper(file.stream, CHUNK_BYTES)
    response = Response(body, direct_passthrough=True)
    response.call_on_close(file.stream.close)
    response.content_length = file.size
    response.content_type = file.media_type or "application/octet-stream"
    if file.media_type is None:
        # Whatever lies there, no browser shows it as a page of ours.
        response.headers["Content-Disposition"] = "attachment"
    # Pages of other origins show these pictures.
    response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    response.headers["Cache-Control"] = f"public, max-age={_max_age(file)}, immutable"
    response.set_etag(file.name.partition(".")[0])
    response.last_modified = file.uploaded_at
    try:
        response.make_conditional(
            _range_environ(file.size), accept_ranges=True, complete_length=file.size
        )
        if response.status_code == HTTPStatus.PRECONDITION_FAILED:
            raise PreconditionFailed
    except HTTPException:
        response.close()
        raise
    return response


def _range_environ(size: int) -> dict[str, Any]:
    """The request's environment, without a range that is not served: RFC 9110 has the
    whole file answered then, where Werkzeug has 416."""
    environ = request.environ
    found = _RANGE.fullmatch(environ.get("HTTP_RANGE", ""))
    if found is None or (found[2] and int(found[2]) < int(found[1])):
        # Another unit, several ranges, or none: sections 14.2 and 14.1.1.
        return {k: v for k, v in environ.items() if k != "HTTP_RANGE"}
    if found[3] and int(found[3]) > size:
        # Section 14.1.2.
        return environ | {"HTTP_RANGE": "bytes=0-"}
    return environ


def _max_age(file: StoredFile) -> int:
    ttl = context().settings.ttl
    if not ttl:
        return YEAR_SECONDS
    left = file.uploaded_at.timestamp() + ttl - time.time()
    return max(0, min(YEAR_SECONDS, int(left)))
