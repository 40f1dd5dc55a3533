"""Idempotency-Key: a request that is sent twice is done once (W14)."""

from __future__ import annotations

import concurrent.futures
import json
from dataclasses import replace
from datetime import timedelta

import pytest
import requests

from flux_api.core import ImageResult
from flux_api.errors import KeyInUse, KeyReused
from flux_api.http.bodies import Body
from flux_api.http.idempotency import end_if_known
from flux_api.http.kept_answers import KEPT_SECONDS, KeptAnswers
from flux_api.queue.results import ResultStore
from tests.queue.test_results import a_job, picture
from tests.support.fuzz_requests import ready_client
from tests.support.pictures import make_png
from tests.support.servers import run_api, wait_for
from tests.support.wire import begin, message_of, release, stats

PATHS = ["/process", "/process/raw", "/v1/images/generations"]
KEYS = {"alice": "alices-key-0001", "bob": "bobs-key-0001"}


def post(server, key, path="/process", *, prompt="a cat", caller=None, **options):
    """A small picture under an idempotency key."""
    headers = {} if key is None else {"Idempotency-Key": key}
    if caller:
        headers["Authorization"] = f"Bearer {KEYS[caller]}"
    return requests.post(
        server.url + path,
        data={"prompt": prompt, "num_inference_steps": 2},
        headers=headers,
        timeout=30,
        **options,
    )


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"W14-{path}")
def test_the_same_request_gets_the_same_answer_and_runs_once(fake, path):
    first = post(fake, f"same-{path}", path)
    again = post(fake, f"same-{path}", path)
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.content == first.content
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    for name in ("Content-Type", "X-Job-Id", "X-Flux-Seed"):
        assert again.headers[name] == first.headers[name]
    assert again.headers["X-Request-Id"] != first.headers["X-Request-Id"]
    assert stats(fake)["begun"] == 1


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"W14-{path}")
def test_another_request_with_the_key_is_422(fake, path):
    assert post(fake, f"other-{path}", path).status_code == 200
    answer = post(fake, f"other-{path}", path, prompt="a dog")
    assert answer.status_code == 422
    assert "Idempotency-Key" in message_of(answer)
    assert stats(fake)["begun"] == 1
    assert post(fake, f"third-{path}", path, prompt="a dog").status_code == 200


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"W14-{path}")
def test_while_the_first_runs_the_second_waits_for_its_answer(fake, path):
    key = f"running-{path}"
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        first = pool.submit(post, fake, key, path, prompt="hold")
        wait_for(lambda: stats(fake)["running"] == 1, 10)
        others = [pool.submit(post, fake, key, path, prompt="hold") for _ in range(2)]
        wait_for(lambda: stats(fake)["queued"] == 2, 10)
        assert post(fake, key, path, prompt="a dog").status_code == 422
        release(fake)
        done = first.result()
        assert done.status_code == 200
        for other in others:
            assert other.result().content == done.content
            assert other.result().headers["Idempotent-Replayed"] == "true"
            assert other.result().headers["X-Job-Id"] == done.headers["X-Job-Id"]
    assert stats(fake)["begun"] == 1


@pytest.mark.parametrize("path", PATHS)
def test_fifty_times_the_same_key_is_one_run(fake, path):
    with concurrent.futures.ThreadPoolExecutor(25) as pool:
        keys = [f"fifty-{path}"] * 50
        answers = list(pool.map(lambda key: post(fake, key, path), keys))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert stats(fake)["begun"] == 1


@pytest.mark.parametrize("form", [False, True], ids=["json", "form"])
def test_fields_in_another_order_are_the_same_request(fake, form):
    fields = {"prompt": "a cat", "num_inference_steps": 2, "seed": 7}
    again = dict(reversed(fields.items()))
    answers = [
        requests.post(
            f"{fake.url}/process",
            headers={"Idempotency-Key": f"order-{form}"},
            timeout=30,
            **({"data": body} if form else {"json": body}),
        )
        for body in (fields, again)
    ]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[1].headers["Idempotent-Replayed"] == "true"
    assert stats(fake)["begun"] == 1


def test_a_repeat_whose_client_leaves_gives_its_place_back(fake):
    def leave():
        with pytest.raises(requests.Timeout):
            data = {"prompt": "hold", "num_inference_steps": 2}
            headers = {"Idempotency-Key": "repeat-leaves"}
            requests.post(f"{fake.url}/process", data, headers=headers, timeout=4)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(post, fake, "repeat-leaves", prompt="hold")
        wait_for(lambda: stats(fake)["running"] == 1, 10)
        leaver = pool.submit(leave)
        wait_for(lambda: stats(fake)["queued"] == 1, 10)
        leaver.result()
        wait_for(lambda: stats(fake)["queued"] == 0, 10)
        assert stats(fake)["running"] == 1
        release(fake)
        assert first.result().status_code == 200


def test_the_run_goes_on_for_those_that_wait_and_ends_with_the_last(fake):
    def leave_after(seconds):
        with pytest.raises(requests.Timeout):
            requests.post(
                f"{fake.url}/process",
                data={"prompt": "hold"},
                headers={"Idempotency-Key": "one-leaves"},
                timeout=seconds,
            )

    def ask():
        return requests.post(
            f"{fake.url}/process",
            data={"prompt": "hold"},
            headers={"Idempotency-Key": "one-leaves"},
            timeout=30,
        )

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        leaver = pool.submit(leave_after, 2)
        wait_for(lambda: stats(fake)["running"] == 1, 10)
        waiter = pool.submit(ask)
        wait_for(lambda: stats(fake)["queued"] == 1, 10)
        leaver.result()
        # Long enough for a run to end that nobody waits for.
        assert (
            requests.get(f"{fake.url}/jobs/none/events", timeout=9).status_code == 404
        )
        assert stats(fake)["running"] == 1
        release(fake)
        assert waiter.result().status_code == 200
        assert stats(fake)["begun"] == 1
        requests.post(f"{fake.url}/fake/reset", timeout=10)
        leavers = [pool.submit(leave_after_all, fake) for _ in range(2)]
        wait_for(lambda: stats(fake)["running"] == 1, 10)
        for one in leavers:
            one.result()
    wait_for(lambda: stats(fake)["running"] == 0, 10)


def test_who_tries_again_and_gives_up_on_the_first_has_joined_its_run(fake):
    body = {"prompt": "hold", "size": "64x64", "num_inference_steps": 12}
    headers = {"Idempotency-Key": "tried-again-at-once"}

    def ask(timeout):
        return requests.post(
            f"{fake.url}/process", json=body, headers=headers, timeout=timeout
        )

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        first = begin(fake, body, "/process", headers)
        wait_for(lambda: stats(fake)["running"] == 1, 10)
        again = pool.submit(ask, 30)
        wait_for(lambda: stats(fake)["queued"] == 1, 10)
        first.close()
        # Longer than it takes to find that somebody has left.
        status = f"{fake.url}/jobs/none/events"
        assert requests.get(status, timeout=9).status_code == 404
        release(fake)
        assert again.result().status_code == 200
    assert stats(fake)["begun"] == 1


def test_who_joins_a_stream_has_one_of_the_places_to_watch():
    body = {"prompt": "hold", "stream": True}
    headers = {"Idempotency-Key": "a-watched-stream"}
    settings = {"FLUX_MAX_WATCHERS": 4, "FLUX_MAX_QUEUE": 2}
    with run_api(app="tests.support.fake_app:app", **settings) as server:
        server.wait_ready()
        url, streams = f"{server.url}/v1/images/generations", []
        for _ in range(9):
            asked = requests.post(
                url, json=body, headers=headers, stream=True, timeout=9
            )
            streams.append(asked)
        # Three quarters of the places are one caller's.
        assert [one.status_code for one in streams] == [200] * 4 + [429] * 5
        assert "watch" in streams[-1].json()["error"]["message"]
        streams[1].close()
        # It is noticed at the next sign of life.
        release(server)
        assert "completed" in streams[0].text and "completed" in streams[2].text
        assert stats(server)["begun"] == 1


def leave_after_all(fake):
    """A client that goes while another with its key waits, and goes too."""
    with pytest.raises(requests.Timeout):
        requests.post(
            f"{fake.url}/process",
            data={"prompt": "hold on"},
            headers={"Idempotency-Key": "all-leave"},
            timeout=2,
        )


@pytest.mark.parametrize(
    ("prompt", "status"), [("hold fail=pipeline", 500), ("hold fail=memory", 507)]
)
def test_the_failure_of_the_first_is_the_answer_to_those_that_wait(
    fake, prompt, status
):
    prompt += " at=1"
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(post, fake, f"fails-later-{status}", prompt=prompt)
        wait_for(lambda: stats(fake)["running"] == 1, 10)
        other = pool.submit(post, fake, f"fails-later-{status}", prompt=prompt)
        wait_for(lambda: stats(fake)["queued"] == 1, 10)
        release(fake)
        assert first.result().status_code == other.result().status_code == status
    assert stats(fake)["begun"] == 1


@pytest.mark.parametrize(
    ("prompt", "statuses"),
    [
        ("hold fail=pipeline at=1", (500, 500)),
        ("hold and stop", (499, 499)),
        # The next one is done anew where nothing of the first is kept.
        ("hold", (200, 200)),
    ],
)
def test_what_several_waited_for_is_let_go_at_its_end(prompt, statuses, monkeypatch):
    monkeypatch.setenv("FLUX_RESULTS_MB", "0")
    app = ready_client.__wrapped__().application  # One of its own, of this setting.
    manager = app.extensions["flux_api"].manager
    body = {"prompt": prompt, "job_id": "several-wait"}

    def ask():
        headers = {"Idempotency-Key": "several-wait"}
        with app.test_client().post("/process", json=body, headers=headers) as answer:
            return answer.status_code

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask)
        wait_for(lambda: manager.running, 10)
        job = manager.find(body["job_id"])
        other = pool.submit(ask)
        wait_for(lambda: len(job._clients) == 2, 10)
        if "stop" in prompt:
            manager.cancel(job)
        app.test_client().post("/fake/release")
        assert (first.result(), other.result()) == statuses
    assert job.request.prompt == ""


def test_who_has_waited_long_enough_for_the_first_is_told_so():
    """So it is where a picture's URL keeps the first one's job from beginning."""
    app = ready_client().application
    context = app.extensions["flux_api"]
    settings = context.settings.model_copy(update={"request_timeout": 0})
    impatient = replace(context, settings=settings)
    headers = {"Idempotency-Key": "still-runs"}
    app.extensions["flux_api"] = impatient
    try:
        with app.test_request_context(headers=headers):
            end_if_known(Body({}, []))
            with (
                app.test_request_context(headers=headers),
                pytest.raises(KeyInUse, match="still runs"),
            ):
                end_if_known(Body({}, []))
            # It has given its place in the queue back.
            assert context.manager.queue_depth == 0
    finally:
        app.extensions["flux_api"] = context


def test_uploads_count_whatever_the_boundary_is(fake):
    def send(picture):
        return requests.post(
            f"{fake.url}/process",
            files={"input_file": ("a.png", picture)},
            headers={"Idempotency-Key": "with-a-picture"},
            timeout=30,
        )

    first = send(make_png())
    again = send(make_png())  # requests draws a boundary for each
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.content == first.content
    assert send(make_png(color="blue")).status_code == 422


@pytest.mark.parametrize(
    ("prompt", "status"),
    [("fail=unexpected times=1", 500), ("fail=busy times=1", 503)],
)
def test_failures_are_not_kept(fake, prompt, status):
    assert post(fake, f"fails-{status}", prompt=prompt).status_code == status
    again = post(fake, f"fails-{status}", prompt=prompt)
    assert again.status_code == 200
    assert "Idempotent-Replayed" not in again.headers


def test_refusals_are_not_kept_and_free_the_key(fake):
    assert post(fake, "refused", prompt=" ").status_code == 400
    assert post(fake, "refused", prompt="a cat").status_code == 200


def test_a_client_that_left_leaves_no_answer(fake):
    with pytest.raises(requests.Timeout):
        requests.post(
            f"{fake.url}/process",
            data={"prompt": "hold"},
            headers={"Idempotency-Key": "gave-up"},
            timeout=0.5,
        )
    wait_for(lambda: stats(fake)["running"] == 0, 10)
    wait_for(lambda: post(fake, "gave-up", prompt="a new one").status_code == 200, 10)


def test_a_stream_is_joined_while_it_runs_and_ends_the_same_later(fake):
    def open_stream(prompt="hold"):
        return requests.post(
            f"{fake.url}/v1/images/generations",
            json={"prompt": prompt, "stream": True, "steps": 2},
            headers={"Idempotency-Key": "a-stream"},
            timeout=30,
            stream=True,
        )

    streams = [open_stream(), open_stream()]
    assert open_stream("a dog").status_code == 422
    release(fake)
    streams.append(open_stream())
    completed = [events_of(stream.text)[-1] for stream in [*streams, open_stream()]]
    assert completed == completed[:1] * 4
    assert completed[0]["usage"]["input_tokens"] == 1
    replayed = [stream.headers.get("Idempotent-Replayed") for stream in streams]
    assert replayed == [None, "true", "true"]
    assert len({stream.headers["X-Job-Id"] for stream in streams}) == 1
    assert stats(fake)["begun"] == 1


def test_a_stream_that_failed_is_run_again(fake):
    for count in (1, 2):
        requests.post(
            f"{fake.url}/v1/images/generations",
            json={"prompt": "fail=pipeline", "stream": True},
            headers={"Idempotency-Key": "a-stream-that-fails"},
            timeout=30,
        )
        assert stats(fake)["begun"] == count


def events_of(text):
    """The events of a stream, as their data."""
    lines = text.splitlines()
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


@pytest.mark.parametrize("key", ["", "a" * 256, "with blank", "t\tb", "k\xe9y"])
@pytest.mark.parametrize("path", PATHS[1:])
def test_odd_keys_are_400(fake, key, path):
    answer = post(fake, key.encode("latin-1"), path)
    assert answer.status_code == 400
    assert "Idempotency-Key" in message_of(answer)
    assert stats(fake)["begun"] == 0
    longest = path.ljust(255, "a")
    assert post(fake, longest, path).status_code == 200


def test_keys_belong_to_their_callers_():
    keys = ",".join(f"{name}:{key}" for name, key in KEYS.items())
    with run_api(app="tests.support.fake_app:app", FLUX_API_KEYS=keys) as server:
        server.wait_ready()
        assert post(server, "mine", caller="alice").status_code == 200
        assert post(server, "mine", caller="bob", prompt="b").status_code == 200
        again = post(server, "mine", caller="alice")
        assert again.headers["Idempotent-Replayed"] == "true"


def test_a_key_is_free_again_once_the_picture_is_no_longer_kept(fake_without_results):
    """The answer is made anew of the pictures that ``/jobs/<id>/result`` gives."""
    before = stats(fake_without_results)["begun"]
    for _ in range(2):
        answer = post(fake_without_results, "nothing-is-kept")
        assert "Idempotent-Replayed" not in answer.headers
    assert stats(fake_without_results)["begun"] == before + 2


def test_jobs_and_pictures_are_kept_as_long_as_their_key():
    """For a day, and for ten minutes without one."""
    client = ready_client()
    manager = client.application.extensions["flux_api"].manager
    kept = []
    for headers in ({}, {"Idempotency-Key": "kept-for-a-day"}):
        answer = client.post("/process", json={"prompt": "a cat"}, headers=headers)
        kept.append(manager.find(answer.headers["X-Job-Id"]).kept_seconds)
    assert kept == [
        timedelta(minutes=10).total_seconds(),
        timedelta(days=1).total_seconds(),
    ]


class Clock:
    """A clock set by hand."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def kept_by(results, clock, keys):
    """Answers under ``keys``, each of a picture of 100 bytes."""
    answers = KeptAnswers(results, clock=clock)
    for key in keys:
        entry, is_new = answers.begin(("me", key), b"x")
        assert is_new
        entry.job = a_job()
        entry.job.kept_seconds = KEPT_SECONDS
        entry.job.finish_image(0, ImageResult(None, 1))
        results.keep(entry.job, [picture(100)])
        answers.keep(entry, dict)
    return answers


def is_kept(answers, key):
    """Whether there is an answer to replay."""
    entry, is_new = answers.begin(("me", key), b"x")
    if is_new:
        answers.forget(entry)
    return not is_new


def test_answers_are_gone_after_a_day():
    clock, day = Clock(), timedelta(days=1).total_seconds()
    answers = kept_by(ResultStore(10**6, clock=clock), clock, ["k"])
    clock.now = day - 1
    assert is_kept(answers, "k")
    clock.now = day
    assert not is_kept(answers, "k")


def test_pictures_are_kept_once_and_keys_are_bounded_by_them_and_by_count():
    results = ResultStore(250)
    answers = kept_by(results, Clock(), "012")
    assert [is_kept(answers, key) for key in "012"] == [False, True, True]

    # The newest thousand, as docs/openai-compatibility.md says.
    many = kept_by(ResultStore(10**9), Clock(), map(str, range(1010)))
    assert not is_kept(many, "9")
    assert is_kept(many, "10")


def test_who_sends_many_keys_forgets_none_of_others():
    answers = kept_by(ResultStore(10**9), Clock(), ["mine"])
    for number in range(1010):
        entry, _ = answers.begin(("other", str(number)), b"x")
        answers.keep(entry, lambda: None)
    assert is_kept(answers, "mine")


def test_what_runs_is_never_dropped():
    clock = Clock()
    answers = KeptAnswers(ResultStore(2000), clock=clock)
    runs, is_new = answers.begin(("me", "runs"), b"x")
    assert is_new
    clock.now = 10 * KEPT_SECONDS
    for number in range(5):
        assert answers.begin(("me", str(number)), b"x")[1]
    assert answers.begin(("me", "runs"), b"x") == (runs, False)
    with pytest.raises(KeyReused):
        answers.begin(("me", "runs"), b"y")
    answers.forget(runs)
    assert answers.begin(("me", "runs"), b"y")[1]
