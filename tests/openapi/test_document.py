"""/openapi.json is whole: every route, status and error, and examples that run."""

from __future__ import annotations

import math
import re
import threading

import jsonschema_rs
import pytest
import requests
from werkzeug.routing import Rule

import file_server
from flux_api import create_app, errors
from flux_api.blueprints.description.operations import (
    EXAMPLE_JOB,
    EXAMPLE_TASK,
    OPERATIONS,
)
from flux_api.blueprints.openai.parameters import QUALITY
from flux_api.queue.manager import PipelineManager
from flux_api.settings import Settings
from tests.support.servers import ROOT, run_api, wait_for


def described(document):
    """(method, path) pairs."""
    return {
        (method.upper(), path)
        for path, methods in document["paths"].items()
        for method in methods
    }


def routed(app):
    """The same, as Flask knows them."""
    return {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }


@pytest.fixture(scope="module")
def app():
    """The API, which nobody calls."""
    # Loading never ends: a failed one would be logged in the midst of another test. Nor
    # is it taken for hung, which would end the process of all tests.
    manager = PipelineManager(threading.Event().wait, step_timeout=math.inf)
    return create_app(Settings(), manager=manager)


@pytest.fixture(scope="module")
def document(app):
    return app.test_client().get("/openapi.json").json


@pytest.fixture
def files_app(tmp_path):
    settings = file_server.Settings(storage=file_server.config.Folder(tmp_path))
    return file_server.create_app(settings)


def test_every_route_is_described_and_nothing_else(app, document):
    assert isinstance(next(app.url_map.iter_rules()), Rule)
    assert described(document) == routed(app)
    assert len(routed(app)) > 40


def test_every_route_of_the_file_server_is_described(files_app):
    document = files_app.test_client().get("/openapi.json").json
    assert described(document) == routed(files_app)


def operations(document):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_names_are_unique_and_every_text_is_there(document, files_app):
    for one in (document, files_app.test_client().get("/openapi.json").json):
        names = [operation["operationId"] for _, operation in operations(one)]
        assert len(names) == len(set(names))
        tags = {tag["name"] for tag in one["tags"]}
        for where, operation in operations(one):
            assert operation["summary"].endswith("."), where
            assert set(operation["tags"]) <= tags, where
            assert "200" in operation["responses"], where


def resolve(document, thing):
    """``thing``, or what it refers to."""
    if "$ref" not in thing:
        return thing
    for name in thing["$ref"].removeprefix("#/").split("/"):
        document = document[name]
    return document


def schemas(document):
    """Every schema: those of components, parameters, bodies and answers."""
    yield from document["components"]["schemas"].values()
    for _, operation in operations(document):
        for parameter in operation["parameters"]:
            yield resolve(document, parameter)["schema"]
        bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
        for body in bodies:
            for content in resolve(document, body).get("content", {}).values():
                yield content["schema"]


def test_every_schema_is_one(document, files_app):
    for one in (document, files_app.test_client().get("/openapi.json").json):
        found = list(schemas(one))
        assert len(found) > 30
        for schema in found:
            jsonschema_rs.meta.validate(
                schema | {"$schema": "https://json-schema.org/draft/2020-12/schema"}
            )


def test_every_error_that_a_caller_can_meet_is_described(document):
    kinds, found = [errors.FluxError], set()
    while kinds:
        found.add(kind := kinds.pop())
        kinds += kind.__subclasses__()
    # Only where keys are set.
    for kind in found - {errors.Unauthorized, errors.StillWorking}:
        texts = [
            response["description"]
            for name, response in document["components"]["responses"].items()
            if f"Error{kind.status}" in name
        ]
        assert any(f"`{kind.code}`" in text for text in texts), kind


def asks_key(server, where):
    """Whether the route answers 401 without one."""
    method, path = where.split(" ")
    path = re.sub(r"\{\w+\}", "tokens.css", path.replace("{hosted}", "flux-dev"))
    return requests.request(method, server.url + path, timeout=10).status_code == 401


def test_a_key_is_said_to_be_needed_where_it_is():
    keys = {"FLUX_API_KEYS": "a:sk-a-key-of-a"}
    with run_api(app="tests.support.fake_app:app", **keys) as server:
        document = requests.get(f"{server.url}/openapi.json", timeout=10).json()
        assert document["security"]
        needing = {
            where for where, _ in operations(document) if asks_key(server, where)
        }
    assert len(needing) > 30
    for where, operation in operations(document):
        needed = where in needing
        assert ("401" in operation["responses"]) == needed, where
        assert (operation.get("security") != []) == needed, where


def test_the_address_that_documents_name_comes_first(document):
    """Behind it the same view under the base URLs of other clients."""
    order = list(document["paths"])
    pairs = [("/jobs", "/v1/jobs")]
    for path in order:
        if path.startswith(("/v1/images/", "/v1/models", "/v1/loras")):
            bare = path.removeprefix("/v1")
            pairs += [(path, bare), (path, f"/openai/v1{bare}")]
    assert len(pairs) > 10
    for first, again in pairs:
        assert order.index(first) < order.index(again)


def test_a_list_in_an_address_is_one_value_with_commas(document):
    styles = {
        parameter["name"]: parameter.get("explode")
        for _, operation in operations(document)
        for parameter in operation["parameters"]
        if parameter.get("in") == "query"
    }
    assert {"ids", "limit", "index", "id"} <= styles.keys()
    assert {name for name, explode in styles.items() if explode is False} == {"ids"}


def test_a_flag_is_off_unless_it_is_sent(document):
    """What a caller leaves out is no order."""
    flags = [
        (name, field)
        for body in document["components"]["requestBodies"].values()
        for content in body["content"].values()
        for name, field in content["schema"]["properties"].items()
        if field.get("type") == "boolean"
    ]
    assert {"stream", "dry_run", "raw", "prompt_upsampling"} <= {n for n, _ in flags}
    assert [name for name, field in flags if field["default"] is not False] == []


def test_who_is_to_come_back_is_told_when(document):
    told = {
        (name, "Retry-After" in response["headers"])
        for name, response in document["components"]["responses"].items()
    }
    assert told
    for name, is_told in told:
        assert is_told == bool(re.search("Error(409|429|503)", name)), name


def test_the_version_is_that_of_the_changes(document):
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGES.md").read_text(), re.M)[1]
    assert document["info"]["version"] == newest


def test_every_parameter_of_a_model_is_described(document):
    for name, operation in OPERATIONS.items():
        if operation.body is not None:
            body = document["components"]["requestBodies"][name.rpartition(".")[2]]
            assert body["required"], name
            for content in body["content"].values():
                known = content["schema"]["properties"]
                fields = operation.body.model_json_schema()["properties"]
                assert fields.keys() <= known.keys()


@pytest.fixture(scope="module")
def server():
    """The scripted backend, with the job that examples speak of."""
    with run_api(app="tests.support.fake_app:app") as running:
        running.wait_ready()
        form = {"prompt": "a cat", "size": "64x64", "job_id": EXAMPLE_JOB}
        assert requests.post(f"{running.url}/process", data=form, timeout=10).ok
        # Ids of this API are the server's own.
        body = {"prompt": "a cat", "width": 64}
        made = requests.post(f"{running.url}/v1/flux-2-pro", json=body, timeout=10)
        running.task = made.json()["id"]
        url = made.json()["polling_url"]
        wait_for(lambda: requests.get(url, timeout=5).json()["status"] == "Ready", 10)
        yield running


def test_examples_run(server):
    document = requests.get(f"{server.url}/openapi.json", timeout=10).json()
    seen = set()
    for where, operation in operations(document):
        method, path = where.split(" ")
        options = {"params": {}}
        for parameter in operation["parameters"]:
            parameter = resolve(document, parameter)
            example = str(parameter.get("example")).replace(EXAMPLE_TASK, server.task)
            if parameter["in"] == "path":
                path = path.replace(f"{{{parameter['name']}}}", example)
            elif "example" in parameter:
                options["params"][parameter["name"]] = example
        if "requestBody" in operation:
            content = resolve(document, operation["requestBody"])["content"]
            options["json"] = content["application/json"]["example"]
        answer = requests.request(method, server.url + path, timeout=30, **options)
        assert answer.status_code == 200, f"{where}: {answer.text}"
        check_answer(document, operation, answer, where)
        seen.add(where)
    assert len(seen) == len(described(document))


def test_what_would_be_made_is_described_beside_what_is(server):
    document = requests.get(f"{server.url}/openapi.json", timeout=10).json()
    plans = 0
    for where, operation in operations(document):
        method, path = where.split(" ")
        if "requestBody" not in operation:
            continue
        body = resolve(document, operation["requestBody"])["content"]
        schema = body["application/json"]["schema"]
        if "dry_run" in schema["properties"]:
            path = path.replace("{hosted}", "flux-2-pro").replace("{deployment}", "x")
            sent = body["application/json"]["example"] | {"dry_run": True}
            answer = requests.post(server.url + path, json=sent, timeout=30)
            assert answer.json()["dry_run"] is True
            check_answer(document, operation, answer, where)
            plans += 1
    assert plans > 10


def test_every_quality_that_is_told_is_described(server):
    document = requests.get(f"{server.url}/openapi.json", timeout=10).json()
    where = "/v1/images/generations"
    for quality in QUALITY:
        body = {"prompt": "a cat", "size": "64x64", "quality": quality}
        answer = requests.post(server.url + where, json=body, timeout=30)
        check_answer(document, document["paths"][where]["post"], answer, quality)


NOTIFICATION = {"jsonrpc": "2.0", "method": "notifications/initialized"}
LATER = {"headers": {"Prefer": "respond-async"}, "json": {"prompt": "a cat"}}
OTHERS = [
    ("POST /v1/{hosted}", "/v1/flux-video", 404, {"json": {"prompt": "a cat"}}),
    ("POST /v1/{hosted}", "/v1/no-such-model", 404, {"json": {"prompt": "a cat"}}),
    ("GET /sdapi/v1/{name}", "/sdapi/v1/no-such-list", 404, {}),
    ("GET /page/{name}", "/page/no-such-file", 404, {}),
    ("GET /v1/models/{name}", "/v1/models/a b", 404, {}),
    ("POST /mcp", "/mcp", 202, {"json": NOTIFICATION}),
    ("POST /process", "/process", 202, LATER),
    ("POST /v1/images/generations", "/v1/images/generations", 202, LATER),
    ("POST /sdapi/v1/txt2img", "/sdapi/v1/txt2img", 202, LATER),
]


@pytest.mark.parametrize(("where", "path", "status", "options"), OTHERS)
def test_other_answers_are_described_too(server, where, path, status, options):
    document = requests.get(f"{server.url}/openapi.json", timeout=10).json()
    method, described_path = where.split(" ")
    operation = document["paths"][described_path][method.lower()]
    answer = requests.request(method, server.url + path, timeout=10, **options)
    assert answer.status_code == status
    if answer.content:
        check_answer(document, operation, answer, where)
    assert str(status) in operation["responses"]


def test_a_file_that_has_not_changed_and_a_server_that_loads_are_described(
    server, app, document
):
    address = f"{server.url}/page/tokens.css"
    tag = {"If-None-Match": requests.get(address, timeout=10).headers["ETag"]}
    status = requests.get(address, headers=tag, timeout=10).status_code
    assert str(status) in document["paths"]["/page/{name}"]["get"]["responses"]
    operation = document["paths"]["/readyz"]["get"]
    answer = app.test_client().get("/readyz")
    kind = answer.headers["Content-Type"]
    content = operation["responses"][str(answer.status_code)]["content"][kind]
    components = {"schemas": document["components"]["schemas"]}
    schema = sealed(content["schema"] | {"components": components})
    jsonschema_rs.validator_for(schema).validate(answer.json)
    assert answer.status_code == 503


def check_answer(document, operation, answer, where):
    """The answer's type and body are those that are described."""
    kind = answer.headers["Content-Type"].partition(";")[0]
    response = operation["responses"][str(answer.status_code)]
    content = resolve(document, response)["content"]
    assert kind in content or "*/*" in content, where
    if kind == "application/json":
        components = {"schemas": document["components"]["schemas"]}
        schema = content[kind]["schema"] | {"components": components}
        jsonschema_rs.validator_for(sealed(schema)).validate(answer.json())


def sealed(schema):
    """``schema`` where an object has no field that is not described."""
    if isinstance(schema, list):
        return [sealed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {name: sealed(one) for name, one in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        strict |= {"additionalProperties": False}
    return strict
