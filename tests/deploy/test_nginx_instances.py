"""One nginx in front of three instances: who runs what, and where it is found again."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import requests

from flux_api.commands.nginx import Site, site_text
from tests.support.nginx import printed, run_nginx_with
from tests.support.servers import run_api, run_files, wait_for
from tests.support.trap_server import answer, trap
from tests.support.wire import stats

FAKE = "tests.support.fake_app:app"
FORM = {"prompt": "x", "width": 64, "height": 64}
NAMES = ["g0-", "g1-", "g2-"]
COUNT = len(NAMES)
OWN = {"FLUX_MAX_QUEUE": 1, "FLUX_MODELS": "tiny,klein-4b"}


@contextlib.contextmanager
def run_instances(folder, *settings, options=()):
    """(nginx, instances) for as many as there are ``settings``."""
    with contextlib.ExitStack() as stack:
        files = stack.enter_context(run_files(folder / "images"))
        text = printed("--instances", str(len(settings)), *options)
        instances = []
        for number, own in enumerate(settings):
            given = {"FLUX_INSTANCE": number, "FLUX_TRUSTED_PROXIES": 1} | own
            api = stack.enter_context(run_api(app=FAKE, **given))
            instances.append(api)
            address = api.url.removeprefix("http://")
            text = text.replace(f"127.0.0.1:{8000 + number}", address)
        yield stack.enter_context(run_nginx_with(folder, text, files)), instances


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """(nginx, three instances that hold one request and let one wait)."""
    folder = tmp_path_factory.mktemp("instances")
    with run_instances(folder, *[OWN] * COUNT) as found:
        for api in found[1]:
            api.wait_ready()
        yield found


@pytest.fixture
def clean(stack):
    """The same, with nothing done yet."""
    forget(stack[1])
    return stack


@pytest.fixture
def pool():
    with ThreadPoolExecutor(20) as threads:
        yield threads


def busy(api):
    """How many run and wait there."""
    told = stats(api)
    return told["running"], told["queued"]


def post(server, prompt="x", path="/process", **fields):
    headers = fields.pop("headers", {})
    form = FORM | {"prompt": prompt} | fields
    return requests.post(server.url + path, data=form, headers=headers, timeout=60)


def forget(instances):
    for api in instances:
        requests.post(f"{api.url}/fake/reset", timeout=10)
        wait_for(lambda api=api: busy(api) == (0, 0), 10)


def fill(pool, instances):
    """Requests past nginx, so that nobody has room for another."""
    held = []
    for waiting in (0, 1):
        held += [pool.submit(post, api, "hold") for api in instances]
        wanted = (1, waiting)
        wait_for(lambda wanted=wanted: all(busy(i) == wanted for i in instances), 20)
    return held


def release(instances):
    for api in instances:
        requests.post(f"{api.url}/fake/release", timeout=10)


def test_requests_at_the_same_time_run_on_different_instances(clean, pool):
    nginx, instances = clean
    for _ in range(3):
        held = [pool.submit(post, nginx, "hold") for _ in range(COUNT)]
        wait_for(lambda: all(busy(api) == (1, 0) for api in instances), 20)
        release(instances)
        answers = [one.result() for one in held]
        assert sorted(answer.headers["X-Job-Id"][:3] for answer in answers) == NAMES
        assert [stats(api)["begun"] for api in instances] == [1] * COUNT
        forget(instances)


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_what_a_server_named_is_found_by_its_id(clean, prefix):
    nginx, instances = clean
    ids = []
    for number in range(12):
        taken = post(nginx, f"no {number}", headers={"Prefer": "respond-async"})
        assert taken.status_code == 202
        ids.append(taken.json()["id"])
    assert sorted({name[:3] for name in ids}) == NAMES
    for name in ids:
        job = f"{nginx.url}{prefix}/jobs/{name}"
        events = requests.get(f"{job}/events", timeout=30)
        assert events.ok and "event: done" in events.text
        assert requests.get(job, timeout=10).json()["id"] == name
        assert requests.get(f"{job}/result", timeout=10).content[:4] == b"\x89PNG"
        assert requests.delete(job, timeout=10).json()["state"] == "done"
    # None was looked for in the wrong place.
    for number, api in enumerate(instances):
        asked = [path for path, _ in stats(api)["arrived"] if "/jobs/g" in path]
        assert asked and all(f"/jobs/g{number}-" in path for path in asked)


def test_tasks_of_the_hosted_api_are_found_by_their_id(clean):
    nginx, _ = clean
    body = {"prompt": "x", "width": 64, "height": 64}
    made_by = set()
    for _ in range(2 * COUNT):
        url = f"{nginx.url}/v1/flux-dev"
        task = requests.post(url, json=body, timeout=60).json()
        made_by.add(task["id"][:3])
        polled = f"{nginx.url}/v1/get_result?id={task['id']}"

        def told(polled=polled):
            return requests.get(polled, timeout=60).json()

        wait_for(lambda told=told: told()["status"] == "Ready", 30)
        sample = f"{nginx.url}/v1/samples/{task['id']}"
        assert requests.get(sample, timeout=60).ok
    assert made_by <= set(NAMES)


def sd(server, path, body=None):
    """The answer of AUTOMATIC1111's API, which knows no ids."""
    how = "GET" if body is None else "POST"
    url = f"{server.url}/sdapi/v1/{path}"
    answer = requests.request(how, url, json=body, timeout=60)
    assert answer.ok, answer.text
    return answer.json()


def test_an_app_without_ids_sees_and_stops_its_request_wherever_it_is(clean, pool):
    nginx, instances = clean
    assert sd(nginx, "progress")["state"]["job_count"] == 0
    # Each in turn is where it is.
    for number, api in enumerate(instances):
        body = {"prompt": "hold", "width": 64, "height": 64}
        held = pool.submit(sd, api, "txt2img", body)
        wait_for(lambda api=api: busy(api) == (1, 0), 10)
        told = [sd(one, "progress")["state"]["job_count"] for one in instances]
        assert told == [int(one is api) for one in instances], number
        assert sd(nginx, "progress")["state"]["job_count"] == 1
        assert sd(nginx, "interrupt", {}) == {}
        wait_for(lambda api=api: busy(api) == (0, 0), 10)
        held.exception(10)


def test_what_an_app_chooses_counts_on_each(clean):
    nginx, instances = clean
    for name in ("klein-4b", "tiny"):
        assert sd(nginx, "options", {"sd_model_checkpoint": name}) == {}
        for one in (nginx, *instances):
            assert sd(one, "options")["sd_model_checkpoint"] == name


def test_a_chosen_id_is_found_wherever_it_was_sent(clean):
    nginx, _ = clean
    for number in range(6):
        own = {"job_id": f"in-the-body-{number}"}
        assert post(nginx, "x", **own).ok
        job = f"{nginx.url}/jobs/in-the-body-{number}"
        assert requests.get(job, timeout=10).json()["state"] == "done"
        assert requests.get(f"{job}/result", timeout=10).ok
        chosen = {"X-Job-Id": f"in-the-header-{number}"}
        assert post(nginx, "x", headers=chosen).ok
        job = f"{nginx.url}/v1/jobs/in-the-header-{number}"
        assert requests.delete(job, timeout=10).json()["state"] == "done"


def test_a_name_in_the_header_is_of_one_job_at_a_time(clean, pool):
    nginx, instances = clean
    for number in range(4):
        chosen = {"X-Job-Id": f"only-one-{number}"}
        held = pool.submit(post, nginx, "hold", headers=chosen)
        wait_for(lambda: sum(busy(api)[0] for api in instances) == 1, 20)
        assert post(nginx, "x", headers=chosen).status_code == 409
        release(instances)
        assert held.result().ok
        forget(instances)


def test_the_same_key_is_answered_by_who_had_it_first(clean):
    nginx, instances = clean
    for number in range(6):
        key = {"Idempotency-Key": f"key {number}".replace(" ", "-")}
        first, again = (post(nginx, f"no {number}", headers=key) for _ in range(2))
        assert again.headers["Idempotent-Replayed"] == "true"
        assert again.json()["seed"] == first.json()["seed"]
    assert sum(stats(api)["begun"] for api in instances) == 6


@pytest.mark.parametrize("name", ["g9-00000000", "nobody-has-this", "g0-00000000"])
def test_an_id_that_nobody_knows_is_the_api_s_404(stack, name):
    answer = requests.get(f"{stack[0].url}/v1/jobs/{name}", timeout=30)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "job_not_found"


def test_names_like_the_servers_own_are_refused(stack):
    nginx, _ = stack
    for sent in ({"headers": {"X-Job-Id": "g0-mine-00"}}, {"job_id": "g7-mine-00"}):
        answer = post(nginx, "x", path="/v1/images/generations", **sent)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "job_id"
    assert post(nginx, "x", job_id="gx-is-fine").ok


def test_a_full_instance_passes_on_and_the_last_one_says_no(clean, pool):
    nginx, instances = clean
    # Filled past nginx, all but the last instance.
    held = fill(pool, instances[:-1])
    for _ in range(6):
        answer = post(nginx, "x", headers={"X-Job-Id": f"passed-on-{_}"})
        assert answer.ok and requests.get(f"{nginx.url}/jobs/passed-on-{_}").ok
    assert stats(instances[-1])["begun"] == 6
    held += fill(pool, instances[-1:])
    before = [len(stats(api)["arrived"]) for api in instances]
    # What a client says in nginx's own header does not count.
    forged = {"X-Flux-Next": "@next9", "X-Accel-Redirect": "@away"}
    answer = post(nginx, "x", path="/v1/images/generations", headers=forged)
    assert answer.status_code == 429
    message = answer.json()["error"]["message"]
    assert message.startswith("Every place in the queue is taken: ")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert "X-Accel-Redirect" not in answer.headers
    # Each was asked, and once.
    after = [len(stats(api)["arrived"]) for api in instances]
    assert [now - then for now, then in zip(after, before, strict=True)] == [1] * COUNT
    release(instances)
    assert all(one.result().ok for one in held)


def test_whom_to_ask_next_is_never_nobody():
    """Where those that come first are away, there is another still."""
    addresses = tuple(f"127.0.0.1:{port}" for port in range(8000, 8004))
    text = site_text(Site("127.0.0.1:8080", addresses, "127.0.0.1:8010"))
    for number in range(4):
        [group] = re.findall(rf"upstream flux_after_{number} \{{(.*?)\}}", text, re.S)
        asked = re.findall(r"server (\S+?:\d+)(?: max|;| backup)", group)
        behind = [*range(number + 1, 4), *range(number + 1)]
        assert asked == [addresses[other] for other in behind]
        # At first any but itself, by who has the least to do.
        [group] = re.findall(rf"upstream flux_besides_{number} \{{(.*?)\}}", text, re.S)
        asked = re.findall(r"server (\S+?:\d+) ", group)
        assert asked == [a for a in addresses if a != addresses[number]]


def test_of_many_that_are_full_as_many_are_asked_as_nginx_goes_to(tmp_path):
    """One more, and its answer would be a page of its own."""

    def refuse(seen, conn):
        if seen.requests[-1].startswith("GET"):
            return answer()
        # The last of them ends without an answer.
        if following := seen.header("X-Flux-Next"):
            return answer(b"", "429 Too Many Requests", X_Accel_Redirect=following)

    with contextlib.ExitStack() as stack:
        full = [stack.enter_context(trap(refuse)) for _ in range(12)]
        addresses = tuple(f"127.0.0.1:{one.port}" for one in full)
        text = site_text(Site("127.0.0.1:8080", addresses, addresses[0]))
        files = SimpleNamespace(url="")
        nginx = stack.enter_context(run_nginx_with(tmp_path, text, files))
        refused = requests.post(f"{nginx.url}/process", timeout=10)
        asked = [head for one in full for head in one.requests if "POST" in head]
        tools = requests.post(f"{nginx.url}/mcp", timeout=10)
    assert refused.status_code == tools.status_code == 503
    assert refused.json()["error"] == "The server cannot be reached at the moment."
    assert len(asked) == 10
    # JSON-RPC's for what is not the caller's fault.
    assert tools.json()["error"]["code"] == -32603


def test_a_keyed_request_waits_for_its_own_instance(clean, pool):
    nginx, instances = clean
    held = fill(pool, instances[:-1])
    answers = [post(nginx, "x", headers={"Idempotency-Key": f"k-{n}"}) for n in "abcd"]
    assert 429 in {answer.status_code for answer in answers}
    release(instances)
    assert all(one.result().ok for one in held)


def test_while_one_loads_the_others_share_its_requests(tmp_path, pool):
    (tmp_path / "load").write_text("hold")
    settings = [{}, {"FAKE_LOAD": tmp_path / "load"}, {}]
    with run_instances(tmp_path, *settings) as (nginx, instances):
        ready = [instances[0].wait_ready(), instances[2].wait_ready()]
        # It has no requests, so each is sent to it first.
        held = []
        for number in range(1, 9):
            held.append(pool.submit(post, nginx, "hold"))
            wait_for(lambda n=number: sum(map(sum, map(busy, ready))) == n, 20)
        shares = [sum(busy(api)) for api in ready]
        assert max(shares) - min(shares) <= 2
        for api in ready:
            # Each that begins is released in turn.
            wait_for(lambda api=api: release([api]) or busy(api) == (0, 0), 20)
        assert all(one.result().ok for one in held)
        forget(ready)
        for _ in range(8):
            assert post(nginx).ok
            assert requests.get(f"{nginx.url}/readyz", timeout=5).ok
        assert stats(instances[1])["begun"] == 0
        (tmp_path / "load").write_text("go")
        instances[1].wait_ready()
        # nginx passes over it for a moment longer.
        wait_for(lambda: post(nginx).ok and stats(instances[1])["begun"] > 0, 20)


def test_who_asks_whether_it_is_ready_keeps_requests_from_those_that_load(
    tmp_path, pool
):
    (tmp_path / "load").write_text("hold")
    loads = {"FAKE_LOAD": tmp_path / "load"}
    with run_instances(tmp_path, {}, loads, loads, {}) as (nginx, instances):
        ready = [instances[0].wait_ready(), instances[3].wait_ready()]
        held = []
        for number in range(1, 9):
            for _ in instances:
                assert requests.get(f"{nginx.url}/readyz", timeout=5).ok
            held.append(pool.submit(post, nginx, "hold"))
            wait_for(lambda n=number: sum(map(sum, map(busy, ready))) == n, 20)
        assert [sum(busy(api)) for api in ready] == [4, 4]
        assert [len(stats(api)["arrived"]) for api in instances] == [4, 0, 0, 4]
        for api in ready:
            wait_for(lambda api=api: release([api]) or busy(api) == (0, 0), 20)
        assert all(one.result().ok for one in held)


def test_one_that_is_killed_costs_what_it_was_running(tmp_path, pool):
    with run_instances(tmp_path, {}, {}) as (nginx, (first, second)):
        for api in (first, second):
            api.wait_ready()
        held = [pool.submit(post, nginx, "hold") for _ in range(2)]
        wait_for(lambda: busy(first) == busy(second) == (1, 0), 20)
        os.killpg(first.process.pid, signal.SIGKILL)
        # What was sent to it is not sent again.
        wait_for(lambda: any(one.done() for one in held), 10)
        lost = next(one.result() for one in held if one.done())
        assert lost.status_code == 503
        assert lost.json()["error"] == "The server cannot be reached at the moment."
        assert stats(second)["begun"] == 1
        release([second])
        for _ in range(6):
            assert post(nginx).ok
            assert requests.get(f"{nginx.url}/healthz", timeout=5).ok
        assert sorted(one.result().status_code for one in held) == [200, 503]


def test_the_page_s_jobs_are_together_and_one_stream_tells_of_all(clean):
    nginx, _ = clean
    ids = [f"page-{number:032x}" for number in range(6)]
    for name in ids:
        sent = {"X-Job-Id": name, "Prefer": "respond-async"}
        while post(nginx, headers=sent).status_code == 429:
            pass
    url = f"{nginx.url}/v1/jobs/events?ids={','.join(ids)}"
    told = requests.get(url, timeout=30).text
    assert told.count("event: done") == len(ids)
    assert "job_not_found" not in told
    listed = requests.get(f"{nginx.url}/v1/jobs", params={"ids": ",".join(ids)})
    assert sorted(job["id"] for job in listed.json()["data"]) == ids
    assert len(requests.get(f"{nginx.url}/jobs", timeout=10).json()["data"]) >= 6


def test_a_stream_of_several_follows_the_first_name(clean):
    nginx, _ = clean
    made = {}
    while len(made) < COUNT:
        taken = post(nginx, headers={"Prefer": "respond-async"}).json()
        made.setdefault(taken["id"][:3], []).append(taken["id"])
    for ids in made.values():
        url = f"{nginx.url}/jobs/events?ids={','.join(ids)}"
        told = requests.get(url, timeout=30).text
        assert told.count("event: done") == len(ids)
