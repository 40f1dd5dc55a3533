"""Errors in the words of each API, by the address that was asked."""

from __future__ import annotations

import pytest
from flask import Flask, g

from flux_api.errors import (
    FluxError,
    InvalidImage,
    InvalidRequest,
    JobNotFound,
    NotJson,
    UnsupportedMedia,
)
from flux_api.http.dialects import dialect_of

MESSAGE = "That is wrong."


def told(path, error, **about):
    """The status and the body of ``error`` at ``path``; ``about`` is of ``flask.g``."""
    with Flask("dialects").test_request_context(path):
        for name, value in about.items():
            setattr(g, name, value)
        dialect = dialect_of(path.partition("?")[0])
        return dialect.status(error), dialect.body(error)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotJson(MESSAGE), -32700),
        (InvalidRequest(MESSAGE), -32600),
        (FluxError(MESSAGE), -32603),
    ],
    ids=["parse", "request", "internal"],
)
def test_json_rpc_has_a_number_for_whose_fault_it_is(error, code):
    status, body = told("/mcp", error, rpc_id=7)
    assert (status, body["id"]) == (error.status, 7)
    data = {"code": error.code}
    assert body["error"] == {"code": code, "message": MESSAGE, "data": data}


def test_what_a_tool_meets_is_a_result_for_its_agent():
    error = InvalidRequest(MESSAGE, param="seed")
    status, body = told("/mcp", error, rpc_id="a", rpc_tool="generate_image")
    assert (status, body["id"], body["result"]["isError"]) == (200, "a", True)
    assert body["result"]["content"] == [{"type": "text", "text": f"seed: {MESSAGE}"}]


@pytest.mark.parametrize("path", ["/v1/flux-dev", "/sdapi/v1/txt2img"])
@pytest.mark.parametrize("kind", [InvalidRequest, InvalidImage])
def test_what_is_wrong_in_a_body_has_fastapis_status_and_place(path, kind):
    for param, place in (("seed", ["body", "seed"]), (None, ["body"])):
        status, body = told(path, kind(MESSAGE, param=param))
        detail = {"loc": place, "msg": MESSAGE, "type": kind.code}
        assert (status, body["detail"]) == (422, [detail])


@pytest.mark.parametrize("path", ["/v1/flux-dev", "/sdapi/v1/txt2img"])
@pytest.mark.parametrize("kind", [UnsupportedMedia, FluxError])
def test_all_else_has_its_own_status_and_a_sentence(path, kind):
    status, body = told(path, kind(MESSAGE))
    assert (status, body["detail"]) == (kind.status, MESSAGE)


def test_a_task_that_is_not_there_is_told_as_the_hosted_api_does():
    _, body = told("/v1/get_result?id=gone", JobNotFound(MESSAGE))
    assert (body["id"], body["status"]) == ("gone", "Task not found")
    assert body["result"] is None


def test_a_sentence_alone_names_its_parameter_unless_it_does_so_itself():
    told_by = {
        "That is wrong.": "seed: That is wrong.",
        "Invalid 'seed': that is wrong.": "Invalid 'seed': that is wrong.",
        "There are no seeds.": "seed: There are no seeds.",
    }
    for message, sentence in told_by.items():
        error = InvalidRequest(message, param="seed")
        assert told("/process", error) == (400, {"error": sentence})
