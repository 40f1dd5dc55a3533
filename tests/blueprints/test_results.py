"""Pictures fetched again by their job's id, over HTTP."""

from __future__ import annotations

import base64
import threading
import uuid

import pytest
import requests

from tests.support.servers import run_api

FORM = {"prompt": "a cat", "width": 64, "height": 64, "seed": 5}


def fetch(server, job_id, prefix="/jobs", **query):
    """The answer of the result's address."""
    url = f"{server.url}{prefix}/{job_id}/result"
    return requests.get(url, params=query, timeout=10)


def test_the_very_bytes_and_their_facts(fake):
    answer = requests.post(f"{fake.url}/process/raw", data=FORM, timeout=20)
    again = fetch(fake, answer.headers["X-Job-Id"])
    assert again.status_code == 200
    assert again.content == answer.content
    assert again.headers["Content-Type"] == "image/png"
    assert again.headers["Cache-Control"] == "no-store"
    facts = {n: v for n, v in answer.headers.items() if n.startswith("X-Flux-")}
    for name in ("X-Flux-Queue-Seconds", "X-Flux-Run-Seconds"):
        facts.pop(name)
    assert facts.items() <= dict(again.headers).items()
    assert facts["X-Flux-Seed"] == "5"


@pytest.mark.parametrize("stream", [False, True])
def test_openai_pictures_in_the_format_that_was_asked_for(fake, stream):
    body = {"prompt": "a cat", "size": "64x64", "output_format": "webp"}
    body |= {"stream": True} if stream else {"n": 2}
    job_id = uuid.uuid4().hex
    answer = requests.post(
        f"{fake.url}/v1/images/generations",
        json=body | {"job_id": job_id},
        timeout=20,
    )
    again = fetch(fake, job_id, prefix="/v1/jobs")
    assert again.headers["Content-Type"] == "image/webp"
    assert base64.b64encode(again.content) in answer.content
    if not stream:
        second = fetch(fake, job_id, index=1)
        assert second.content == base64.b64decode(answer.json()["data"][1]["b64_json"])
        assert second.headers["X-Flux-Seed"] == str(answer.json()["data"][1]["seed"])


def test_what_is_not_there_is_told(fake):
    assert fetch(fake, "nobody-knows-it").status_code == 404
    job_id = uuid.uuid4().hex
    form = FORM | {"job_id": job_id}
    requests.post(f"{fake.url}/process", data=form, timeout=20)
    for index in ("1", "-1", "x", "9" * 30):
        answer = fetch(fake, job_id, prefix="/v1/jobs", index=index)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "index")
    assert fetch(fake, job_id, index="0").status_code == 200


def test_a_job_that_runs_is_not_done_and_a_cancelled_one_says_so(fake):
    job_id = uuid.uuid4().hex
    form = FORM | {"job_id": job_id, "prompt": "pause=0.2", "num_inference_steps": 100}
    url = f"{fake.url}/process"
    post = threading.Thread(target=requests.post, args=(url, form), daemon=True)
    post.start()
    events = requests.get(f"{fake.url}/jobs/{job_id}/events", stream=True, timeout=10)
    next(line for line in events.iter_lines() if b"event: step" in line)
    events.close()
    answer = fetch(fake, job_id, prefix="/v1/jobs")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "job_not_done")
    assert int(answer.headers["Retry-After"]) >= 1
    requests.delete(f"{fake.url}/jobs/{job_id}", timeout=10)
    assert fetch(fake, job_id).status_code == 499
    post.join(10)


def test_done_and_the_jobs_json_name_the_stored_url(fake_with_files):
    server, job_id = fake_with_files, uuid.uuid4().hex
    form = FORM | {"job_id": job_id}
    stored = requests.post(f"{server.url}/process", data=form, timeout=20).json()
    url = stored["result_image_url"]
    story = requests.get(f"{server.url}/jobs/{job_id}", timeout=10).json()
    assert story["urls"] == [url]
    events = requests.get(f"{server.url}/jobs/{job_id}/events", timeout=10)
    assert f'"urls":["{url}"]' in events.text.replace(" ", "")
    assert fetch(server, job_id).content == requests.get(url, timeout=10).content


def test_pictures_are_their_keys_own_and_none_are_kept_without_room():
    keys = {"FLUX_API_KEYS": "one:sk-key-one,two:sk-key-two", "FLUX_RESULTS_MB": "0"}
    with run_api(app="tests.support.fake_app:app", **keys) as server:
        server.wait_ready()
        job_id = uuid.uuid4().hex
        one, two = (
            {"Authorization": f"Bearer sk-key-{name}"} for name in ("one", "two")
        )
        form = FORM | {"job_id": job_id}
        url = f"{server.url}/jobs/{job_id}/result"
        requests.post(f"{server.url}/process", data=form, headers=one, timeout=20)
        assert requests.get(url, headers=two, timeout=10).status_code == 404
        assert requests.get(url, timeout=10).status_code == 401
        answer = requests.get(url, headers=one, timeout=10)
        assert answer.status_code == 410
