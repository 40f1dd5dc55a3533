"""Anything that a stranger puts into a request is answered, and never by a 500."""

from __future__ import annotations

import base64
import io
import json
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flux_api.blueprints.openai.parameters import QUALITY
from tests.support.fake_app import make_app
from tests.support.pictures import make_png
from tests.support.wire import NUMBERS

PNG = make_png()
URL = "data:image/png;base64," + base64.b64encode(PNG).decode()
ODD = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.sampled_from(["", " ", "null", "true", "-1", "1e3", "64x64", "data:,", "[]"])
)
ANY = st.recursive(
    ODD,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["image_url", "url", "file_id", "b64_json", "x"]), inner
        )
    ),
    max_leaves=6,
)
GOOD = {
    "prompt": st.just("a duck"),
    "n": st.integers(1, 2),
    "size": st.sampled_from(["64x64", "auto", "96x128"]),
    "quality": st.sampled_from(sorted(QUALITY)),
    "output_format": st.sampled_from(["png", "jpeg", "webp"]),
    "response_format": st.sampled_from(["url", "b64_json"]),
    "stream": st.booleans(),
    "partial_images": st.integers(0, 3),
    "image": st.sampled_from([URL, [URL], {"url": URL}]),
    "images": st.sampled_from([[{"image_url": URL}], [], None]),
    "mask": st.none(),
    "seed": st.integers(0, 2**64 - 1),
    "num_inference_steps": st.integers(1, 3),
    "guidance_scale": st.floats(0, 10),
    "negative_prompt": st.text(max_size=5),
    "background": st.sampled_from(["auto", "opaque"]),
    "output_compression": st.just(100),
    "user": st.text(max_size=5),
    "safety_identifier": st.text(max_size=5),
    "model": st.sampled_from(["tiny", "gpt-image-1", "dall-e-3", ""]),
    "loras": st.none(),
    "svg": st.none(),
    "markup": st.none(),
    "job_id": st.none(),
}


@st.composite
def requests_of(draw):
    """Values that are mostly right, some of them anything at all."""
    names = draw(st.sets(st.sampled_from(sorted(GOOD))))
    odd = draw(st.sets(st.sampled_from(sorted(GOOD)), max_size=2))
    values = {name: draw(GOOD[name]) for name in sorted(names | {"prompt"})}
    return values | {name: draw(ANY) for name in sorted(odd)}


@pytest.fixture(scope="module")
def client():
    """The fake app in this process."""
    app = make_app()
    client = app.test_client()
    client.get("/readyz")
    while client.get("/readyz").status_code != 200:
        time.sleep(0.01)
    return client


def check(answer):
    """A picture, or a refusal that says why."""
    assert answer.status_code in (200, 400), answer.data[:300]
    if answer.status_code == 400:
        error = answer.get_json()["error"]
        assert set(error) - NUMBERS == {"message", "type", "param", "code"}
        assert error["message"] and error["code"]
        assert answer.status.isascii()
    elif answer.mimetype == "text/event-stream":
        assert b"completed" in answer.data
    else:
        assert answer.get_json()["data"]


SLOW = settings(
    # `make fuzz` draws as many as there is time for.
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
OPERATIONS = st.sampled_from(["generations", "edits", "variations"])


@SLOW
@given(operation=OPERATIONS, values=requests_of())
def test_any_json_is_answered(client, operation, values):
    check(client.post(f"/v1/images/{operation}", json=values))


@SLOW
@given(operation=OPERATIONS, values=requests_of(), with_file=st.booleans())
def test_any_form_is_answered(client, operation, values, with_file):
    form = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in values.items()
        if value is not None
    }
    if with_file:
        form["image"] = (io.BytesIO(PNG), "a.png")
    check(
        client.post(
            f"/v1/images/{operation}", data=form, content_type="multipart/form-data"
        )
    )
