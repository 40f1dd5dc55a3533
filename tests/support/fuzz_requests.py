"""Targets of ``fuzz.py``: parameters, bodies, and whole requests to both APIs."""

from __future__ import annotations

import json
import time
import warnings
from functools import cache

from flask import Flask, request
from werkzeug.exceptions import HTTPException

from flux_api.blueprints.openai.parameters import ImagesParameters
from flux_api.errors import InvalidRequest
from flux_api.http.bodies import Body, read_body
from flux_server.incoming import CountedInput
from tests.support.fake_app import make_app
from tests.support.pictures import make_png

ATOMS = [
    *(None, True, False, 0, -1, 7, 1.0, 1.5, 1e308, -1e308, 2**53, 2**63, 2**64),
    *(10**300, -(10**300), "", " ", "7", "+7", "-0", "1e5", "0x10", "1_0", "nan"),
    *(
        "inf",
        "-Infinity",
        "\u0661",
        "9" * 30,
        "9" * 5000,
        "64x64",
        "auto",
        "x" * 33_000,
    ),
    *("a\0b", "\ud800", "a cat", "tiny", "[]", "[{}]", "a:1,b:-2", "a:nan", "{" * 50),
    *("true", "null", "data:,", "http://127.0.0.1/", "../../x", "\r\nX: y", [], {}),
]
NAMES = [
    *("prompt", "negative_prompt", "seed", "width", "height", "guidance_scale", "size"),
    *("num_inference_steps", "steps", "model", "loras", "job_id", "partial_images"),
    *("input_file", "input_image_url", "bearer_token", "n", "stream", "quality"),
    *("image", "image[]", "images", "mask", "output_format", "background", "x", ""),
]
PATHS = [
    *("/process", "/process/raw", "/v1/images/generations", "/v1/images/edits"),
    *("/v1/images/variations", "/openai/deployments/x/images/edits"),
]


def draw_value(source, depth=0):
    """Anything that JSON can say."""
    kind = source.randrange(8)
    if kind == 0 and depth < 3:
        return [draw_value(source, depth + 1) for _ in range(source.randrange(4))]
    if kind == 1 and depth < 3:
        keys = source.choices(["name", "adapter_weight", "url", "image_url", "x"], k=2)
        return {key: draw_value(source, depth + 1) for key in keys}
    if kind == 2:
        return "".join(chr(source.randrange(0x11_0000)) for _ in range(5))
    return source.choice(ATOMS)


def fuzz_parameters(source):
    """Every parameter is what it promises, or a refusal that names it."""
    value = draw_value(source)
    for name, right in RIGHT.items():
        try:
            parameters = ImagesParameters.read({name: value})
        except InvalidRequest as error:
            assert error.status == 400
            assert error.param
            assert len(error.message) < 300
            error.message.encode()
        else:
            assert right(parameters), (name, value, parameters)


RIGHT = {
    "n": lambda p: 1 <= p.n <= 10,
    "guidance_scale": lambda p: (
        p.guidance_scale is None or 0 <= p.guidance_scale <= 100
    ),
    "seed": lambda p: p.seed is None or -(2**63) <= p.seed < 2**64,
    "prompt": lambda p: (
        p.prompt is None
        or (0 < len(p.prompt) <= 32_000 and p.prompt.encode() and "\0" not in p.prompt)
    ),
    "size": lambda p: all(side is None or 0 <= side < 100_000 for side in p.size),
    "loras": lambda p: all(-10 <= one.adapter_weight <= 10 for one in p.loras),
    "job_id": lambda p: p.job_id is None or 8 <= len(p.job_id) <= 64,
}


def draw_body(source):
    """A content type, and bytes that are more or less of it."""
    values = {n: draw_value(source) for n in source.choices(NAMES, k=4)}
    kind = source.choice(
        ["json", "json", "multipart", "multipart", "urlencoded", "odd"]
    )
    if kind == "json":
        return "application/json", json.dumps(values).encode()
    if kind == "urlencoded":
        pairs = [f"{name}={quote(value)}" for name, value in values.items()]
        return "application/x-www-form-urlencoded", "&".join(pairs).encode()
    if kind == "multipart":
        body = b"".join(draw_part(source, *item) for item in values.items())
        return "multipart/form-data; boundary=XX", body + b"--XX--\r\n"
    kinds = ["text/plain", "multipart/form-data", "", "\xff", "application/x+json"]
    return source.choice(kinds), source.randbytes(source.randrange(60))


def draw_part(source, name, value):
    """A part of a form, sometimes a file."""
    file = '; filename="../a\\.png"' if source.random() < 0.3 else ""
    head = f'--XX\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    data = make_png((64, 64)) if file else str(value)[:200].encode("utf-8", "replace")
    return head.encode() + data + b"\r\n"


def quote(value):
    """Text as a form has it."""
    return "".join(f"%{b:02x}" for b in str(value)[:200].encode("utf-8", "replace"))


def spoil(source, data):
    """The bytes with a few of them changed, cut or doubled; often as they are."""
    data = bytearray(data)
    for _ in range(source.choice([0, 0, 1, 3])):
        at = source.randrange(len(data) + 1)
        match source.randrange(4):
            case 0:
                data[at : at + 1] = source.randbytes(1)
            case 1:
                del data[at : at + source.choice([1, 10, 1000])]
            case 2:
                data[at:at] = source.choice([b"\r\n", b"--XX", b"\0", b'"', b"[" * 99])
            case 3:
                data[at:at] = data[at : at + 50]
    return bytes(data)


def fuzz_body(source):
    """Any bytes are a body of plain values, or a refusal."""
    # Werkzeug leaves the files of a form that it gives up to the garbage collector.
    warnings.filterwarnings("ignore", category=ResourceWarning)
    kind, data = draw_body(source)
    data = spoil(source, data)
    length = len(data) + source.choice([0, 0, 0, 5])
    environ = {"wsgi.input_terminated": True, "CONTENT_LENGTH": str(length)}
    app = bare_app()
    with app.test_request_context(
        method="POST", data=data, content_type=kind, environ_overrides=environ
    ):
        request.environ["wsgi.input"] = CountedInput(request.environ, 5)
        try:
            body = read_body(request)
        except InvalidRequest as error:
            assert len(error.message) < 200
        except HTTPException as error:
            assert error.code in (400, 413, 415), error
        else:
            assert length == len(data) or not kind, "a cut-off body was taken"
            check_body(body)


def check_body(body):
    """Names are text, files are bytes."""
    assert isinstance(body, Body)
    assert all(isinstance(name, str) for name in body.values)
    assert all(isinstance(upload.data, bytes) for upload in body.uploads)


def fuzz_requests(source):
    """Any request to either API is a picture, or a refusal in its form."""
    kind, data = draw_body(source)
    path = source.choice(PATHS)
    answer = ready_client().post(path, data=spoil(source, data), content_type=kind)
    assert answer.status_code in (200, 400, 404, 413, 415), answer.data[:500]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    if answer.status_code != 200:
        error = answer.get_json()["error"]
        assert isinstance(error, str if path.startswith("/process") else dict), error


@cache
def bare_app():
    """An application with the API's limits and nothing else."""
    app = Flask("fuzz")
    app.config["MAX_CONTENT_LENGTH"] = app.config["MAX_FORM_MEMORY_SIZE"] = 2**20
    return app


@cache
def ready_client():
    """A client of the API over the scripted backend, in this process."""
    app = make_app()
    manager = app.extensions["flux_api"].manager
    manager.start()
    while manager.not_ready is not None:
        time.sleep(0.01)
    return app.test_client()


TARGETS = {
    "parameters": fuzz_parameters,
    "body": fuzz_body,
    "requests": fuzz_requests,
}
