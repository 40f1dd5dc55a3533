"""Streamed answers byte by byte: events, comments, errors, silence, leaving."""

from __future__ import annotations

import base64
import io
import json
import re

import pytest
import requests
from PIL import Image

from flux_api.blueprints.openai import stream as stream_module
from flux_api.blueprints.openai.parameters import ImagesParameters
from flux_api.blueprints.openai.stream import Stream
from flux_api.core import Completed, ImageResult, PartialImage, Preview
from flux_api.errors import PipelineFailed
from flux_api.http import clients
from flux_api.http.sse import frame_comment, frame_event
from tests.queue.test_results import a_job
from tests.support.fuzz_requests import ready_client
from tests.support.servers import run_api, wait_for
from tests.support.wire import begin, generate, post, stats

PARTIAL_FIELDS = [
    *("type", "b64_json", "created_at", "size", "quality", "background"),
    *("output_format", "partial_image_index"),
]
OURS = (
    *("image_index", "seed", "num_inference_steps", "guidance_scale"),
    "performance",
    *("queue_seconds", "run_seconds"),
)
COMPLETED_FIELDS = [*PARTIAL_FIELDS[:-1], "usage"]


def events_of(text):
    """(name, data) of every event, and the comments."""
    events, comments = [], []
    assert text.endswith("\n\n")
    for block in text[:-2].split("\n\n"):
        lines = block.split("\n")
        if len(lines) == 1:
            assert lines[0].startswith(": ")
            comments.append(lines[0][2:])
            continue
        # Nothing but these two lines: no id, no retry.
        (event, data) = lines
        assert event.startswith("event: ")
        assert data.startswith("data: ")
        events.append((event[7:], json.loads(data[6:])))
    return events, comments


def size_of(data):
    """The size and format of an event's picture."""
    image = Image.open(io.BytesIO(base64.b64decode(data["b64_json"])))
    return image.size, image.format


@pytest.mark.parametrize("partial_images", [0, 1, 3])
def test_generation_streams_previews_and_the_picture(api, partial_images):
    answer = generate(
        api,
        **{"stream": True, "partial_images": partial_images, "seed": 5, "steps": 8},
        **{"size": "256x128", "quality": "hd", "output_format": "webp"},
    )
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.headers["X-Accel-Buffering"] == "no"
    assert answer.headers["X-Request-Id"]
    events, comments = events_of(answer.text)
    names = [name for name, _ in events]
    assert names == [
        *["image_generation.partial_image"] * partial_images,
        "image_generation.completed",
    ]
    for number, (name, data) in enumerate(events[:-1]):
        assert [field for field in data if field not in OURS] == PARTIAL_FIELDS
        assert data["type"] == name
        assert data["partial_image_index"] == number
        assert data["size"] == "256x128"
        assert len(data["b64_json"]) < 100_000
        assert size_of(data)[1] == "WEBP"
    data = events[-1][1]
    assert [field for field in data if field not in OURS] == COMPLETED_FIELDS
    assert data["run_seconds"] > 0 <= data["queue_seconds"]
    # To the thousandth, as everywhere.
    job = requests.get(f"{api.url}/jobs/{answer.headers['X-Job-Id']}", timeout=10)
    for name in ("queue_seconds", "run_seconds"):
        assert data[name] == job.json()[name]
    assert (data["num_inference_steps"], data["guidance_scale"]) == (8, 3.5)
    assert data["quality"] == "high"
    assert data["background"] == "opaque"
    assert isinstance(data["created_at"], int)
    assert size_of(data) == ((256, 128), "WEBP")
    assert set(data["usage"]) == {
        *("input_tokens", "output_tokens", "total_tokens", "input_tokens_details"),
    }
    assert [c for c in comments if c.startswith("step ")] == [
        f"step {step}/8" for step in range(1, 9)
    ]


def test_streamed_and_plain_pictures_are_the_same(api):
    values = {"seed": 5, "steps": 3, "size": "128x128"}
    plain = generate(api, **values).json()["data"][0]["b64_json"]
    events, _ = events_of(generate(api, **values, stream=True).text)
    assert events[-1][1]["b64_json"] == plain


def test_edits_stream_from_forms_and_json(fake, png):
    files = {"image": ("a.png", png)}
    form = {"prompt": "x", "stream": "true", "partial_images": "1", "size": "64x64"}
    url = "data:image/png;base64," + base64.b64encode(png).decode()
    for body in (
        {"data": form, "files": files},
        {"json": form | {"images": [{"image_url": url}], "stream": True}},
    ):
        events, _ = events_of(post(fake, "/v1/images/edits", **body).text)
        names = [name for name, _ in events]
        assert names == ["image_edit.partial_image", "image_edit.completed"]
        assert [data["type"] for _, data in events] == names


def test_safety_identifier_is_echoed(fake):
    answer = generate(fake, stream=True, safety_identifier="abc")
    assert events_of(answer.text)[0][-1][1]["safety_identifier"] == "abc"


@pytest.mark.parametrize(
    ("word", "code"),
    [("memory", "insufficient_storage"), ("unexpected", "generation_failed")],
)
def test_late_errors_are_one_nested_event(fake, word, code):
    answer = generate(fake, prompt=f"a duck fail={word} at=2", stream=True)
    assert answer.status_code == 200
    events, comments = events_of(answer.text)
    assert "step 2/12" in comments
    [(name, data)] = events
    assert name == "error"
    assert set(data) == {"error"}
    assert set(data["error"]) == {"message", "type", "param", "code"}
    assert data["error"]["code"] == code
    assert "secret" not in answer.text


def test_early_errors_have_their_status(fake):
    for values, status in (({"n": 11}, 400), ({"size": "1x1"}, 400)):
        answer = generate(fake, stream=True, **values)
        assert answer.status_code == status
        assert answer.headers["Content-Type"] == "application/json"


def test_first_bytes_come_before_the_first_step(fake):
    with requests.post(
        f"{fake.url}/v1/images/generations",
        json={"prompt": "a duck hold", "stream": True},
        stream=True,
        timeout=5,
    ) as answer:
        first = next(answer.iter_content(64))
        assert re.fullmatch(rb": job [0-9a-f]+\n\n.*", first, re.DOTALL)
        assert stats(fake)["steps"] == 0


@pytest.mark.parametrize("held", ["running", "queued"])
def test_a_client_that_leaves_stops_its_stream(fake, held):
    """Also while nothing is written: the socket is looked at every second."""
    first = begin(fake, {"prompt": "a duck hold", "stream": held == "running"})
    wait_for(lambda: stats(fake)["running"] == 1, 10)
    if held == "queued":
        second = begin(fake, {"prompt": "a duck hold", "stream": True})
        wait_for(lambda: stats(fake)["queued"] == 1, 10)
        second.close()
        wait_for(lambda: stats(fake)["queued"] == 0, 4)
    first.close()
    wait_for(lambda: stats(fake)["running"] == 0, 4)
    assert stats(fake)["finished"] == 0


def more(stream):
    """What comes next; it must not end here."""
    found = stream.read1(1000)
    assert found
    return found


def test_a_client_that_leaves_at_the_very_end_may_come_back_for_its_picture():
    client = ready_client()
    body = {"prompt": "hold", "size": "64x64", "stream": True}
    answer = client.post("/v1/images/generations", json=body)
    next(iter(answer.response))
    job_id = answer.headers["X-Job-Id"]
    job = client.application.extensions["flux_api"].manager.find(job_id)
    client.post("/fake/release")
    wait_for(lambda: job.outcome is not None, 10)
    answer.close()
    with client.get(f"/jobs/{job_id}/result") as kept:
        assert (kept.status_code, kept.mimetype) == (200, "image/png")


def test_a_stream_whose_picture_becomes_no_file_ends_with_the_reason(monkeypatch):
    tries = []

    def fail(*_):
        tries.append(1)
        raise PipelineFailed("It cannot be signed.")

    monkeypatch.setattr(stream_module, "encode_pictures", fail)
    body = {"prompt": "a cat", "size": "64x64", "stream": True}
    answer = ready_client().post("/v1/images/generations", json=body)
    events, _ = events_of(answer.text)
    assert events[-1][1]["error"]["message"] == "It cannot be signed."
    assert len(tries) == 1


def test_a_stream_is_never_silent_for_long():
    # Proxies give up on a silent connection after a minute, as nginx, or two.
    assert clients.KEEP_ALIVE_SECONDS + clients.POLL_SECONDS < 60
    with run_api(app="tests.support.fake_app:app", FAKE_KEEP_ALIVE=0.1) as server:
        connection = begin(server.wait_ready(), {"prompt": "x hold", "stream": True})
        answer = connection.getresponse()
        text = b""
        while text.count(b": waiting\n\n") < 2:
            text += more(answer)
        # So is one of several jobs, in words of its own.
        with requests.get(f"{server.url}/jobs/events", stream=True, timeout=20) as all_:
            text = b""
            while text.count(b": keep-alive\n\n") < 2:
                text += more(all_.raw)
        connection.close()


def test_cancelled_by_hand_the_stream_says_so(fake):
    connection = begin(fake, {"prompt": "x hold", "stream": True, "job_id": "stream-1"})
    answer = connection.getresponse()
    assert answer.headers["X-Job-Id"] == "stream-1"
    requests.delete(f"{fake.url}/jobs/stream-1", timeout=5)
    events, _ = events_of(answer.read().decode())
    assert events[0][1]["error"]["code"] == "cancelled"
    connection.close()


@pytest.mark.parametrize("size", [(1024, 2048), (2048, 1024)])
def test_a_preview_is_small_however_large_the_picture(size):
    """Some decoders take quadratic time over it."""
    job = a_job()
    preview = Preview(Image.new("RGB", (16, 16)), None, size)
    job.post(PartialImage(0, 0, preview))
    job.cancel()
    (_, partial), (name, _) = streamed(job)
    assert max(size_of(partial)[0]) == 512
    assert name == "error"


def test_each_picture_is_sent_as_soon_as_it_is_made(fake):
    """While the next one is drawn: its steps come behind the picture before it."""
    answer = generate(fake, stream=True, n=3, steps=2, seed=2**64 - 1, size="64x64")
    told = re.findall(r": (step \S+)|\nevent: \S+\.(\w+)\ndata: (.*)", answer.text)
    assert [step or name for step, name, _ in told] == [
        *["step 1/2", "step 2/2", "completed"] * 3
    ]
    made = [json.loads(data) for *_, data in told if data]
    assert [data["image_index"] for data in made] == [0, 1, 2]
    assert [data["seed"] for data in made] == [2**64 - 1, 0, 1]
    # What the whole request took in, and this picture alone.
    plain = generate(fake, n=3, steps=2, size="64x64").json()["usage"]
    for data in made:
        assert data["usage"]["input_tokens"] == plain["input_tokens"]
        assert data["usage"]["output_tokens"] * 3 == plain["output_tokens"]
    # The bytes that were sent are those that are kept.
    for index, data in enumerate(made):
        path = f"/jobs/{answer.headers['X-Job-Id']}/result?index={index}"
        kept = requests.get(fake.url + path, timeout=10)
        assert kept.content == base64.b64decode(data["b64_json"])


def test_a_picture_that_is_out_stays_where_a_later_one_fails():
    job = a_job(2)
    job.finish_image(1, ImageResult(Image.new("RGB", (64, 64)), 1))
    job.fail(PipelineFailed("The model made no usable picture."))
    (made, picture), (name, data) = streamed(job)
    assert (made, picture["image_index"]) == ("image_generation.completed", 1)
    assert size_of(picture) == ((64, 64), "WEBP")
    assert (name, data["error"]["code"]) == ("error", "generation_failed")


def test_who_leaves_takes_no_file_from_those_who_stay(monkeypatch):
    """What they were sent is what is kept: signed once more it would be other bytes."""
    encoded, encode = [], stream_module.encode_pictures

    def counted(context, job, parameters, results):
        encoded.extend(results)
        return encode(context, job, parameters, results)

    monkeypatch.setattr(stream_module, "encode_pictures", counted)
    job = a_job(2)
    parameters = ImagesParameters.read({"prompt": "a cat"})
    made = [ImageResult(Image.new("RGB", (64, 64)), seed) for seed in (1, 2)]
    app = ready_client().application
    with app.test_request_context():
        stream = Stream(app.extensions["flux_api"], job, parameters, "generation")
        leaving, staying = (iter(stream.response().response) for _ in range(2))
        job.finish_image(0, made[0])
        for client in (leaving, staying):
            while b"completed" not in next(client):
                pass
        leaving.close()
        job.finish_image(1, made[1])
        assert b"completed" in b"".join(staying)
    assert encoded == made
    assert not stream._encoded
    # Of a job that failed nothing is kept.
    with app.test_request_context():
        job = a_job(2)
        stream = Stream(app.extensions["flux_api"], job, parameters, "generation")
        leaving = iter(stream.response().response)
        job.finish_image(0, made[0])
        while b"completed" not in next(leaving):
            pass
        leaving.close()
        job.cancel()
    assert not stream._encoded


def streamed(job):
    """The events of a job that has ended, as its stream tells them."""
    parameters = ImagesParameters.read({"prompt": "a cat", "output_format": "webp"})
    app = ready_client().application
    with app.test_request_context():
        stream = Stream(app.extensions["flux_api"], job, parameters, "generation")
        return events_of(b"".join(stream.response().response).decode())[0]


def test_pictures_that_are_no_longer_kept_are_an_error_at_the_end():
    """Another client of the same job may have been slow to come."""
    job = a_job()
    job.post(Completed(()))
    [(name, data)] = streamed(job)
    assert (name, data["error"]["code"]) == ("error", "result_expired")


def test_frames_stay_on_their_lines():
    assert frame_comment("a\n\nevent: x") == b": a event: x\n\n"
    assert frame_event("a", {"b": "c\n\u2028é"}) == (
        b'event: a\ndata: {"b":"c\\n\\u2028\\u00e9"}\n\n'
    )
