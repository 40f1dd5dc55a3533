"""Property-based tests of what parses requests: a value or a refusal."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import pytest
from flask import request
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from werkzeug.exceptions import HTTPException

from flux_api.blueprints.openai.parameters import ImagesParameters
from flux_api.blueprints.original import ProcessParameters
from flux_api.core import MAX_SEED
from flux_api.errors import FluxError, InvalidRequest
from flux_api.http.bodies import read_body
from flux_api.http.idempotency import fingerprint_of
from flux_api.http.model_defaults import Inputs, choose_mode, complete_request
from flux_api.http.parameters import MAX_STEPS
from flux_api.models.catalog import MODEL_INFO
from flux_server.incoming import CountedInput
from tests.support.fuzz_requests import bare_app, ready_client
from tests.support.pictures import make_png

pytestmark = pytest.mark.filterwarnings(
    # Werkzeug leaves the files of a form that it gives up to the garbage collector.
    "ignore:Unclosed file:ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)

TEXT = st.text(max_size=30) | st.text(st.characters(codec=None), max_size=10)
NUMBERS = st.integers() | st.floats() | st.sampled_from([2**53, 2**64, 1e400, 10**400])
WRITTEN = NUMBERS.map(str) | st.from_regex(r"\s*[+-]?[0-9a-fxe._]{1,25}\s*")
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT | WRITTEN,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)
    ),
    max_leaves=6,
)
MANY = settings(max_examples=300, deadline=None)
FEW = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


def read_one(name, value, kind=ImagesParameters):
    """(the value of one parameter, None), or (None, its refusal), checked."""
    try:
        return getattr(kind.read({name: value}), name), None
    except InvalidRequest as error:
        assert (error.status, error.param) == (400, name)
        assert len(error.message) < 300
        error.message.encode()
        return None, error


@MANY
@given(JSON)
@example("0\x1f")
@example(True)
@example("1_0")
def test_any_value_is_an_integer_in_range_or_a_refusal(value):
    for name, low, high in (("n", 1, 10), ("num_inference_steps", 1, MAX_STEPS)):
        found, error = read_one(name, value)
        if error is None and found is not None and value not in (None, ""):
            given_text = value.strip() if isinstance(value, str) else value
            assert type(found) is int
            assert low <= found <= high
            assert found == int(given_text)


@given(st.integers(-(2**64), MAX_SEED))
def test_every_legal_seed_is_read_from_number_and_text(seed):
    for written in (seed, str(seed), f" {seed} "):
        assert read_one("seed", written) == (seed if seed >= 0 else None, None)


@given(st.integers())
def test_every_other_seed_is_refused(seed):
    legal = -(10**20) < seed <= MAX_SEED
    for written in (seed, str(seed)):
        assert (read_one("seed", written)[1] is None) == legal


@MANY
@given(JSON)
def test_any_value_is_a_number_in_range_or_a_refusal(value):
    found, error = read_one("guidance_scale", value)
    if error is None:
        assert found is None or (type(found) is float and 0 <= found <= 100)


@MANY
@given(JSON)
def test_any_value_is_clean_text_or_a_refusal(value):
    found, _ = read_one("prompt", value)
    if found is not None:
        assert 0 < len(found) <= 32_000
        assert found.strip()
        assert "\0" not in found
        assert found.encode().decode() == found == value


@MANY
@given(JSON | st.from_regex(r"[0-9]{1,6}[xX*][0-9]{1,6}"))
def test_any_value_is_a_size_or_a_refusal(value):
    found, _ = read_one("size", value)
    assert found == (None, None) or found is None or "{}x{}".format(*found).isascii()


@MANY
@given(
    JSON
    | st.lists(st.fixed_dictionaries({"name": TEXT}, optional={"adapter_weight": JSON}))
)
def test_any_value_is_loras_or_a_refusal(value):
    for lora in read_one("loras", value)[0] or ():
        assert -10 <= lora.adapter_weight <= 10
        assert 0 < len(lora.name) <= 1024


@MANY
@given(
    st.none() | st.text(max_size=5),
    st.none() | st.integers(1, 5000),
    st.none() | st.integers(1, 5000),
    st.none() | st.integers(1, MAX_STEPS),
    st.none() | st.floats(0, 100),
    st.none() | st.integers(-(2**64), MAX_SEED),
)
def test_a_complete_request_keeps_the_models_limits(
    prompt, width, height, steps, guidance, seed
):
    info = MODEL_INFO["tiny"]
    values = {"prompt": prompt, "width": width, "height": height, "seed": seed}
    values |= {"num_inference_steps": steps, "guidance_scale": guidance}
    try:
        parameters = ProcessParameters.read(values)
        mode = choose_mode(parameters.prompt, ())
        made = complete_request("tiny", info, mode, parameters, Inputs())
    except FluxError as error:
        assert error.status == 400
        return
    assert info.sizes.allows(made.width)
    assert info.sizes.allows(made.height)
    assert 1 <= made.num_inference_steps <= MAX_STEPS
    assert 0 <= made.seed < 2**64
    assert all(0 <= made.seed_of(i) < 2**64 for i in range(10))


@pytest.mark.parametrize("kind", [ImagesParameters, ProcessParameters])
def test_json_schema_says_the_bounds(kind):
    found = kind.model_json_schema()["properties"]
    steps, nothing = found["num_inference_steps"]["anyOf"]
    assert (steps["minimum"], steps["maximum"]) == (1, MAX_STEPS)
    assert nothing == {"type": "null"}
    assert all("description" in field for field in found.values())


# Bodies


def read(kind, data, *, announced=None):
    """What ``read_body`` makes of the bytes."""
    length = len(data) if announced is None else announced
    environ = {"wsgi.input_terminated": True, "CONTENT_LENGTH": str(length)}
    with bare_app().test_request_context(
        method="POST", data=data, content_type=kind, environ_overrides=environ
    ):
        request.environ["wsgi.input"] = CountedInput(request.environ, 5)
        try:
            return read_body(request)
        except HTTPException as error:
            raise InvalidRequest(str(error.code)) from None


def multipart(pairs, boundary="a-boundary"):
    """A form of values and files; files are (name, bytes) pairs in a tuple."""
    body = b""
    for name, value in pairs:
        file = '; filename="f"' if isinstance(value, bytes) else ""
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}'
        data = value if isinstance(value, bytes) else value.encode()
        body += head.encode() + b"\r\n\r\n" + data + b"\r\n"
    return (
        f"multipart/form-data; boundary={boundary}",
        body + f"--{boundary}--".encode(),
    )


NAME = st.from_regex(r"[a-z_]{1,12}(\[[0-9]?\])?", fullmatch=True)
VALUES = st.dictionaries(NAME, st.text(min_size=1, max_size=40), min_size=1, max_size=5)


@FEW
@given(VALUES)
def test_every_form_and_json_body_of_the_same_values_reads_alike(given_values):
    form = urlencode(given_values).encode()
    assert read("application/x-www-form-urlencoded", form).values == given_values
    body = json.dumps(given_values).encode()
    assert read("application/json", body).values == given_values
    kind, parts = multipart(given_values.items())
    clean = {n: v for n, v in given_values.items() if "--a-boundary" not in v}
    if clean == given_values:
        assert read(kind, parts).values == given_values


@FEW
@given(VALUES, st.lists(st.tuples(NAME, st.binary(max_size=200)), max_size=3))
def test_the_fingerprint_is_of_the_content_and_not_of_the_boundary(values, files):
    pairs = [*values.items(), *files]
    one = read(*multipart(pairs, "one-boundary"))
    two = read(*multipart(pairs, "another"))
    assert fingerprint_of("/process", one) == fingerprint_of("/process", two)
    assert fingerprint_of("/v1", one) != fingerprint_of("/process", two)
    more = read(*multipart([*pairs, ("extra", "x")], "another"))
    assert fingerprint_of("/process", more) != fingerprint_of("/process", one)
    if files:
        name, data = files[-1]
        other = read(*multipart([*pairs[:-1], (name, data + b"x")]))
        assert fingerprint_of("/process", other) != fingerprint_of("/process", one)


@FEW
@given(
    st.sampled_from(
        [
            "application/json",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=a-boundary",
            "multipart/form-data",
        ]
    ),
    st.binary(max_size=200) | VALUES.map(lambda v: multipart(v.items())[1]),
)
def test_any_bytes_are_a_body_or_a_refusal(kind, data):
    try:
        body = read(kind, data)
    except InvalidRequest as error:
        assert len(error.message) < 200
        return
    assert all(isinstance(name, str) for name, _ in body.parts)


@FEW
@given(VALUES, st.integers(1, 10**9))
def test_a_body_shorter_than_announced_is_refused(values, missing):
    for kind, data in (
        multipart(values.items()),
        ("application/json", json.dumps(values).encode()),
        ("application/x-www-form-urlencoded", urlencode(values).encode()),
    ):
        announced = min(len(data) + missing, 2**20)
        with pytest.raises(InvalidRequest):
            read(kind, data, announced=announced)


# The original API as a whole; OpenAI's has its own

FIELDS = {
    "prompt": JSON | st.just("a cat"),
    "negative_prompt": JSON,
    "seed": JSON,
    "width": st.sampled_from([64, 128, 100]) | JSON,
    "height": st.sampled_from([64, 128, 100]) | JSON,
    "num_inference_steps": st.integers(1, 3) | JSON,
    "guidance_scale": JSON,
    "strength": JSON,
    "model": JSON,
    "loras": JSON,
    "job_id": JSON,
    "partial_images": JSON,
    "input_file": JSON,
    "input_image_url": st.sampled_from(["data:,", "http://127.0.0.1/", "x"]) | JSON,
    "bearer_token": JSON,
}


@FEW
@given(
    st.fixed_dictionaries({}, optional=FIELDS),
    st.sampled_from(["/process", "/process/raw"]),
)
def test_any_json_to_the_original_api_is_a_picture_or_a_refusal(values, path):
    answer = ready_client().post(
        path, data=json.dumps(values).encode(), content_type="application/json"
    )
    check(answer)


@FEW
@given(
    st.fixed_dictionaries({}, optional=FIELDS),
    st.booleans(),
)
def test_any_form_to_the_original_api_is_a_picture_or_a_refusal(values, with_file):
    pairs = [
        (name, str(value).encode("utf-8", "replace").decode())
        for name, value in values.items()
    ]
    if with_file:
        pairs.append(("input_file", make_png((64, 64))))
    kind, body = multipart(pairs)
    check(ready_client().post("/process", data=body, content_type=kind))


def check(answer):
    """A picture with its facts, or one sentence."""
    assert answer.status_code in (200, 400, 404, 409), answer.data[:300]
    if answer.status_code != 200:
        error = answer.get_json()["error"]
        assert isinstance(error, str)
        assert 5 < len(error) < 400
    assert answer.headers["X-Request-Id"]
