"""The OpenAPI 3.1 document, made from the URL map, the parameter models and
``operations.py``."""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from flask import Flask
from werkzeug.routing import Rule

from flux_api.blueprints.bfl.routes import HostedName
from flux_api.blueprints.description.operations import (
    EXAMPLE_JOB,
    EXAMPLE_TASK,
    OPERATIONS,
    Content,
    Operation,
)
from flux_api.blueprints.description.request_bodies import describe_body, properties_of
from flux_api.blueprints.description.responses import SCHEMAS
from flux_api.blueprints.description.shapes import Schema, ref
from flux_api.core import VERSION
from flux_api.errors import FluxError, Unauthorized, UntrustedHost
from flux_api.http.access import OPEN_BLUEPRINTS
from flux_api.http.dialects import Dialect, dialect_of
from flux_api.http.parameters import CHOSEN_JOB_ID, JOB_ID

_ABOUT = """\
Pictures from prompts and pictures: the original API at `/process`, OpenAI's Images API
at `/v1`, and the jobs behind both. Bodies are forms or JSON. Every error names what is
wrong; `code` is a word that does not change, the message is for people.
"""
# The same views under other base URLs: described once, behind the first.
ALIASES = ("openai_jobs", "openai_bare", "azure_v1", "azure")
_PACKAGE = "flux_api.blueprints."
_VARIABLE = re.compile(r"<(?:\w+:)?(\w+)>")
_EXAMPLES = {
    "job_id": EXAMPLE_JOB,
    "deployment": "tiny",
    "name": "tiny",
    "hosted": "flux-2-pro",
    "task_id": EXAMPLE_TASK,
}
_PATTERNS = {"job_id": JOB_ID.pattern, "hosted": HostedName.regex}
_HEADERS: dict[str, Schema] = {
    "Idempotency-Key": {
        "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
        "description": "The same request again gets the first one's answer, for a day.",
    },
    "Prefer": {
        "schema": {"type": "string", "enum": ["respond-async"]},
        "description": "Answer at once with the job instead of holding the connection.",
    },
    "X-Job-Id": {
        "schema": {"type": "string", "pattern": f"^{CHOSEN_JOB_ID.pattern}$"},
        "description": "The job's id, over the field job_id.",
    },
}
_ANSWERED: dict[str, Schema] = {
    "X-Request-Id": {
        "schema": {"type": "string"},
        "description": "In the log, too. The caller's own, where it sent one.",
    },
    "X-Job-Id": {"schema": {"type": "string"}, "description": "The request's job."},
    "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."},
}


def describe_api(app: Flask, *, with_keys: bool) -> dict[str, Any]:
    """The document of ``app``; ``with_keys`` says that it asks for them."""
    builder = _Builder(app, with_keys=with_keys)
    paths: dict[str, Any] = defaultdict(dict)
    for rule, operation in described_rules(app):
        path = _VARIABLE.sub(r"{\1}", rule.rule)
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            paths[path][method.lower()] = builder.operation(rule, method, operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Flux Imaging API",
            "version": VERSION,
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "tags": [
            {"name": tag}
            for tag in dict.fromkeys(operation.tag for operation in OPERATIONS.values())
        ],
        "security": [{"bearer": []}, {"header": []}] if with_keys else [],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "responses": builder.responses,
            "requestBodies": builder.bodies,
            "headers": _ANSWERED,
            "parameters": {
                name: {"name": name, "in": "header"} | about
                for name, about in _HEADERS.items()
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "api-key"},
            },
        },
    }


def described_rules(app: Flask) -> Iterator[tuple[Rule, Operation]]:
    """The rules of this package, in the order in which OPERATIONS has them."""
    order = list(OPERATIONS)
    found = []
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        if view.__module__.startswith(_PACKAGE):
            name = f"{view.__module__.removeprefix(_PACKAGE)}.{view.__name__}"
            # First as documents name it, then under other base URLs.
            again = rule.endpoint.partition(".")[0] in ALIASES
            found.append((order.index(name), again, len(rule.rule), rule))
    for number, _, _, rule in sorted(found, key=lambda one: one[:3]):
        yield rule, OPERATIONS[order[number]]


class _Builder:
    """Describes rules, and gathers what several of them share."""

    def __init__(self, app: Flask, *, with_keys: bool) -> None:
        self._app, self._with_keys = app, with_keys
        self.responses: dict[str, Schema] = {}
        self.bodies: dict[str, Schema] = {}

    def operation(self, rule: Rule, method: str, operation: Operation) -> Schema:
        """``method`` of ``rule``."""
        view = self._app.view_functions[rule.endpoint]
        blueprint = rule.endpoint.rpartition(".")[0]
        text = " ".join((inspect.getdoc(view) or "").split())
        words = re.findall(r"\w+", f"{method.lower()} {rule.rule}".replace("path:", ""))
        described: Schema = {
            "operationId": "_".join(words),
            "summary": text.partition(". ")[0].rstrip(".") + ".",
            "description": text,
            "tags": [operation.tag],
            "parameters": [*_path(rule, operation), *_query(operation)],
            "responses": self._responses(rule, operation, blueprint),
        }
        if operation.body is not None:
            described["requestBody"] = self._body(view.__name__, operation)
            described["parameters"] += [
                {"$ref": f"#/components/parameters/{name}"} for name in _HEADERS
            ]
        if blueprint in OPEN_BLUEPRINTS:
            described["security"] = []
        return described

    def _body(self, name: str, operation: Operation) -> Schema:
        if name not in self.bodies:
            self.bodies[name] = describe_body(operation)
        return {"$ref": f"#/components/requestBodies/{name}"}

    def _responses(self, rule: Rule, operation: Operation, blueprint: str) -> Schema:
        headers = ["X-Request-Id", *(["X-Job-Id"] if operation.body else [])]
        found = {"200": _response("Done.", operation.answer, *headers)}
        for status, (text, content) in operation.other.items():
            found[str(status)] = _response(text, content, *headers)
        for status, kinds in self._errors(rule, operation, blueprint).items():
            if str(status) not in found:
                found[str(status)] = self._error(rule, status, kinds)
        return dict(sorted(found.items()))

    def _errors(
        self, rule: Rule, operation: Operation, blueprint: str
    ) -> dict[int, list[type[FluxError]]]:
        status_of = _dialect(rule).status
        by_status = defaultdict(list)
        keyed = self._with_keys and blueprint not in OPEN_BLUEPRINTS
        always = (UntrustedHost, FluxError, *((Unauthorized,) if keyed else ()))
        for kind in dict.fromkeys((*operation.errors, *always)):
            by_status[status_of(kind(""))].append(kind)
        return by_status

    def _error(self, rule: Rule, status: int, kinds: list[type[FluxError]]) -> Schema:
        dialect = _dialect(rule).schema
        names = "".join(sorted(kind.__name__ for kind in kinds))
        name = f"{dialect}{status}{names}"
        if name not in self.responses:
            text = "\n".join(f"- `{k.code}`: {_first_lines(k)}" for k in kinds)
            headers = ["Retry-After"] if status in (409, 429, 503) else []
            content = {"application/json": ref(dialect)}
            self.responses[name] = _response(text, content, "X-Request-Id", *headers)
        return {"$ref": f"#/components/responses/{name}"}


def _dialect(rule: Rule) -> Dialect:
    return dialect_of(_VARIABLE.sub(lambda name: _EXAMPLES[name[1]], rule.rule))


def _first_lines(kind: type[FluxError]) -> str:
    """What the docstring begins with; the rest is for whoever raises it."""
    return (inspect.getdoc(kind) or "").partition("\n\n")[0]


def _response(text: str, content: Content, *headers: str) -> Schema:
    body: Schema = {"description": text} | _headers(*headers)
    if content:
        body["content"] = {kind: {"schema": schema} for kind, schema in content.items()}
    return body


def _headers(*names: str) -> Schema:
    return {"headers": {n: {"$ref": f"#/components/headers/{n}"} for n in names}}


def _path(rule: Rule, operation: Operation) -> Iterator[Schema]:
    for name in _VARIABLE.findall(rule.rule):
        schema: Schema = {"type": "string", "minLength": 1}
        if name in _PATTERNS:
            schema = {"type": "string", "pattern": f"^{_PATTERNS[name]}$"}
        example = operation.example.get(name) or _EXAMPLES[name]
        yield {"name": name, "in": "path", "required": True, "schema": schema} | {
            "example": example
        }


def _query(operation: Operation) -> Iterator[Schema]:
    if operation.query is None:
        return
    for name, schema in properties_of(operation.query).items():
        text = schema.pop("description", "")
        # A list is one value, with commas.
        yield {
            **{"name": name, "in": "query", "description": text, "schema": schema},
            **(
                {"example": operation.example[name]}
                if name in operation.example
                else {}
            ),
            **(
                {"style": "form", "explode": False} if schema["type"] == "array" else {}
            ),
        }
