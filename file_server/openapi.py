"""The file server's description for programs, OpenAPI 3.1 at ``/openapi.json``."""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from typing import Any

from flask import Blueprint, Flask, Response, current_app, jsonify

from . import errors
from .errors import FileServerError
from .media import EXTENSIONS, media_type
from .views import context

VERSION = "0.1.0"
Schema = dict[str, Any]

bp = Blueprint("openapi", __name__)


@bp.get("/openapi.json")
def document() -> Response:
    """This description, as OpenAPI 3.1."""
    return jsonify(describe(current_app, with_token=bool(context().upload_token())))


def _record(**fields: Schema) -> Schema:
    return {"type": "object", "required": list(fields), "properties": fields}


_JSON = "application/json"
_TEXT: Schema = {"type": "string"}
_MESSAGE = {_JSON: {"schema": _record(error=_TEXT)}}
_KINDS = dict.fromkeys(media_type(name) for name in EXTENSIONS if name != "jpeg")
_FILES: Schema = {
    name: {"schema": {}} for name in (*_KINDS, "application/octet-stream")
}
_NAME = rf"^[0-9a-f]{{32}}\.({'|'.join(EXTENSIONS)})$"
_NAME_OR_ID = rf"^[0-9a-f]{{32}}(\.({'|'.join(EXTENSIONS)}))?$"
_PART_OF_FILE = {
    "206": {"description": "The range that was asked for.", "content": _FILES},
    "304": {"description": "It has not changed."},
    "412": {"description": "It does not meet the condition.", "content": _MESSAGE},
    "416": {"description": "It has no such range.", "content": _MESSAGE},
}
_UPLOAD = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {
                    "file": {"type": "string", "format": "binary"},
                    "recipe": {"type": "string", "contentMediaType": _JSON},
                },
            }
        }
    },
}


def _json(**fields: Schema) -> Schema:
    return {_JSON: {"schema": _record(**fields)}}


_STORE = (errors.StorageUnavailable,)
_TOKEN = (errors.Unauthorized, errors.Forbidden)
_OPERATIONS: dict[str, tuple[Schema, tuple[type[FileServerError], ...], Schema]] = {
    # View: a good answer, the errors beside 500, other answers.
    "index": (_json(name=_TEXT, about=_TEXT, routes={"type": "object"}), (), {}),
    "upload": (
        _json(url=_TEXT),
        (
            *(errors.BadUpload, errors.Forbidden, errors.TooSlow, errors.TooLarge),
            *(errors.NotAnImage, errors.StorageFull, *_STORE),
        ),
        {},
    ),
    "fetch": (_FILES, (errors.FileMissing, *_STORE), _PART_OF_FILE),
    "recipe": (
        {_JSON: {"schema": {"type": "object"}}},
        (*_TOKEN, errors.FileMissing, *_STORE),
        {},
    ),
    "latest": (
        _json(url=_TEXT, updated_at=_TEXT),
        (*_TOKEN, errors.BadUpload, errors.FileMissing, *_STORE),
        {},
    ),
    "latest_raw": (_FILES, (*_TOKEN, errors.FileMissing, *_STORE), _PART_OF_FILE),
    "healthz": (_json(status=_TEXT), (), {}),
    "readyz": (_json(status=_TEXT), _STORE, {}),
    "metrics": ({"text/plain": {"schema": _TEXT}}, _TOKEN, {}),
    "document": ({_JSON: {"schema": {}}}, (), {}),
}


def describe(app: Flask, *, with_token: bool) -> Schema:
    """The document of ``app``; ``with_token`` says that uploads need one."""
    paths: dict[str, Schema] = defaultdict(dict)
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<(\w+)>", r"{\1}", rule.rule)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            name = rule.endpoint.rpartition(".")[2]
            needs_token = name in ("recipe", "latest", "latest_raw", "metrics")
            needs_token |= name == "upload" and with_token
            view = app.view_functions[rule.endpoint]
            operation = _describe(name, inspect.getdoc(view) or "", needs_token)
            paths[path][method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Image file server",
            "version": VERSION,
            "description": "Keeps pictures and hands them out under unguessable names.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "tags": [{"name": "Files"}],
        "paths": paths,
        "components": {
            "schemas": {},
            "responses": {},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _describe(name: str, text: str, needs_token: bool) -> Schema:
    answer, kinds, others = _OPERATIONS[name]
    if needs_token:
        kinds = tuple(dict.fromkeys((*_TOKEN, *kinds)))
    by_status: dict[int, list[str]] = defaultdict(list)
    every: tuple[type[FileServerError], ...] = (*kinds, FileServerError)
    for kind in every:
        by_status[kind.status].append(inspect.getdoc(kind) or "")
    responses = {
        "200": {"description": "Done.", "content": answer},
        **others,
        **{
            str(status): {"description": " ".join(texts), "content": _MESSAGE}
            for status, texts in by_status.items()
        },
    }
    parameter = {"name": "fid", "in": "path", "required": True}
    parameter |= {"schema": _TEXT | {"pattern": _NAME}, "example": f"{'0' * 32}.png"}
    if name == "recipe":
        parameter["schema"] = _TEXT | {"pattern": _NAME_OR_ID}
    return {
        "operationId": name,
        "summary": text,
        "tags": ["Files"],
        "parameters": [parameter] if name in ("fetch", "recipe") else [],
        "security": [{"bearer": []}] if needs_token else [],
        "responses": dict(sorted(responses.items())),
        **({"requestBody": _UPLOAD} if name == "upload" else {}),
    }
