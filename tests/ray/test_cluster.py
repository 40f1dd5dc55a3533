"""Pictures made by a real Ray cluster of this machine, and what it outlives."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import shutil
import signal
import threading

import pytest
import requests

from tests.support.pictures import make_png
from tests.support.raw_http import send
from tests.support.servers import ROOT, run_api, wait_for
from tests.support.wire import data_url

pytest.importorskip("ray", reason="Ray is not installed: 'make test-ray' does it")

ADA, BEN = "key-of-ada-123", "key-of-ben-123"
SHORT = {"prompt": "a red heart", "seed": 7, "num_inference_steps": 4}
MIDDLE = {"prompt": "a blue star", "seed": 8, "num_inference_steps": 60}
REPLICA, CONTROLLER = "ray::ServeReplica", "ray::ServeController"


def draw(server, values, key=ADA, **headers):
    """The answer to a request for one picture, which is its bytes."""
    return requests.post(
        f"{server.url}/process/raw",
        json=values,
        headers={"Authorization": f"Bearer {key}"} | headers,
        timeout=200,
    )


def picture(answer):
    """The bytes of the picture in ``answer``."""
    assert answer.status_code == 200, answer.text
    return answer.content


def job(server, job_id):
    """What the server says of a job; nothing of one that has not come."""
    headers = {"Authorization": f"Bearer {ADA}"}
    url = f"{server.url}/jobs/{job_id}"
    return requests.get(url, headers=headers, timeout=10).json()


def has_stepped(server, job_id):
    """Whether a picture of the job is on its way."""
    return job(server, job_id).get("step", 0) > 1


def begin_endless(server, job_id):
    """The connection of a request that would take very long, once it takes steps."""
    values = {"prompt": "a disc", "num_inference_steps": 200, "scale": 4}
    body = json.dumps(values | {"image": data_url(make_png((512, 512)))})
    head = (
        "POST /process/raw HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {ADA}\r\nX-Job-Id: {job_id}\r\n"
        "Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    connection = send(server, (head + body).encode())
    wait_for(lambda: has_stepped(server, job_id), 60, server)
    return connection


@contextlib.contextmanager
def at_once(*calls):
    """The futures of ``calls``."""
    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        yield [pool.submit(call) for call in calls]


def kill(pids):
    """End them as a power cut does."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def undisturbed():
    """The same request's picture by a server without a cluster."""
    with run_api() as server:
        server.wait_ready()
        made = {}

        def make(values):
            key = json.dumps(values)
            if key not in made:
                made[key] = picture(draw(server, values))
            return made[key]

        yield make


@pytest.mark.parametrize(
    "values",
    [
        SHORT,
        {"prompt": "", "image": data_url(make_png()), "seed": 1},
        {"prompt": "make it blue", "image": data_url(make_png()), "seed": 2},
        {"prompt": "a disc", "image": data_url(make_png()), "scale": 2, "seed": 3},
    ],
    ids=["generate", "variation", "edit", "upscale"],
)
def test_pictures_are_those_of_one_machine_byte_for_byte(over_ray, undisturbed, values):
    values = values | {"num_inference_steps": 2}
    assert picture(draw(over_ray, values)) == undisturbed(values)


def test_a_stream_shows_each_step_and_the_previews(over_ray):
    values = {"prompt": "a duck", "stream": True, "partial_images": 2, "steps": 4}
    answer = requests.post(
        f"{over_ray.url}/v1/images/generations",
        json=values,
        headers={"Authorization": f"Bearer {ADA}"},
        timeout=60,
    )
    kinds = [
        line.split(": ")[1] for line in answer.text.splitlines() if "event: " in line
    ]
    assert kinds.count("image_generation.partial_image") == 2
    assert kinds[-1] == "image_generation.completed"


def test_a_picture_whose_replica_dies_is_made_again(cluster, over_ray, undisturbed):
    ids = ["replica-dies-1", "replica-dies-2"]
    calls = [
        lambda name=name: draw(over_ray, MIDDLE, **{"X-Job-Id": name}) for name in ids
    ]
    with at_once(*calls) as answers:
        wait_for(lambda: all(has_stepped(over_ray, name) for name in ids), 60, over_ray)
        kill(cluster.processes(REPLICA)[:1])
    answers = [answer.result() for answer in answers]
    assert [picture(answer) for answer in answers] == [undisturbed(MIDDLE)] * 2
    tries = [answer.headers.get("X-Flux-Attempts") for answer in answers]
    assert sorted(tries, key=str) == ["2", None]


def test_all_replicas_may_die(cluster, over_ray, undisturbed):
    with at_once(lambda: draw(over_ray, MIDDLE, **{"X-Job-Id": "all-die-1"})) as [
        answer
    ]:
        wait_for(lambda: has_stepped(over_ray, "all-die-1"), 60, over_ray)
        kill(cluster.processes(REPLICA))
    assert picture(answer.result()) == undisturbed(MIDDLE)
    assert answer.result().headers["X-Flux-Attempts"] == "2"
    wait_for(lambda: cluster.running == 2, 120)


def test_the_controller_may_die(cluster, over_ray, undisturbed):
    with at_once(lambda: draw(over_ray, MIDDLE, **{"X-Job-Id": "no-ruler"})) as [
        answer
    ]:
        wait_for(lambda: has_stepped(over_ray, "no-ruler"), 60, over_ray)
        kill(cluster.processes(CONTROLLER))
    assert picture(answer.result()) == undisturbed(MIDDLE)
    assert picture(draw(over_ray, SHORT)) == undisturbed(SHORT)


def test_a_burst_meets_one_queue_and_is_told_when_to_come_back(over_ray):
    with at_once(*[lambda: draw(over_ray, MIDDLE)] * 12) as answers:
        answers = [answer.result() for answer in answers]
    codes = [answer.status_code for answer in answers]
    # As many as there are places, however late the first are begun.
    assert codes.count(200) >= 4
    refused = [answer for answer in answers if answer.status_code != 200]
    assert refused and {answer.status_code for answer in refused} == {429}
    assert all(1 <= int(answer.headers["Retry-After"]) <= 60 for answer in refused)


def test_callers_take_turns_for_the_whole_cluster(over_ray):
    ended, ids = [], [f"her-turn-{number}" for number in range(5)]

    def ask(key, name):
        picture(draw(over_ray, MIDDLE, key, **{"X-Job-Id": name}))
        ended.append(name)

    def ben():
        wait_for(lambda: all(job(over_ray, name).get("state") for name in ids), 60)
        ask(BEN, "his-turn")

    with at_once(*[lambda name=name: ask(ADA, name) for name in ids], ben) as asked:
        [answer.result() for answer in asked]
    # He came last; she has had her turns.
    assert ended.index("his-turn") < len(ids)


def test_what_nobody_waits_for_any_more_stops(over_ray):
    ids = ["has-left-1", "has-left-2"]
    for connection in [begin_endless(over_ray, name) for name in ids]:
        connection.close()
    # Both replicas would be at it for long.
    with at_once(*[lambda: draw(over_ray, SHORT)] * 2) as answers:
        assert [answer.result().status_code for answer in answers] == [200, 200]


def test_a_replica_notices_that_a_server_is_gone(over_ray, ray_settings, undisturbed):
    with run_api(**ray_settings) as other:
        other.wait_ready(120)
        # They stay open until it is dead, so it is not that a client left.
        kept = [begin_endless(other, name) for name in ("is-gone-1", "is-gone-2")]
        os.killpg(other.process.pid, signal.SIGKILL)
    with at_once(*[lambda: draw(over_ray, SHORT)] * 2) as answers:
        made = [picture(answer.result()) for answer in answers]
    assert made == [undisturbed(SHORT)] * 2
    for connection in kept:
        connection.close()


def test_an_update_fails_no_request(cluster, over_ray):
    codes, alive, done = [], [], threading.Event()

    def ask():
        while not done.is_set():
            codes.append(draw(over_ray, SHORT).status_code)
            alive.append(len(cluster.processes(REPLICA)))

    before = cluster.processes(REPLICA)
    with at_once(ask, ask) as asked:
        cluster.deployed("update", "--replicas", "2", "--gpus", "0")
        done.set()
        [one.result() for one in asked]
    assert set(codes) == {200}
    # On the CPU an old one stays until a new one can draw.
    assert min(alive) >= 2
    assert not set(before) & set(cluster.processes(REPLICA))


def test_replicas_that_do_not_answer_are_waited_for(cluster, ray_settings):
    silent = cluster.processes(REPLICA)
    try:
        for pid in silent:
            os.kill(pid, signal.SIGSTOP)
        with run_api(app="tests.ray.impatient_app:app", **ray_settings) as server:
            ready = lambda: requests.get(f"{server.url}/readyz", timeout=10)  # noqa: E731
            said = "the replicas do not answer (TimeoutError)"
            wait_for(lambda: said in ready().text, 60, server)
            for pid in silent:
                os.kill(pid, signal.SIGCONT)
            server.wait_ready(60)
            assert draw(server, SHORT).status_code == 200
    finally:
        for pid in silent:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("token", ["", "0" * 64], ids=["none", "wrong"])
def test_without_the_token_nobody_gets_in(cluster, tmp_path, token):
    own = tmp_path / "token"
    own.write_text(token)
    done = cluster.deploy("stop", RAY_AUTH_TOKEN_PATH=own)
    assert done.returncode == 3, done.stderr
    assert "no Ray cluster" in done.stderr
    assert cluster.running == 2


def test_replicas_that_cannot_start_say_why(cluster, ray_settings, tmp_path):
    cluster.deployed("stop")
    done = cluster.deploy("status")
    assert (done.returncode, done.stdout) == (1, "NOT_STARTED: 0 running, 0 coming\n")
    # Ray counts cards by ten-thousandths.
    odd = cluster.deploy("start", "--gpus", "0.00001")
    assert odd.returncode == 1 and "Traceback" not in odd.stderr
    assert odd.stderr.startswith("flux-api: the replicas fail: The precision of")
    lacking = tmp_path / "lacking"
    without_weights = shutil.ignore_patterns("*.safetensors")
    shutil.copytree(ROOT / "models" / "tiny", lacking, ignore=without_weights)
    text = f'[absent]\nlike = "tiny"\nbase_model = "{lacking}"\n'
    (tmp_path / "sets.toml").write_text(text)
    wrong = {"MODEL_INFO": tmp_path / "sets.toml", "FLUX_MODEL": "absent"}
    with run_api(**ray_settings) as server:
        ready = lambda: requests.get(f"{server.url}/readyz", timeout=10)  # noqa: E731
        wait_for(lambda: "deploy ray start" in ready().text, 60, server)
        failed = cluster.deploy("start", "--gpus", "0", **wrong)
        assert failed.returncode == 1
        reason = "loading failed: lacking: there is no .safetensors file of the "
        assert reason in failed.stderr
        wait_for(lambda: reason in ready().text, 60, server)
        assert ready().status_code == 503
        assert str(tmp_path) not in ready().text + failed.stderr
        assert requests.get(f"{server.url}/healthz", timeout=10).status_code == 200
        # Nobody has to start it again.
        cluster.deployed("update", "--gpus", "0")
        server.wait_ready(60)
        assert draw(server, SHORT).status_code == 200


def test_a_cluster_without_replicas_is_told_of_and_grows_with_what_is_asked_of_it(
    cluster, ray_settings
):
    settings = {"FLUX_API_KEYS": f"ada:{ADA}", **ray_settings}
    with run_api(app="tests.ray.impatient_app:app", **settings) as server:
        server.wait_ready(120)
        cluster.deployed("stop")
        ready = lambda: requests.get(f"{server.url}/readyz", timeout=10)  # noqa: E731
        wait_for(lambda: ready().status_code == 503, 60, server)
        assert "deploy ray start" in ready().json()["reason"]
        refused = draw(server, SHORT)
        assert refused.status_code == 503
        assert refused.headers["Retry-After"] == "5"
        # Starting takes long: what grows is this one.
        cluster.deployed("start", "--replicas", "1-2", "--gpus", "0")
        server.wait_ready(60)
        assert draw(server, SHORT).status_code == 200
        with contextlib.closing(begin_endless(server, "grows-01")):
            with at_once(lambda: draw(server, SHORT)) as [answer]:
                wait_for(lambda: cluster.running == 2, 120)
            assert answer.result().status_code == 200


def test_pictures_go_where_their_model_is_in_memory(cluster, ray_settings, tmp_path):
    (tmp_path / "sets.toml").write_text('[twin]\nlike = "tiny"\n')
    two = {"MODEL_INFO": tmp_path / "sets.toml"}
    cluster.deployed("update", "--replicas", "2", "--gpus", "0", **two)
    with run_api(FLUX_API_KEYS=f"ada:{ADA}", **ray_settings, **two) as server:
        server.wait_ready(120)
        for _ in range(8):
            for model in ("tiny", "twin"):
                picture(draw(server, SHORT | {"model": model}))
    # Each keeps one set in memory. By chance it would be changed eight times or so.
    assert 1 <= cluster.logs.count('"unloading ') <= 4, cluster.logs
