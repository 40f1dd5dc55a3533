"""Edits: every shape in which clients send pictures and masks."""

from __future__ import annotations

import base64
import http.client
import json
from types import SimpleNamespace

import pytest
import requests
from PIL import Image

from flux_api.errors import ImageFetchFailed
from flux_api.http import inputs
from flux_api.http.bodies import Body
from flux_api.models.catalog import MODEL_INFO
from flux_api.queue.jobs import Job
from flux_api.queue.shares import Shares
from tests.support.pictures import make_png, save
from tests.support.wire import EDITS, FORM, data_url, make_mask, post, seen

SIZES = [(64, 80), (80, 80), (96, 80)]


@pytest.fixture(scope="module")
def three():
    """Three pictures that differ in size."""
    return [make_png(size) for size in SIZES]


@pytest.mark.parametrize(
    "names",
    [
        ["image"],
        ["image[]"],
        ["image", "image"],
        ["image[]", "image[]", "image[]"],
        ["image[0]", "image[1]"],
        ["image[1]", "image", "image[]"],
        ["image[]", "image", "image[]"],
        ["images", "images[]"],
    ],
    ids=" ".join,
)
def test_file_fields_count_together_in_the_order_of_arrival(fake_multi, three, names):
    files = [
        (name, (f"../x/{i}.txt", three[i], "application/octet-stream"))
        for i, name in enumerate(names)
    ]
    assert post(fake_multi, EDITS, data=FORM, files=files).status_code == 200
    assert seen(fake_multi)["images"] == [list(size) for size in SIZES[: len(names)]]


def test_parts_may_come_in_any_order(fake, png):
    mask = make_mask((96, 64), (0, 0, 20, 20))
    files = [
        ("mask", ("mask.png", mask)),
        ("image[]", ("a.png", png)),
        *((name, (None, value)) for name, value in FORM.items()),
    ]
    assert post(fake, EDITS, files=files).status_code == 200
    assert seen(fake)["mask"] == [0, 255]


def test_sixteen_references_and_no_more(fake_multi, png):
    files = [("image[]", ("a.png", png))] * 17
    assert post(fake_multi, EDITS, data=FORM, files=files[:16]).status_code == 200
    assert len(seen(fake_multi)["images"]) == 16
    answer = post(fake_multi, EDITS, data=FORM, files=files)
    assert answer.status_code == 400
    assert "at most 16" in answer.json()["error"]["message"]


@pytest.mark.parametrize(("seconds", "fetched"), [(15.0, 3), (15.1, 2), (31.0, 1)])
def test_the_fetches_of_a_request_have_thirty_seconds_to_begin(
    monkeypatch, png, seconds, fetched
):
    """By a clock that goes on while a picture is fetched, and then only."""
    now, asked = SimpleNamespace(seconds=100.0), []
    clock = SimpleNamespace(monotonic=lambda: now.seconds)
    monkeypatch.setattr(inputs, "time", clock)

    def fetch(url, *, param, **_):
        now.seconds += seconds
        asked.append(url)
        return png

    decoder = SimpleNamespace(image=lambda data, param: data)
    urls = [f"http://pictures.test/{number}.png" for number in range(4)]
    places = Shares(1, 1, seconds=0, purpose="are read")
    context = SimpleNamespace(
        signer=None,
        fetcher=SimpleNamespace(fetch=fetch),
        decoder=decoder,
        decodes=places,
        fetches=places,
        file_server=None,
    )
    job = Job(id="reads", caller="me")
    body = Body({"images": urls}, [])
    with pytest.raises(ImageFetchFailed, match="cannot fetch image in time"):
        inputs.read_inputs(context, job, body, MODEL_INFO["klein-4b"])
    assert asked == urls[:fetched]


def test_a_model_of_one_reference_says_so(fake, png):
    files = [("image[]", ("a.png", png))] * 2
    answer = post(fake, EDITS, data=FORM, files=files)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == ("image", "array_above_max_length")
    assert (error["maximum"], error["given"]) == (1, 2)
    assert "at most 1 input image" in error["message"]
    # All that Open WebUI shows.
    assert answer.reason == "Too many pictures in image, at most 1"


JSON_SHAPES = {
    "images[].image_url": lambda url, b64: {"images": [{"image_url": url}]},
    "images[].image_url base64": lambda url, b64: {"images": [{"image_url": b64}]},
    "images[].image_url.url": lambda url, b64: {
        "images": [{"image_url": {"url": url}}]
    },
    "images[] strings": lambda url, b64: {"images": [url]},
    "images[] base64": lambda url, b64: {"images": [b64]},
    "images[].b64_json": lambda url, b64: {"images": [{"b64_json": b64}]},
    "images[].base64": lambda url, b64: {"images": [{"base64": b64}]},
    "image data URL": lambda url, b64: {"image": url},
    "image base64": lambda url, b64: {"image": b64},
    "image object": lambda url, b64: {"image": {"url": url, "type": "image_url"}},
    "image list": lambda url, b64: {"image": [url]},
    "empty places": lambda url, b64: {"images": [None, "", {}, url]},
    "with nulls": lambda url, b64: {
        "images": [{"image_url": url, "file_id": None}],
        "mask": None,
        "n": None,
    },
}


@pytest.mark.parametrize("shape", JSON_SHAPES)
def test_json_edits_in_every_shape(fake, png, shape):
    url = data_url(png)
    values = JSON_SHAPES[shape](url, url.partition(",")[2])
    answer = post(fake, EDITS, json=FORM | values)
    assert answer.status_code == 200, answer.text
    assert seen(fake)["images"] == [[96, 64]]
    assert seen(fake)["mode"] == "edit"


@pytest.mark.parametrize("wrap", [lambda url: {"image_url": url}, lambda url: url])
def test_json_masks(fake, png, wrap):
    mask = data_url(make_mask((96, 64), (0, 0, 9, 9)))
    for name in ("mask", "mask_image"):
        values = {"images": [{"image_url": data_url(png)}], name: wrap(mask)}
        assert post(fake, EDITS, json=FORM | values).status_code == 200
        assert seen(fake)["mask"] == [0, 255]


@pytest.mark.parametrize("name", ["mask", "mask[]", "mask_image"])
def test_form_masks_by_every_name(fake, png, name):
    files = {
        "image": ("a.png", png),
        name: ("m.png", make_mask((96, 64), (0, 0, 9, 9))),
    }
    assert post(fake, EDITS, data=FORM, files=files).status_code == 200
    assert seen(fake)["mask"] == [0, 255]


def test_text_fields_of_a_form_hold_pictures_too(fake, png):
    form = FORM | {"image": data_url(png)}
    assert post(fake, EDITS, data=form).status_code == 200
    big = Image.effect_noise((900, 900), 99).convert("RGB")
    files = {name: (None, value) for name, value in FORM.items()}
    files["image"] = (None, base64.b64encode(save(big)).decode())
    assert len(files["image"][1]) > 1_000_000
    assert post(fake, EDITS, files=files).status_code == 200


def test_pictures_behind_urls_go_through_the_guarded_fetcher(
    fake, fake_with_files, files, png
):
    stored = requests.post(f"{files.url}/upload", files={"file": png}, timeout=5)
    url = files.url + stored.json()["url"]
    values = FORM | {"images": [{"image_url": url}]}
    answer = post(fake, EDITS, json=values)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("image_fetch_failed", "image")
    assert answer.reason == "An image URL could not be fetched"
    assert post(fake_with_files, EDITS, json=values).status_code == 200
    assert seen(fake_with_files)["images"] == [[96, 64]]


BAD = {
    "none": ({}, "image", "missing_required_parameter"),
    "empty list": ({"images": []}, "image", "missing_required_parameter"),
    "file_id": ({"images": [{"file_id": "f"}]}, "images", "invalid_value"),
    "mask file_id": ({"mask": {"file_id": "f"}}, "mask", "invalid_value"),
    "number": ({"images": [5]}, "image", "invalid_type"),
    "unknown object": ({"images": [{"foo": "x"}]}, "image", "invalid_type"),
    "too deep": ({"image": {"url": {"url": {"url": "x"}}}}, "image", "invalid_type"),
    "not base64": ({"image": "hello world!"}, "image", "invalid_image_file"),
    "not an image": ({"image": "aGVsbG8="}, "image", "invalid_image_file"),
    "two masks": ({"mask": ["a", "b"]}, "mask", "array_above_max_length"),
    "markup": ({"markup": {"image_url": "x"}}, "markup", "unsupported_parameter"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_pictures_are_a_400_that_names_them(fake, png, case):
    values, param, code = BAD[case]
    if "image" not in str(values) and case not in ("none", "empty list"):
        values = values | {"image": data_url(png)}
    answer = post(fake, EDITS, json=FORM | values)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == (param, code), error
    user_error = code in ("invalid_image_file", "invalid_mask_image_format")
    kind = "image_generation_user_error" if user_error else "invalid_request_error"
    assert error["type"] == kind


def test_chunked_upload_without_a_length(fake, png):
    boundary = b"----formdata-undici-123456789012"
    head = b'--%s\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n'
    head += b"Content-Type: application/octet-stream\r\n\r\n"
    tail = (
        b'\r\n--%s\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nx\r\n--%s--'
    )

    def parts():
        yield head % boundary
        for start in range(0, len(png), 100):
            yield png[start : start + 100]
        yield tail % (boundary, boundary)

    kind = f"multipart/form-data; boundary={boundary.decode()}"
    answer = post(fake, EDITS, data=parts(), headers={"Content-Type": kind})
    assert answer.status_code == 200, answer.text
    assert seen(fake)["images"] == [[96, 64]]


def test_a_body_cut_off_is_no_request(fake, png):
    body = json.dumps(FORM | {"image": data_url(png)}).encode()
    kind = {"Content-Type": "application/json", "Content-Length": str(len(body) + 9)}
    connection = http.client.HTTPConnection(fake.url[len("http://") :], timeout=30)
    connection.putrequest("POST", EDITS)
    for name, value in kind.items():
        connection.putheader(name, value)
    connection.endheaders(body)
    connection.sock.shutdown(1)
    answer = connection.getresponse()
    assert answer.status == 400
    assert b"cut off" in answer.read()
    connection.close()
