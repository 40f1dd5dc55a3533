"""The page for people: static files under a strict policy; all that it does goes
through the API."""

from __future__ import annotations

import mimetypes
from pathlib import Path

from flask import Blueprint, Response, abort, request, send_file

from flux_api.blueprints.service import describe_server

# A blueprint of this name needs no key; what the page calls does.
bp = Blueprint("page", __name__)

PAGE = Path(__file__).resolve().parent.parent / "page"
FILES = {
    path.relative_to(PAGE).as_posix(): path
    for path in PAGE.rglob("*")
    if path.is_file()
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
# Debian's table has another type for .js than Python's own.
_TYPES = {".js": "text/javascript"}


@bp.get("/")
def index() -> Response:
    """The page where HTML is asked for, as browsers do; else what this server is, as
    JSON."""
    accepted = request.accept_mimetypes
    # curl and programs take anything; only browsers like HTML better.
    if accepted.quality("text/html") > accepted.quality("application/json"):
        response = send("index.html")
    else:
        response = describe_server()
    response.vary.add("Accept")
    return response


@bp.get("/page/<path:name>")
def file(name: str) -> Response:
    """One of the page's files."""
    if name not in FILES:
        abort(404)
    return send(name)


def send(name: str) -> Response:
    """The file, under the pages' policy."""
    path = FILES[name]
    kind = _TYPES.get(path.suffix) or mimetypes.guess_type(name)[0]
    response = send_file(path, mimetype=kind, conditional=True, etag=True)
    # Asked for anew each time, answered by 304: the page never mixes two versions.
    response.headers["Cache-Control"] = "no-cache"
    response.headers["Content-Security-Policy"] = POLICY
    return response
