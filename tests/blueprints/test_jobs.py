"""Queue, progress, cancellation and faults over HTTP, with a scripted backend."""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import signal
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest
import requests

from flux_api.http.clients import is_here
from tests.support.servers import ROOT, post_and_leave, run_api, wait_for
from tests.support.wire import release, stats


@pytest.fixture(scope="module")
def fake():
    """The API over the scripted backend, with a short queue."""
    with run_api(
        app="tests.support.fake_app:app", FLUX_MAX_QUEUE=8, FLUX_MAX_WATCHERS=2
    ) as server:
        yield server.wait_ready()


@pytest.fixture(autouse=True)
def forget(request):
    """Nothing is held and nothing counted when a test begins."""
    if "fake" in request.fixturenames:
        server = request.getfixturevalue("fake")
        requests.post(f"{server.url}/fake/reset", timeout=10)
        wait_for(lambda: stats(server)["running"] == 0, 10)


def post(server, prompt, path="/process", timeout=60, **fields):
    """A form post to the original API."""
    job_id = fields.pop("job_id", None)
    headers = {"X-Job-Id": job_id} if job_id else {}
    fields = {"prompt": prompt, "width": 64, "height": 64} | fields
    return requests.post(
        server.url + path, data=fields, headers=headers, timeout=timeout
    )


@pytest.fixture
def pool():
    """Threads for requests that run at once."""
    with concurrent.futures.ThreadPoolExecutor(128) as threads:
        yield threads


def job(server, job_id):
    """The job's JSON."""
    return requests.get(f"{server.url}/jobs/{job_id}", timeout=10).json()


def await_state(server, job_id, state):
    """Wait until the job is in ``state``."""
    wait_for(lambda: job(server, job_id).get("state") == state, 20)


def read_events(server, job_id):
    """Every event of the job as (name, data), until its end."""
    found = []
    answer = requests.get(f"{server.url}/jobs/{job_id}/events", stream=True, timeout=60)
    with answer:
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.headers["Cache-Control"] == "no-cache"
        assert answer.headers["X-Accel-Buffering"] == "no"
        name = None
        for line in answer.iter_lines(decode_unicode=True):
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                found.append((name, json.loads(line.removeprefix("data: "))))
    return found


def test_burst_gets_only_200_and_429_and_health_answers_throughout(fake, pool):
    def one(_):
        answer = post(fake, "pause=0.02", num_inference_steps=4)
        return answer.status_code, answer.headers.get("Retry-After")

    answers = [pool.submit(one, n) for n in range(100)]
    healths = []
    while not all(answer.done() for answer in answers):
        health = requests.get(f"{fake.url}/healthz", timeout=5)
        healths.append(health.status_code)
    seen = [answer.result() for answer in answers]
    assert {status for status, _ in seen} == {200, 429}
    assert all(1 <= int(after) <= 60 for status, after in seen if status == 429)
    assert set(healths) == {200}
    assert stats(fake)["running"] == stats(fake)["queued"] == 0


def test_one_image_does_not_wait_for_another_callers_ten(pool):
    settings = {"FLUX_TRUSTED_PROXIES": 1}
    with run_api(app="tests.support.fake_app:app", **settings) as fake:
        fake.wait_ready()
        done = []

        def ask(address, n):
            requests.post(
                f"{fake.url}/v1/images/generations",
                json={"prompt": "pause=0.05", "n": n, "size": "64x64", "steps": 4},
                headers={"X-Forwarded-For": address},
                timeout=60,
            )
            done.append((n, stats(fake)["finished"]))

        ten = pool.submit(ask, "192.0.2.1", 10)
        wait_for(lambda: stats(fake)["running"] == 1, 10)
        pool.submit(ask, "192.0.2.2", 1).result()
        ten.result()
        assert [n for n, _ in done] == [1, 10]
        # Behind at most the picture that ran and one more in turn.
        assert done[0][1] <= 3


def test_waiting_requests_know_their_position(fake, pool):
    held = pool.submit(post, fake, "hold", job_id="position-0")
    await_state(fake, "position-0", "running")
    waiting = []
    for number in (1, 2):
        waiting.append(pool.submit(post, fake, "x", job_id=f"position-{number}"))
        await_state(fake, f"position-{number}", "queued")
    assert [job(fake, f"position-{n}").get("position") for n in (0, 1, 2)] == [
        None,
        0,
        1,
    ]
    release(fake)
    answers = [waiter.result() for waiter in [held, *waiting]]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert float(answers[2].headers["X-Flux-Queue-Seconds"]) > 0
    assert float(answers[2].headers["X-Flux-Run-Seconds"]) >= 0
    assert answers[2].headers["X-Flux-Seed"].isdigit()


def test_the_seconds_told_are_those_that_were_spent(fake, pool):
    held = pool.submit(post, fake, "hold", job_id="spends-time-0")
    await_state(fake, "spends-time-0", "running")
    began = time.monotonic()
    body = {"prompt": "pause=0.1", "n": 2, "steps": 2, "size": "64x64"}
    url = f"{fake.url}/v1/images/generations"
    headers = {"X-Job-Id": "spends-time-1"}
    asked = pool.submit(requests.post, url, json=body, headers=headers, timeout=30)
    await_state(fake, "spends-time-1", "queued")
    queued = time.monotonic()
    threading.Event().wait(0.3)
    released = time.monotonic()
    release(fake)
    answer = asked.result()
    ended = time.monotonic()
    assert held.result().status_code == answer.status_code == 200
    told = job(fake, "spends-time-1")
    waited, ran = told["queue_seconds"], told["run_seconds"]
    rounded = 0.001
    assert released - queued <= waited + rounded
    # Four steps of a tenth of a second, after the release.
    assert ran + rounded >= 0.4
    assert ran <= ended - released + rounded
    assert waited + ran <= ended - began + 2 * rounded
    assert float(answer.headers["X-Flux-Queue-Seconds"]) == waited
    assert float(answer.headers["X-Flux-Run-Seconds"]) == ran
    lines = map(json.loads, fake.output.splitlines())
    [line] = [line for line in lines if line.get("job_id") == "spends-time-1"]
    assert (line["queue_seconds"], line["run_seconds"]) == (waited, ran)


def test_events_tell_the_whole_story(fake, pool):
    held = pool.submit(post, fake, "hold", job_id="story-zero")
    await_state(fake, "story-zero", "running")
    asked = pool.submit(
        post,
        fake,
        "a cat pause=0.2",
        job_id="story-one",
        num_inference_steps=4,
        partial_images=2,
    )
    await_state(fake, "story-one", "queued")
    watched = pool.submit(read_events, fake, "story-one")
    release(fake)
    names = [name for name, _ in watched.result()]
    assert [n for n in names if n != "partial_image"] == [
        "queued",
        "started",
        *["step"] * 4,
        "done",
    ]
    assert names.count("partial_image") == 2
    steps = [data["step"] for name, data in watched.result() if name == "step"]
    assert steps == [1, 2, 3, 4]
    assert asked.result().status_code == held.result().status_code == 200
    # A late watcher gets the story too, without the previews.
    late = [name for name, _ in read_events(fake, "story-one")]
    assert late[0] == "queued"
    assert late[-1] == "done"
    assert "pause" not in requests.get(f"{fake.url}/jobs/story-one", timeout=10).text


def test_the_page_about_jobs_tells_their_fields_and_events(fake, pool):
    page = (ROOT / "docs" / "jobs.md").read_text()
    told = json.loads(page.split("```json\n")[1].split("```")[0])
    asked = pool.submit(
        *(post, fake, "a cat pause=0.1"), job_id="as-told-there", num_inference_steps=30
    )
    wait_for(lambda: "step" in job(fake, "as-told-there"), 10)
    assert list(job(fake, "as-told-there")) == list(told)
    requests.delete(f"{fake.url}/jobs/as-told-there", timeout=10)
    assert asked.result().status_code == 499
    rows = page.split("| event |")[1].split("\n\n")[0]
    names = re.findall(
        r"`(\w+)`", "".join(row.split("|")[1] for row in rows.split("\n")[2:])
    )
    assert names == [
        *("queued", "started", "step", "partial_image", "done", "failed", "cancelled")
    ]
    assert {name for name, _ in read_events(fake, "as-told-there")} < set(names)


def test_delete_stops_the_run_within_a_step(fake, pool):
    asked = pool.submit(
        post, fake, "pause=0.1", job_id="to-delete", num_inference_steps=100
    )
    await_state(fake, "to-delete", "running")
    gone = requests.delete(f"{fake.url}/jobs/to-delete", timeout=10)
    steps = stats(fake)["steps"]
    assert gone.json()["state"] == "cancelled"
    assert asked.result().status_code == 499
    # It was stopped by hand: no client is to begin it again by itself.
    assert asked.result().headers["X-Should-Retry"] == "false"
    wait_for(lambda: stats(fake)["running"] == 0, 5)
    assert stats(fake)["steps"] <= steps + 1
    assert stats(fake)["finished"] == 0
    name, data = read_events(fake, "to-delete")[-1]
    assert (name, data["error"]["code"]) == ("cancelled", "cancelled")


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/process", b""),
        ("/process/raw", b""),
        ("/v1/images/generations", b""),
        ("/v1/images/generations", b"&stream=true"),
    ],
    ids=["original", "raw", "openai", "openai streaming"],
)
def test_client_that_leaves_stops_its_run_within_a_step(fake, path, more):
    body = b"prompt=pause%3D0.1&num_inference_steps=100" + more
    post_and_leave(fake.url, path, body, lambda: stats(fake)["steps"] > 1)
    steps = stats(fake)["steps"]
    wait_for(lambda: stats(fake)["running"] == 0, 5)
    assert stats(fake)["steps"] <= steps + 1
    assert stats(fake)["finished"] == 0


def test_client_that_leaves_behind_bytes_nobody_reads_is_noticed(fake):
    body = b"prompt=pause%3D0.1&num_inference_steps=100"
    more = b"\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    post_and_leave(
        fake.url, "/process", body, lambda: stats(fake)["steps"] > 1, more=more
    )
    steps = stats(fake)["steps"]
    wait_for(lambda: stats(fake)["running"] == 0, 5)
    assert stats(fake)["steps"] <= steps + 1


@pytest.fixture
def tls_pair():
    """The two ends of a connection with TLS, the server's first."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(ROOT / "tests" / "support" / "tls" / "server.pem")
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        concurrent.futures.ThreadPoolExecutor(1) as threads,
    ):
        ours = socket.create_connection(listener.getsockname())
        wrapped = threads.submit(client.wrap_socket, ours)
        theirs = server.wrap_socket(listener.accept()[0], server_side=True)
        with theirs, wrapped.result() as ours:
            yield theirs, ours


def test_clients_are_seen_through_tls(tls_pair):
    theirs, ours = tls_pair
    assert is_here(theirs)
    ours.sendall(b"more")
    wait_for(lambda: is_here(theirs), 5)
    ours.close()
    wait_for(lambda: not is_here(theirs), 5)
    theirs.close()
    assert not is_here(theirs)
    assert is_here(None)


def test_queued_job_of_a_client_that_left_never_runs(fake, pool):
    held = pool.submit(post, fake, "hold", job_id="keeps-it-busy")
    await_state(fake, "keeps-it-busy", "running")
    with pytest.raises(requests.Timeout):
        post(fake, "left", timeout=0.5, job_id="left-early")
    await_state(fake, "left-early", "cancelled")
    release(fake)
    assert held.result().status_code == 200
    wait_for(lambda: stats(fake)["running"] == 0, 5)
    assert stats(fake)["begun"] == 1


def test_job_id_is_checked_and_unique(fake, pool):
    assert post(fake, "x", job_id="short").status_code == 400
    for wrong in ({}, [], 0, False, ["long-enough"]):
        answer = requests.post(
            f"{fake.url}/v1/images/generations",
            json={"prompt": "x", "job_id": wrong},
            timeout=10,
        )
        assert answer.status_code == 400, wrong
        assert answer.json()["error"]["param"] == "job_id"
    held = pool.submit(post, fake, "hold", job_id="taken-twice")
    await_state(fake, "taken-twice", "running")
    assert post(fake, "x", job_id="taken-twice").status_code == 409
    release(fake)
    assert held.result().headers["X-Job-Id"] == "taken-twice"
    unknown = requests.get(f"{fake.url}/jobs/never-heard-of", timeout=10)
    assert unknown.status_code == 404
    assert list(unknown.json()) == ["error"]


def test_jobs_of_both_apis_are_under_both_addresses(fake):
    body = {"prompt": "pause=0.2", "partial_images": 2, "steps": 4, "size": "64x64"}
    headers = {"X-Job-Id": "plain-but-watched"}
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        watched = threads.submit(read_events, fake, "plain-but-watched")
        answer = requests.post(
            f"{fake.url}/v1/images/generations", json=body, headers=headers, timeout=10
        )
    assert answer.status_code == 200
    assert [name for name, _ in watched.result()].count("partial_image") == 2
    for prefix in ("", "/v1"):
        url = f"{fake.url}{prefix}/jobs"
        assert requests.get(f"{url}/plain-but-watched", timeout=10).ok
        assert requests.delete(f"{url}/plain-but-watched", timeout=10).ok
        unknown = requests.get(f"{url}/never-heard-of", timeout=10)
        assert unknown.status_code == 404
        error = unknown.json()["error"]
        assert isinstance(error, dict if prefix else str)


def test_watchers_are_bounded(fake, pool):
    held = pool.submit(post, fake, "hold", job_id="well-watched")
    await_state(fake, "well-watched", "running")
    url = f"{fake.url}/jobs/well-watched/events"
    watching = [requests.get(url, stream=True, timeout=10) for _ in range(2)]
    refused = requests.get(url, timeout=10)
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    release(fake)
    assert held.result().status_code == 200
    for answer in watching:
        answer.close()
    wait_for(lambda: requests.get(url, timeout=10).status_code == 200, 10)


def test_watchers_that_leave_make_room_while_the_job_goes_on(fake, pool):
    held = pool.submit(post, fake, "hold", job_id="held-so-long")
    await_state(fake, "held-so-long", "running")
    url = f"{fake.url}/jobs/held-so-long/events"
    for _ in range(3):
        assert requests.head(url, timeout=10).status_code == 200
    for answer in [requests.get(url, stream=True, timeout=10) for _ in range(2)]:
        assert answer.status_code == 200
        answer.close()

    def there_is_room():
        with requests.get(url, stream=True, timeout=10) as answer:
            return answer.status_code == 200

    wait_for(there_is_room, 8)
    assert job(fake, "held-so-long")["state"] == "running"
    release(fake)
    assert held.result().status_code == 200


def test_a_watcher_of_nothing_gives_its_place_back(fake, pool):
    assert post(fake, "x", job_id="is-done-already").status_code == 200
    url = f"{fake.url}/jobs/never-there-at-all/events"
    gone = [pool.submit(requests.get, url, timeout=10) for _ in range(2)]
    assert {answer.result().status_code for answer in gone} == {404}
    assert read_events(fake, "is-done-already")[-1][0] == "done"


def test_a_watcher_may_come_before_the_post(fake, pool):
    watched = pool.submit(read_events, fake, "not-yet-there")
    wait_for(lambda: "/jobs/not-yet-there/events" in str(stats(fake)["arrived"]), 10)
    assert post(fake, "x", job_id="not-yet-there").status_code == 200
    assert watched.result()[-1][0] == "done"
    never = requests.get(f"{fake.url}/jobs/never-there/events", timeout=10)
    assert never.status_code == 404


def test_failures_tell_of_their_job_too(fake, pool):
    failed = post(fake, "fail=memory pause=0.1 at=1", job_id="it-failed", seed=7)
    assert failed.status_code == 507
    assert failed.headers["X-Job-Id"] == "it-failed"
    assert failed.headers["X-Flux-Seed"] == "7"
    assert float(failed.headers["X-Flux-Run-Seconds"]) >= 0.1
    assert float(failed.headers["X-Flux-Queue-Seconds"]) >= 0
    name, data = read_events(fake, "it-failed")[-1]
    assert (name, data["error"]["code"]) == ("failed", "insufficient_storage")


def test_a_full_queue_refuses_before_it_decodes(fake, pool):
    held = [pool.submit(post, fake, "hold") for _ in range(9)]
    wait_for(lambda: (stats(fake)["running"], stats(fake)["queued"]) == (1, 8), 10)
    broken = requests.post(
        f"{fake.url}/process", files={"input_file": b"no picture"}, timeout=10
    )
    assert broken.status_code == 429
    release(fake)
    assert {answer.result().status_code for answer in held} == {200}


def test_hundred_failures_release_everything(fake, pool):
    def one(_):
        return post(fake, "fail=unexpected", num_inference_steps=1)

    for _ in range(13):
        for answer in pool.map(one, range(8)):
            assert answer.status_code == 500
            assert "secret" not in answer.text
            assert answer.headers["X-Should-Retry"] == "false"
    assert post(fake, "fine").status_code == 200
    assert stats(fake)["running"] == 0


@pytest.mark.parametrize(
    ("word", "status"), [("memory", 507), ("busy", 503), ("pipeline", 500)]
)
def test_faults_have_their_status_and_the_next_request_works(fake, word, status):
    answer = post(fake, f"fail={word}")
    assert answer.status_code == status
    retried = answer.headers.get("X-Should-Retry")
    assert retried == (None if word == "busy" else "false")
    assert ("Retry-After" in answer.headers) == (word == "busy")
    assert post(fake, "fine").status_code == 200


def test_hang_is_noticed_told_and_survived(pool):
    with run_api(app="tests.support.fake_app:app", FLUX_STEP_TIMEOUT=1) as fake:
        fake.wait_ready()
        began = time.monotonic()
        asked = [pool.submit(post, fake, "hang")]
        wait_for(lambda: stats(fake)["running"] == 1, 10)
        asked.append(pool.submit(post, fake, "waits"))
        assert [a.result().status_code for a in asked] == [504, 504]
        ready = requests.get(f"{fake.url}/readyz", timeout=10)
        assert ready.status_code == 503
        assert "hang" in ready.json()["reason"] or "restart" in ready.json()["reason"]
        wait_for(lambda: "Current thread" in fake.output, 20, fake)
        fake.wait_ready(30)
        assert time.monotonic() - began < 30
        assert post(fake, "fine").status_code == 200


def test_lost_device_restarts_the_worker():
    with run_api(app="tests.support.fake_app:app", FLUX_STEP_TIMEOUT=1) as fake:
        fake.wait_ready()
        assert post(fake, "fail=broken").status_code == 503
        wait_for(lambda: fake.output.count("Booting worker") == 2, 20, fake)
        fake.wait_ready(30)
        assert post(fake, "fine").status_code == 200


def test_term_finishes_running_work_and_refuses_new(pool):
    with run_api(app="tests.support.fake_app:app") as fake:
        fake.wait_ready()
        running = pool.submit(post, fake, "pause=0.1", num_inference_steps=20)
        wait_for(lambda: stats(fake)["steps"] > 1, 10)
        queued = pool.submit(post, fake, "queued", num_inference_steps=1)
        wait_for(lambda: stats(fake)["queued"] == 1, 10)
        fake.process.send_signal(signal.SIGTERM)
        readyz = f"{fake.url}/readyz"
        wait_for(lambda: requests.get(readyz, timeout=5).status_code == 503, 10)
        refused = post(fake, "late")
        assert refused.status_code == 503
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        assert requests.get(f"{fake.url}/healthz", timeout=5).status_code == 200
        ready = requests.get(f"{fake.url}/readyz", timeout=5)
        assert ready.status_code == 503
        assert ready.headers["Retry-After"] == "5"
        assert running.result().status_code == queued.result().status_code == 200
        assert fake.process.wait(20) == 0


def test_term_that_comes_in_a_hail_is_one(pool):
    with run_api(app="tests.support.fake_app:app") as fake:
        fake.wait_ready()
        running = pool.submit(post, fake, "pause=0.1", num_inference_steps=20)
        wait_for(lambda: stats(fake)["steps"] > 1, 10)
        master = fake.process.pid
        children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        for _ in range(1000):
            os.kill(int(children[0]), signal.SIGTERM)
        assert requests.get(f"{fake.url}/healthz", timeout=5).ok
        assert running.result().status_code == 200


def test_hup_lets_old_work_finish_beside_the_new_worker(pool, tmp_path):
    held = tmp_path / "held"
    held.touch()
    with run_api(app="tests.support.fake_app:app", FAKE_HELD=held) as fake:
        fake.wait_ready()
        running = pool.submit(post, fake, "held", timeout=300)
        wait_for(lambda: stats(fake)["running"] == 1, 10)
        fake.process.send_signal(signal.SIGHUP)

        def is_drawn_at_once():
            # For a moment both accept connections; the old one's wait behind "held".
            try:
                return post(fake, "new", timeout=3).status_code == 200
            except requests.ReadTimeout:
                return False

        wait_for(lambda: all(is_drawn_at_once() for _ in range(5)), 120, fake)
        assert not running.done()
        held.unlink()
        assert running.result().status_code == 200
        assert post(fake, "new").status_code == 200


def test_too_few_threads_stop_the_start():
    with (
        pytest.raises(AssertionError, match="need at least"),
        run_api("--threads", "4", app="tests.support.fake_app:app"),
    ):
        pass


def test_term_stops_an_idle_server_at_once():
    """Here one with the longest queue. It has room for more connections: with more
    threads than those nobody would be accepted to be told 429."""
    with run_api(app="tests.support.fake_app:app", FLUX_MAX_QUEUE=1000) as fake:
        fake.wait_ready()
        assert "No keepalived connections" not in fake.output
        began = time.monotonic()
        assert fake.stop() == 0
        assert time.monotonic() - began < 5


def test_several_workers_stop_the_start():
    with (
        pytest.raises(AssertionError, match="(?s)server ended.*one gunicorn for each"),
        run_api("--workers", "2", app="tests.support.fake_app:app"),
    ):
        pass


def test_callers_can_be_bounded(pool):
    with run_api(app="tests.support.fake_app:app", FLUX_MAX_PER_CALLER=2) as fake:
        fake.wait_ready()
        held = [pool.submit(post, fake, "hold") for _ in range(2)]
        wait_for(lambda: (stats(fake)["running"], stats(fake)["queued"]) == (1, 1), 10)
        assert post(fake, "third").status_code == 429
        release(fake)
        assert [one.result().status_code for one in held] == [200, 200]
