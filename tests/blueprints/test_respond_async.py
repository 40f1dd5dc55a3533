"""Jobs that nobody waits for, lists of jobs, and one stream for several of them."""

from __future__ import annotations

import contextlib
import io
import json
import uuid
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

import pytest
import requests
from PIL import Image

from tests.support.fuzz_requests import ready_client
from tests.support.servers import run_api, wait_for
from tests.support.wire import post, release, stats

ASYNC = {"Prefer": "respond-async"}
SMALL = {"prompt": "a cat", "size": "64x64", "seed": 5}
ROUTES = [
    ("/v1/images/generations", {}, "/v1/jobs/"),
    ("/v1/images/edits", {"image": ("a.png", b"PNG")}, "/v1/jobs/"),
    ("/v1/images/variations", {"image": ("a.png", b"PNG")}, "/v1/jobs/"),
    ("/process", {}, "/jobs/"),
    ("/process/raw", {"input_file": ("a.png", b"PNG")}, "/jobs/"),
]


def submit(server, prompt="a cat", path="/v1/images/generations", headers=(), **more):
    """The 202 of a request that is not waited for."""
    body = SMALL | {"prompt": prompt} | more
    answer = requests.post(
        server.url + path, json=body, headers=ASYNC | dict(headers), timeout=20
    )
    assert answer.status_code == 202, answer.text
    return answer


def get(server, path, **query):
    """The answer to a GET."""
    return requests.get(server.url + path, params=query, timeout=30)


def await_end(server, job_id):
    """How the job ended, once its pictures are files."""
    get(server, f"/jobs/{job_id}/events")
    return get(server, f"/jobs/{job_id}").json()["state"]


def events_of(answer):
    """The data of every event of a stream."""
    lines = answer.iter_lines(decode_unicode=True)
    return (json.loads(line[6:]) for line in lines if line.startswith("data: "))


DRAW = {"name": "generate_image", "arguments": {"prompt": "a cat", "wait": False}}
MESSAGE = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": DRAW}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/images/generations", SMALL),
        ("/process", SMALL),
        ("/v1/flux-dev", {"prompt": "a cat"}),
        ("/mcp", MESSAGE),
    ],
)
def test_it_goes_on_without_its_client_from_the_moment_it_may_start(
    monkeypatch, path, body
):
    """The client may have left by then."""
    client, goes_on = ready_client(), []
    manager = client.application.extensions["flux_api"].manager
    submit = manager.submit

    def note(job, request):
        goes_on.append(job.outlives_clients)
        submit(job, request)

    monkeypatch.setattr(manager, "submit", note)
    headers = ASYNC if body is SMALL else {}
    with client.post(path, json=body, headers=headers) as answer:
        assert answer.status_code in (200, 202)
    assert goes_on == [True]


@pytest.mark.parametrize(("path", "files", "place"), ROUTES, ids=[r[0] for r in ROUTES])
def test_every_route_answers_at_once_with_the_jobs_addresses(
    fake, png, path, files, place
):
    files = {name: (n, png) for name, (n, _) in files.items()}
    form = {"prompt": "hold", "size": "64x64", "output_format": "webp"}
    answer = post(fake, path, data=form, files=files or None, headers=ASYNC)
    assert answer.status_code == 202
    assert answer.headers["Preference-Applied"] == "respond-async"
    story = answer.json()
    assert story["state"] in ("queued", "running")
    assert answer.headers["Location"] == story["links"]["self"] == place + story["id"]
    assert get(fake, story["links"]["self"]).json()["id"] == story["id"]
    assert get(fake, story["links"]["result"]).status_code == 409
    release(fake)
    assert await_end(fake, story["id"]) == "done"
    picture = get(fake, story["links"]["result"])
    image = Image.open(io.BytesIO(picture.content))
    assert (image.format, image.size) == ("WEBP", (64, 64))
    names = [event["type"] for event in events_of(get(fake, story["links"]["events"]))]
    assert names[-1] == "done"


def test_what_was_ignored_is_told_at_once_and_by_the_job(fake):
    told = submit(fake, model="Tiny").json()
    assert "so 'tiny' was taken" in told["warning"]
    await_end(fake, told["id"])
    assert get(fake, f"/jobs/{told['id']}").json()["warning"] == told["warning"]
    assert "warning" not in submit(fake).json()


def test_it_is_the_picture_that_a_plain_request_gets(fake):
    plain = post(fake, "/process/raw", json=SMALL)
    job_id = submit(fake, path="/process/raw").json()["id"]
    await_end(fake, job_id)
    later = get(fake, f"/jobs/{job_id}/result")
    assert later.content == plain.content
    assert later.headers["X-Flux-Seed"] == "5"


def test_it_goes_on_without_its_client_until_it_is_deleted(fake):
    job_id = submit(fake, "pause=0.05", steps=100).json()["id"]
    wait_for(lambda: get(fake, f"/jobs/{job_id}").json().get("step", 0) > 3, 20)
    requests.delete(f"{fake.url}/jobs/{job_id}", timeout=10)
    assert get(fake, f"/jobs/{job_id}").json()["state"] == "cancelled"
    wait_for(lambda: stats(fake)["running"] == 0, 10)
    assert get(fake, f"/jobs/{job_id}/result").status_code == 499


def test_failures_are_told_by_the_result(fake):
    job_id = submit(fake, "fail=memory").json()["id"]
    assert await_end(fake, job_id) == "failed"
    answer = get(fake, f"/v1/jobs/{job_id}/result")
    assert answer.status_code == 507
    assert answer.json()["error"]["code"] == "insufficient_storage"


def test_what_is_refused_is_refused_before_the_job(fake):
    for values, param in (({"size": "65x64"}, "size"), ({"stream": True}, "stream")):
        body = SMALL | values
        answer = post(fake, "/v1/images/generations", json=body, headers=ASYNC)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == param
    assert stats(fake)["begun"] == 0


def test_other_preferences_change_nothing(fake):
    headers = {"Prefer": "return=minimal, wait=5"}
    answer = post(fake, "/process/raw", json=SMALL, headers=headers)
    assert answer.status_code == 200
    assert "Preference-Applied" not in answer.headers


def test_the_same_idempotency_key_is_the_same_job(fake):
    key = {"Idempotency-Key": uuid.uuid4().hex}
    first = submit(fake, "hold", headers=key)
    again = submit(fake, "hold", headers=key)
    release(fake)
    await_end(fake, first.json()["id"])
    after = submit(fake, "hold", headers=key)
    assert first.json()["id"] == again.json()["id"] == after.json()["id"]
    assert again.headers["Idempotent-Replayed"] == "true"
    assert after.json()["state"] == "done"
    assert stats(fake)["begun"] == 1


def test_a_job_that_failed_is_tried_again_with_its_key(fake):
    key = {"Idempotency-Key": uuid.uuid4().hex}
    first = submit(fake, "fail=busy times=1", headers=key).json()["id"]
    assert await_end(fake, first) == "failed"
    second = submit(fake, "fail=busy times=1", headers=key).json()["id"]
    assert second != first
    assert await_end(fake, second) == "done"


def test_the_urls_of_stored_pictures_are_told(fake_with_files):
    job_id = submit(fake_with_files).json()["id"]
    assert await_end(fake_with_files, job_id) == "done"
    [url] = get(fake_with_files, f"/jobs/{job_id}").json()["urls"]
    picture = get(fake_with_files, f"/jobs/{job_id}/result").content
    assert requests.get(url, timeout=10).content == picture


def test_without_room_for_pictures_there_is_nothing_to_come_back_for(
    fake_without_results,
):
    server = fake_without_results
    for path in ("/v1/images/generations", "/process"):
        answer = post(server, path, json=SMALL, headers=ASYNC)
        assert answer.status_code == 400
        assert "FLUX_RESULTS_MB" in answer.text
        assert post(server, path, json=SMALL).status_code == 200
    assert get(server, "/v1/capabilities").json()["limits"]["keeps_results"] is False


def test_own_jobs_are_listed_the_newest_first():
    keys = {"FLUX_API_KEYS": "one:sk-key-one,two:sk-key-two"}
    one, two = ({"Authorization": f"Bearer sk-key-{n}"} for n in ("one", "two"))
    with run_api(app="tests.support.fake_app:app", **keys) as server:
        server.wait_ready()
        ids = [submit(server, headers=one).json()["id"] for _ in range(3)]
        other = submit(server, headers=two).json()["id"]

        def listed(headers, **query):
            url = f"{server.url}/v1/jobs"
            answer = requests.get(url, params=query, headers=headers, timeout=10)
            assert answer.json()["object"] == "list"
            return [job["id"] for job in answer.json()["data"]]

        assert listed(one) == ids[::-1]
        assert listed(two) == [other]
        assert listed(one, limit=1) == [ids[2]]
        assert listed(one, ids=f"{ids[0]},{other},never-heard-of") == [ids[0]]
        assert requests.get(f"{server.url}/v1/jobs", timeout=10).status_code == 401
        for query in ({"limit": 0}, {"ids": "x"}, {"ids": ",".join(ids * 34)}):
            url = f"{server.url}/v1/jobs"
            answer = requests.get(url, params=query, headers=one, timeout=10)
            assert answer.status_code == 400
            assert answer.json()["error"]["param"] == next(iter(query))


def test_several_jobs_are_followed_on_one_connection(fake):
    # The end of a job lets go of its previews: they are told before, also when busy.
    slow = {"partial_images": 1, "num_inference_steps": 3}
    ids = [submit(fake, "hold pause=0.5", **slow).json()["id"] for _ in range(3)]
    wait_for(lambda: stats(fake)["running"] == 1, 10)
    watched = ",".join([*ids, "never-heard-of"])
    answer = requests.get(
        f"{fake.url}/v1/jobs/events", params={"ids": watched}, stream=True, timeout=30
    )
    with contextlib.closing(answer):
        events = events_of(answer)
        first = next(events)
        assert first["error"]["code"] == "job_not_found"
        assert (first["type"], first["job_id"]) == ("failed", "never-heard-of")
        release(fake)
        told = list(events)
    for job_id in ids:
        names = [event["type"] for event in told if event["job_id"] == job_id]
        assert names[-1] == "done"
        assert {"started", "step", "partial_image"} < set(names)
    # At its `done` each picture could be fetched; the stream ended by itself.
    assert all(get(fake, f"/jobs/{n}/result").status_code == 200 for n in ids)


def test_four_may_wait_for_what_is_not_there_and_a_fifth_does_not(fake):
    """Ids that never come hold few threads."""
    job_id = uuid.uuid4().hex
    with ThreadPoolExecutor(5) as pool:
        path = f"/jobs/{job_id}/events"
        asked = [pool.submit(get, fake, path) for _ in range(5)]
        [refused], waiting = wait(asked, return_when=FIRST_COMPLETED)
        assert refused.result().status_code == 404
        # Again at once: the others are still there when it comes.
        assert get(fake, path).status_code == 404
        submit(fake, headers={"X-Job-Id": job_id})
        assert [one.result().status_code for one in waiting] == [200] * 4


def test_without_ids_the_stream_tells_of_the_callers_living_jobs(fake):
    ended = submit(fake).json()["id"]
    await_end(fake, ended)
    living = submit(fake, "hold").json()["id"]
    answer = requests.get(f"{fake.url}/jobs/events", stream=True, timeout=30)
    with contextlib.closing(answer):
        events = events_of(answer)
        seen = [next(events)]
        release(fake)
        seen += list(events)
    assert {event["job_id"] for event in seen} == {living}
    assert seen[-1]["type"] == "done"


@pytest.mark.parametrize(
    ("accept", "fields", "media_type"),
    [
        ("image/png", {}, "image/png"),
        ("image/webp", {}, "image/webp"),
        ("image/jpeg, image/webp;q=0.5", {}, "image/jpeg"),
        ("image/*", {"output_format": "jpeg"}, "image/jpeg"),
        ("image/jpg", {}, "image/jpeg"),
        ("image/jpeg", {"output_format": "JPG"}, "image/jpeg"),
        ("image/png, application/json", {}, "application/json"),
        ("*/*", {}, "application/json"),
    ],
)
def test_accept_asks_for_the_file_itself(fake, accept, fields, media_type):
    headers = {"Accept": accept}
    answer = post(fake, "/v1/images/generations", json=SMALL | fields, headers=headers)
    assert answer.headers["Content-Type"] == media_type
    if media_type != "application/json":
        assert Image.open(io.BytesIO(answer.content)).size == (64, 64)
        assert answer.headers["X-Flux-Seed"] == "5"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"stream": True}, "stream"),
        ({"response_format": "b64_json"}, "response_format"),
        ({"output_format": "webp"}, "output_format"),
    ],
)
def test_what_a_file_cannot_be_is_refused(fake, fields, param):
    headers = {"Accept": "image/png"}
    answer = post(fake, "/v1/images/generations", json=SMALL | fields, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_variations_and_several_pictures_are_streamed(fake, png):
    form = {"stream": "true", "n": "2", "partial_images": "1", "seed": "7"}
    answer = post(
        fake, "/v1/images/variations", data=form, files={"image": ("a.png", png)}
    )
    events = list(events_of(answer))
    assert {event["type"] for event in events} == {
        "image_variation.partial_image",
        "image_variation.completed",
    }
    made = [event for event in events if event["type"].endswith("completed")]
    assert [event["image_index"] for event in made] == [0, 1]
    assert [event["seed"] for event in made] == [7, 8]


def test_the_original_api_gives_other_formats(fake):
    answer = post(fake, "/process/raw", json=SMALL | {"output_format": "jpeg"})
    assert answer.headers["Content-Type"] == "image/jpeg"
    body = SMALL | {"output_compression": 50}
    assert post(fake, "/process/raw", json=body).status_code == 400
